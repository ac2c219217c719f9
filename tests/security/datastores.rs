//! Runs that make datastores lead where they must not: the service reads and writes them as itself.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use serde_json::{Value, json};

use crate::{
    runs::{SECRET, answers, data_dir, is_root, notes, start},
    service::Service,
};

/// What lies outside, only for root.
const OUTSIDE: &str = "of-root-alone";

fn register(service: &Service, name: &str, folder: &Path) {
    let body = json!({"url": format!("file://{}", folder.display())});
    let answer = service.call("PUT", &format!("/v1/datastores/{name}"), Some(&body));
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// The end of a run of a script that has an input, which is its first argument where it is not written by the service.
fn ended(service: &Service, script: &str, datastore: &str, mode: &str, path: &str) -> (Value, String) {
    let mut definition = service.definition(script);
    definition["inputs"] = json!([{"type": "DataReference", "datastore": datastore, "data_reference_name": "d",
        "path_on_datastore": path, "mode": mode}]);
    let run = service.submit(&definition);
    let end = service.until_status(&run, &["Completed", "Failed"]);
    (end, service.log_text(&run))
}

#[test]
fn no_link_of_a_run_leads_the_service_out_of_a_datastore() {
    if !is_root() {
        return;
    }
    let (dir, allowed, outside) = (data_dir(), notes(), notes());
    fs::set_permissions(allowed.path(), fs::Permissions::from_mode(0o755)).expect("set");
    fs::set_permissions(outside.path(), fs::Permissions::from_mode(0o700)).expect("set");
    fs::create_dir(allowed.path().join("open")).expect("made");
    fs::set_permissions(allowed.path().join("open"), fs::Permissions::from_mode(0o777)).expect("set");
    fs::write(outside.path().join("notes"), OUTSIDE).expect("written");
    let service = start(dir.path(), &["--datastore-allow", allowed.path().to_str().expect("UTF-8")]);
    register(&service, "st", allowed.path());
    let place = "d = os.environ['AZUREML_DATAREFERENCE_d']\n";
    let links = format!(
        "import os\n{place}os.symlink('{outside}/notes', d + '/notes')\nos.symlink('{outside}', d + '/folder')\n\
         os.symlink('{data}', d + '/service')\n",
        outside = outside.path().display(),
        data = dir.path().display()
    );
    let (end, log) = ended(&service, &links, "st", "mount", "open");
    assert_eq!(end["status"], "Completed", "{end:#}\n{log}");

    let shows = format!(
        "import os\n{place}\
         for path in [d] + [os.path.join(a, c) for a, b, f in os.walk(d, followlinks=True) for c in f]:\n\
         \x20   if os.path.isfile(path): print(open(path, errors='replace').read())\n"
    );
    let writes = format!("import os\n{place}open(d + '/made', 'w').write('by a run')\n");
    let modes = [("download", &shows), ("mount", &shows), ("upload", &writes)];
    for (mode, script) in modes {
        for (path, link) in [
            ("open/notes", "open/notes"),
            ("open/folder", "open/folder"),
            ("open/folder/notes", "open/folder"),
            ("open/service", "open/service"),
            ("open/service/secret.key", "open/service"),
        ] {
            let (end, log) = ended(&service, script, "st", mode, path);
            assert_eq!(end["status"], "Failed", "{mode} {path}: {end:#}");
            let why = format!("has a symbolic link at `{link}`");
            assert!(end["detail"].as_str().expect("text").contains(&why), "{mode} {path}: {end:#}");
            assert!(!log.contains(OUTSIDE) && !log.contains(SECRET), "{mode} {path}: {log}");
        }
    }
    let (end, log) = ended(&service, &shows, "st", "download", "open");
    assert!(
        end["detail"].as_str().expect("text").contains("has a symbolic link at `open/"),
        "{end:#}\n{log}"
    );
    assert_eq!(fs::read_dir(outside.path()).expect("listed").count(), 1, "nothing was written there");
    assert!(!dir.path().join("made").exists());
    answers(&service);
}

/// A datastore in a folder that somebody has exchanged for a link since it was registered, or that was one before.
#[test]
fn a_datastore_is_where_its_address_leads() {
    if !is_root() {
        return;
    }
    let (dir, allowed, outside) = (data_dir(), notes(), notes());
    fs::write(outside.path().join("notes"), OUTSIDE).expect("written");
    let service = start(dir.path(), &["--datastore-allow", allowed.path().to_str().expect("UTF-8")]);
    for (name, leads_to) in [("out", outside.path()), ("own", dir.path())] {
        symlink(leads_to, allowed.path().join(name)).expect("linked");
        register(&service, name, &allowed.path().join(name));
        for mode in ["download", "mount"] {
            let (end, log) = ended(&service, "print('ran')\n", name, mode, "");
            assert_eq!(end["status"], "Failed", "{name} {mode}: {end:#}\n{log}");
            let detail = end["detail"].as_str().expect("text");
            assert!(detail.contains(&format!("leads to {}", leads_to.display())), "{name} {mode}: {detail}");
        }
    }
}
