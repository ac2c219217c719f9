//! Packages that are hostile while they are built, where runs have users of their own: a stand-in for uv does what they would.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    time::Duration,
};

use estimatord::{
    backend::{
        Attempt, Backend as _, PrepareError,
        process::{Isolation, ProcessBackend, Settings},
    },
    domain::{environment::EnvironmentKind, run_users::UserRange},
};

use crate::{
    harness::{self, Lab as _, content, scripts},
    process::Machine,
};

const SECRET: &str = "5ec2e75ec2e7";

/// What a uv that is not hostile does.
const HONEST: &str = r#"case "$*" in
    *" venv "*) for last; do :; done; mkdir -p "$last/bin" && ln -s /bin/true "$last/bin/python" ;;
    *" pip compile "*) while [ "$1" != --output-file ]; do shift; done; echo six==1.16.0 > "$2" ;;
    *" pip list "*) echo '[{"name":"six","version":"1.16.0"}]' ;;
esac"#;

/// A backend whose runs have users of their own, whose uv is this shell script, with a secret in its data directory.
fn lab(script: &str) -> Option<(Machine, ProcessBackend, Attempt)> {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not root: what only root can do is not tested");
        return None;
    }
    let machine = Machine::new();
    let data_dir = machine.data_dir();
    fs::create_dir(&data_dir).unwrap();
    for (directory, mode) in [(data_dir.parent().unwrap(), 0o755), (&data_dir, 0o711)] {
        fs::set_permissions(directory, fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(machine.notes(), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(data_dir.join("secret.key"), SECRET).unwrap();
    fs::set_permissions(data_dir.join("secret.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let uv = machine.note("uv");
    let script = script.replace("$NOTES", machine.notes().to_str().unwrap());
    fs::write(&uv, format!("#!/bin/sh\nDATA={}\n{script}\n", data_dir.display())).unwrap();
    fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
    let isolation = Isolation { users: Some(UserRange::DEFAULT), ..Isolation::default() };
    let settings = harness::settings(data_dir, Duration::from_secs(1));
    let backend = ProcessBackend::new(Settings { uv: Some(uv.into()), isolation, ..settings }).unwrap();
    let mut attempt = machine.watched(harness::attempt("exits.py", &["0"]));
    attempt.plan.environment.kind = EnvironmentKind::Managed;
    attempt.plan.environment.interpreter_path = None;
    attempt.plan.environment.pip_packages = vec!["six".to_owned()];
    Some((machine, backend, attempt))
}

/// Why the environment could not be had.
async fn refused(backend: &ProcessBackend, attempt: &Attempt) -> String {
    let error: PrepareError = backend.prepare(attempt, &scripts()).await.unwrap_err();
    let text = error.to_string();
    assert!(!text.contains(SECRET), "{text}");
    let logs = backend.log_files(attempt).await.unwrap();
    assert!(!content(&logs, "azureml-logs/20_image_build_log.txt").contains(SECRET));
    text
}

#[tokio::test]
async fn what_a_package_runs_is_the_runs_own_user_and_nothing_of_it_remains() {
    let hostile = format!(
        "{{ id -u; cat $DATA/secret.key; ls $DATA; touch $DATA/environments/made; touch $DATA/cache/made; \
         cat /proc/$PPID/environ; env; readlink /proc/self/fd/0; }} >> $NOTES/got 2>&1\n\
         setsid sh -c 'echo $$ >> $NOTES/left; exec sleep 1000' > /dev/null 2>&1 &\n\
         while ! test -s $NOTES/left; do :; done\n{HONEST}"
    );
    let Some((machine, backend, attempt)) = lab(&hostile) else { return };
    let built = backend.prepare(&attempt, &scripts()).await.unwrap();
    assert_eq!(built.packages, ["six==1.16.0"]);
    let got = fs::read_to_string(machine.notes().join("got")).unwrap();
    let user: u32 = got.lines().next().unwrap().parse().unwrap();
    assert!((70_000..80_000).contains(&user), "{got}");
    assert!(!got.contains(SECRET) && !got.contains("secret.key\n"), "{got}");
    assert_eq!(got.matches("Permission denied").count() % 5, 0, "{got}");
    assert!(
        got.contains("\n/dev/null\n") && !got.contains(".lock"),
        "nothing of the service's is in its hands: {got}"
    );
    assert!(got.contains("USER=run") && !got.contains("HOME=/root"), "{got}");
    for pid in fs::read_to_string(machine.notes().join("left")).unwrap().lines() {
        let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} is left: {stat}");
    }
    // Whoever uses it later finds nothing in it that a run can change.
    let root = machine.data_dir().join("environments").join(built.build_key.unwrap());
    let mut open = vec![root];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (0, 0), "{}", path.display());
        if metadata.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    let temporary = fs::read_dir(machine.data_dir().join("cache/tmp")).unwrap();
    assert_eq!(temporary.count(), 0);
}

#[tokio::test]
async fn a_link_in_the_place_of_what_was_resolved_is_not_read() {
    for link in ["ln -s", "ln"] {
        let hostile =
            HONEST.replace("echo six==1.16.0 > \"$2\"", &format!("{link} $DATA/secret.key \"$2\" || exit 1"));
        let Some((_machine, backend, attempt)) = lab(&hostile) else { return };
        refused(&backend, &attempt).await;
    }
}

#[tokio::test]
async fn an_environment_that_leads_elsewhere_is_refused_and_opens_nothing() {
    for (instead, closed) in [
        ("mkdir -p \"$last/bin\" && ln -s $DATA/artifacts/x \"$last/bin/python\"", "artifacts"),
        (
            "mkdir -p $TMPDIR/bin && ln -s $DATA/artifacts/x $TMPDIR/bin/python && ln -s $TMPDIR \"$last\"",
            "artifacts",
        ),
        (
            "mkdir -p \"$last/bin\" && ln -s /bin/true \"$last/bin/python\" && ln -s $DATA/open \"$last/.lock\"",
            "none",
        ),
    ] {
        let honest = "mkdir -p \"$last/bin\" && ln -s /bin/true \"$last/bin/python\"";
        let Some((machine, backend, attempt)) = lab(&HONEST.replace(honest, instead)) else { return };
        let (artifacts, open) = (machine.data_dir().join("artifacts"), machine.data_dir().join("open"));
        fs::create_dir(&artifacts).unwrap();
        fs::set_permissions(&artifacts, fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(artifacts.join("x"), "").unwrap();
        fs::write(&open, "").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        let prepared = backend.prepare(&attempt, &scripts()).await;
        assert_eq!(prepared.is_err(), closed == "artifacts", "{prepared:?}");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&artifacts), mode(&open)), (0o700, 0o644), "{instead}");
    }
}

#[tokio::test]
async fn a_file_with_another_name_elsewhere_is_no_part_of_an_environment() {
    let hostile = HONEST.replace(
        "*\" pip list \"*)",
        "*\" pip install \"*) while [ \"$1\" != --python ]; do shift; done; echo x > $NOTES/kept
        ln $NOTES/kept \"${2%/bin/python}/kept\" || exit 1 ;;\n    *\" pip list \"*)",
    );
    let Some((machine, backend, attempt)) = lab(&hostile) else { return };
    let why = refused(&backend, &attempt).await;
    assert!(why.contains("another name elsewhere"), "{why}");
    let environments = fs::read_dir(machine.data_dir().join("environments")).unwrap();
    let left: Vec<String> =
        environments.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(!left.iter().any(|name| name.ends_with(".request")), "{left:?}");
}

/// The line of [`HONEST`] that lists packages, with something else before it, done in the environment.
fn at_the_end(act: &str) -> String {
    let line = "*\" pip list \"*)";
    let find = "for root in \"$@\"; do case \"$root\" in */venv/bin/python) cd \"${root%/venv/bin/python}\" ;; esac; done";
    HONEST.replace(line, &format!("{line} {find}; {act};"))
}

#[tokio::test]
async fn what_is_nested_without_end_brings_nobody_down() {
    let nest = "import os\nfor _ in range(20000): os.mkdir('d'); os.chdir('d')";
    for place in ["$TMPDIR", "."] {
        let hostile = at_the_end(&format!("(cd {place} && python3 -c \"{nest}\")"));
        let Some((machine, backend, attempt)) = lab(&hostile) else { return };
        let prepared = backend.prepare(&attempt, &scripts()).await;
        // In the environment it cannot stay.
        assert_eq!(prepared.is_ok(), place == "$TMPDIR", "{prepared:?}");
        assert_eq!(fs::read_dir(machine.data_dir().join("cache/tmp")).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn what_a_package_says_of_its_environment_is_not_believed() {
    let hostile =
        at_the_end("(echo '{}' > .complete; echo '{}' > \"$PWD.complete\"; mkfifo open.fifo) 2>/dev/null");
    let Some((machine, backend, attempt)) = lab(&hostile) else { return };
    let why = refused(&backend, &attempt).await;
    assert!(why.contains("neither a file nor a directory nor a link"), "{why}");
    let environments = fs::read_dir(machine.data_dir().join("environments")).unwrap();
    for entry in environments {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(name.ends_with(".lock") || name.ends_with(".log"), "{name}");
    }
    assert_eq!(backend.tidy_environments().await.unwrap(), []);
}

#[tokio::test]
async fn nobody_writes_to_what_was_built() {
    let hostile = at_the_end("echo x > kept; chmod 6777 kept; mkdir open; chmod 1777 open . venv venv/bin");
    let Some((machine, backend, attempt)) = lab(&hostile) else { return };
    let built = backend.prepare(&attempt, &scripts()).await.unwrap();
    let root = machine.data_dir().join("environments").join(built.build_key.unwrap());
    for path in ["", "kept", "open", "venv", "venv/bin"] {
        let mode = fs::symlink_metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode & !0o755, 0, "{path}: {mode:o}");
    }
}
