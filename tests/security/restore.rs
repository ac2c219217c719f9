//! The commands of docs/operating.md, as they stand there: a backup of a service at work, restored into an empty place, serves every
//! run and every byte that was there.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Output},
};

use estimatord::embedded_postgres::DataDir;
use serde_json::{Value, json};

use crate::{
    own_database::{Database, replica},
    service::{Service, data_dir, until},
};

/// The commands below the heading comment of this name.
fn documented(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let page = fs::read_to_string(path).expect("the page");
    let (_, rest) = page.split_once(&format!("<!-- test: {name} -->\n```sh\n")).expect("the commands");
    rest.split_once("\n```").expect("their end").0.to_owned()
}

/// Runs them as a person would, who is told at the first that fails.
fn run(name: &str, variables: &[(&str, &Path)]) {
    let output = output_of(name, &["-euo", "pipefail"], variables);
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {said}");
}

fn output_of(name: &str, options: &[&str], variables: &[(&str, &Path)]) -> Output {
    let binaries = Path::new(env!("CARGO_BIN_EXE_estimatord")).parent().expect("a directory").to_owned();
    let postgres = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut path: Vec<_> = postgres.map(|version| version.path().join("bin")).collect();
    path.sort();
    path.push(binaries);
    path.reverse();
    path.extend(std::env::split_paths(&std::env::var_os("PATH").expect("a PATH")));
    Command::new("bash")
        .args(options)
        .args(["-c", &documented(name)])
        .env_remove("DATABASE_URL")
        .env("PATH", std::env::join_paths(path).expect("joined"))
        .envs(variables.iter().copied())
        .output()
        .expect("bash")
}

/// Trains for a moment, leaves outputs of several sizes and a log behind.
const TRAINS: &str = "\
import os, sys
for step in range(200): print('step', step)
os.makedirs('outputs/deep/er')
open('outputs/empty', 'w').close()
open('outputs/deep/er/small.txt', 'w').write('ä' * 10)
open('outputs/a # b%.bin', 'wb').write(bytes(range(256)) * 5000)
";

const PATIENT: &str = "\
import os, sys, time
print('begun', flush=True)
while not os.path.exists(sys.argv[1]): time.sleep(0.01)
";

/// Every address below which something was, and the bytes that were there.
type Served = BTreeMap<String, Vec<u8>>;

fn get(service: &Service, path: &str) -> Vec<u8> {
    let answer = service.call("GET", path, None);
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    answer.body
}

fn items(service: &Service, path: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page: Value =
            serde_json::from_slice(&get(service, &format!("{path}?limit=3{cursor}"))).expect("JSON");
        items.extend(page["items"].as_array().expect("items").iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return items,
        }
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("no {member}: {value:#}"))
}

/// A path as a URL's: byte by byte, but for what needs nothing.
fn encoded(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    path.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// All that is there, of ended runs to the last byte.
fn everything(service: &Service) -> Served {
    let mut served = Served::new();
    let mut keep = |path: String| {
        let bytes = get(service, &path);
        served.insert(path, bytes);
    };
    for list in ["/v1/datastores", "/v1/webhooks", "/v1/estimators"] {
        for item in items(service, list) {
            let own = item["id"].as_str().or_else(|| item["name"].as_str()).expect("an id or a name");
            keep(format!("{list}/{own}"));
        }
    }
    for run in items(service, "/v1/runs") {
        let id = text(&run, "id");
        if run["finished_at"].is_null() {
            continue;
        }
        keep(format!("/v1/runs/{id}"));
        for kind in ["logs", "outputs"] {
            let listed: Value =
                serde_json::from_slice(&get(service, &format!("/v1/runs/{id}/{kind}"))).expect("JSON");
            for file in listed["items"].as_array().expect("items") {
                keep(format!("/v1/runs/{id}/{kind}/{}", encoded(text(file, "path"))));
            }
        }
        let snapshot: Value = serde_json::from_slice(&get(service, &format!("/v1/runs/{id}"))).expect("JSON");
        let snapshot = text(&snapshot["plan"], "snapshot_id").to_owned();
        keep(format!("/v1/snapshots/{snapshot}"));
        keep(format!("/v1/snapshots/{snapshot}/files"));
    }
    served
}

/// Runs that have ended, with all that they leave behind, secrets of every kind, and one run that is at work.
fn fill(service: &Service, gate: &Path) -> String {
    for number in 0..4 {
        let mut definition = service.definition(&format!("{TRAINS}\n# {number}\n"));
        definition["script_params"] = json!({"--number": number});
        let id = service.submit(&definition);
        service.until_status(&id, &["Completed"]);
    }
    let failing = service.submit(&service.definition("raise SystemExit(3)"));
    until("it has failed", || (service.run(&failing)["status"] == "Failed").then_some(()));
    let put = |path: &str, body: &Value| {
        let answer = service.call("PUT", path, Some(body));
        assert_eq!(answer.status, 201, "{}", answer.text());
    };
    put(
        "/v1/datastores/bucket",
        &json!({"url": "s3://bucket", "credentials": {
        "access_key_id": "AKIA1", "secret_access_key": "s3cret"}}),
    );
    put("/v1/webhooks/ci", &json!({"url": "https://hooks.example.com/x"}));
    let mut definition = service.definition(PATIENT);
    definition["script_params"] = json!({gate.to_str().expect("UTF-8"): ""});
    let id = service.submit(&definition);
    service.until_status(&id, &["Running"]);
    id
}

const RECEIVERS: [&str; 2] = ["--webhook-allow", "hooks.example.com"];

/// Everything is served as it was, the secrets open, and new runs run.
fn is_whole(service: &Service, before: &Served, unfinished: &str, doctor: &mut Command) {
    let after = everything(service);
    for (path, bytes) in before {
        let now = after.get(path).unwrap_or_else(|| panic!("{path} is not served any more"));
        assert!(now == bytes, "{path} is served otherwise: {}", String::from_utf8_lossy(now));
    }
    assert!(before.keys().filter(|path| path.contains("/outputs/")).count() >= 12, "{:?}", before.keys());
    // Of what ran nothing is left; it was the system that lost it.
    let run = until("the run that was at work has ended", || {
        Some(service.run(unfinished)).filter(|run| !run["finished_at"].is_null())
    });
    assert_eq!((text(&run, "status"), text(&run, "cause")), ("Failed", "compute_lost"), "{run:#}");
    let output = doctor.output().expect("started");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let findings = report["findings"].as_array().expect("findings");
    let key = findings.iter().find(|finding| finding["check"] == "secret key").expect("it was looked at");
    assert_eq!(
        (text(key, "severity"), text(key, "message")),
        ("ok", "it opens all that is encrypted: 2 row(s)")
    );
    let id = service.submit(&service.definition(TRAINS));
    service.until_status(&id, &["Completed"]);
}

#[test]
fn a_backup_of_the_embedded_database_is_restored_to_the_last_byte() {
    let (dir, kept, place) = (data_dir(), data_dir(), data_dir());
    let (backup, keys) = (kept.path().join("backup"), kept.path().join("keys"));
    let service = Service::start_with(dir.path(), &RECEIVERS);
    let gate = kept.path().join("go");
    let unfinished = fill(&service, &gate);
    let before = everything(&service);
    run("backup", &[("DATA", dir.path()), ("BACKUP", &backup), ("KEYS", &keys)]);
    // What comes later is not in it, and does not disturb it.
    let late = service.submit(&service.definition(TRAINS));
    service.until_status(&late, &["Completed"]);
    fs::write(&gate, "").expect("written");
    service.until_status(&unfinished, &["Completed"]);
    service.stop();

    let data = place.path().join("data");
    // Of an attempt that did not get far.
    fs::write(backup.join("ready"), "ready /nowhere\n").expect("written");
    run("restore", &[("DATA", &data), ("BACKUP", &backup), ("KEYS", &keys)]);
    let service = Service::start_with(&data, &RECEIVERS);
    assert_eq!(service.call("GET", &format!("/v1/runs/{late}"), None).status, 404);
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    doctor.args(["doctor", "--output", "json", "--data-dir"]).arg(&data).env_remove("DATABASE_URL");
    is_whole(&service, &before, &unfinished, &mut doctor);
}

#[test]
fn a_backup_of_a_database_of_the_operators_is_restored_to_the_last_byte() {
    let (dir, kept, place) = (data_dir(), data_dir(), data_dir());
    let backup = kept.path().join("backup");
    let key = kept.path().join("secret.key");
    fs::write(&key, "a".repeat(64)).expect("written");
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("closed to others");
    let options = [&["--secret-key-file", key.to_str().expect("UTF-8")], &RECEIVERS[..]].concat();
    let database = Database::start(dir.path());
    let service = replica(&database, dir.path(), "one", &options);
    let gate = kept.path().join("go");
    let unfinished = fill(&service, &gate);
    let before = everything(&service);
    run(
        "backup-database-url",
        &[
            ("DATABASE_URL", Path::new(&database.url)),
            ("BACKUP", &backup),
            ("ARTIFACTS", &dir.path().join("artifacts")),
        ],
    );
    fs::write(&gate, "").expect("written");
    service.until_status(&unfinished, &["Completed"]);
    service.stop();

    let database = Database::start(place.path());
    run(
        "restore-database-url",
        &[
            ("DATABASE_URL", Path::new(&database.url)),
            ("BACKUP", &backup),
            ("ARTIFACTS", &place.path().join("artifacts")),
        ],
    );
    let own = place.path().join("one");
    fs::create_dir_all(&own).expect("made");
    fs::copy(dir.path().join("one/node-id"), own.join("node-id")).expect("copied");
    let service = replica(&database, place.path(), "one", &options);
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    doctor.args(["doctor", "--output", "json", "--data-dir"]).arg(&own).args(&options);
    doctor.env("DATABASE_URL", &database.url);
    is_whole(&service, &before, &unfinished, &mut doctor);

    let archive = kept.path().join("audit.csv");
    let url = Path::new(&database.url);
    let move_until = |before: &str| {
        let variables = [("DATABASE_URL", url), ("ARCHIVE", &archive), ("BEFORE", Path::new(before))];
        run("archive-audit-trail", &variables);
        fs::read_to_string(&archive).expect("the archive").lines().count()
    };
    let made = Command::new(env!("CARGO_BIN_EXE_estimatord"))
        .args(["token", "create", "--name", "ci", "--scope", "read"])
        .env("DATABASE_URL", &database.url)
        .output()
        .expect("started");
    assert!(made.status.success(), "{made:?}");
    let trail = items(&service, "/v1/audit-events");
    let newest = (text(&trail[0], "operation"), text(&trail[0], "credential"));
    assert_eq!(newest, ("create_token", "database"), "{trail:#?}");
    let rows = trail.len();
    assert!(rows > 5, "{rows}");
    assert_eq!((move_until("2020-01-01"), items(&service, "/v1/audit-events").len()), (1, rows));
    assert_eq!((move_until("2100-01-01"), items(&service, "/v1/audit-events").len()), (rows + 1, 0));
    let output = doctor.output().expect("started");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mut findings = report["findings"].as_array().expect("findings").iter();
    assert!(findings.any(|one| one["check"] == "schema objects" && one["severity"] == "ok"), "{report}");
}

#[test]
fn a_restore_ends_when_its_database_does() {
    let (kept, place) = (data_dir(), data_dir());
    let _in_use = DataDir::lock(place.path()).expect("nobody has it");
    let places = [("DATA", place.path()), ("BACKUP", kept.path()), ("KEYS", kept.path())];
    let output = output_of("restore", &[], &places);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success()
            && said.contains("is using the data directory")
            && !said.contains("pg_restore"),
        "{said}"
    );
}
