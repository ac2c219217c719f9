//! How environments are built, with a stand-in for uv: quick, and without the network.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use estimatord::{
    backend::{
        Attempt, Backend as _, PrepareError,
        process::{ProcessBackend, Settings},
    },
    domain::environment::EnvironmentKind,
};

use crate::{
    harness::{self, Lab as _, scripts},
    process::Machine,
};

/// A backend whose uv is the given shell script, and an attempt that needs it.
fn with_uv(machine: &Machine, script: &str) -> (ProcessBackend, Attempt) {
    let uv = machine.note("uv");
    fs::write(&uv, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
    let backend = ProcessBackend::new(Settings {
        data_dir: machine.data_dir(),
        supervisor: env!("CARGO_BIN_EXE_estimatord").into(),
        cancel_grace: Duration::from_secs(1),
        build_timeout: Duration::from_secs(60),
        uv: Some(uv.into()),
    })
    .unwrap();
    let mut attempt = machine.watched(harness::attempt("exits.py", &["0"]));
    attempt.plan.environment.kind = EnvironmentKind::Managed;
    attempt.plan.environment.interpreter_path = None;
    (backend, attempt)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn the_installer_trusts_the_system_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let seen = machine.note("seen");
    let script = format!(
        "env > {seen}\ntouch \"$TMPDIR/uv-setuptools-1.lock\" || exit 1\n\
         for last; do :; done\nmkdir -p \"$last/bin\"\necho 'error: no network'\nexit 1"
    );
    let (backend, attempt) = with_uv(&machine, &script);
    let error = backend.prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message } if message == "error: no network"),
        "{error}"
    );
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.lines().any(|line| line == "UV_SYSTEM_CERTS=true"), "{seen}");
    assert!(seen.lines().any(|line| line == "UV_NATIVE_TLS=true"), "{seen}");
    let temporary = machine.data_dir().join("cache/tmp");
    let told = seen.lines().find_map(|line| line.strip_prefix("TMPDIR=")).unwrap();
    assert!(Path::new(told).starts_with(&temporary), "{told}");
    assert_eq!(names(&temporary), [""; 0]);
    let left = names(&machine.data_dir().join("environments"));
    assert!(left.iter().all(|name| name.ends_with(".log") || name.ends_with(".lock")), "{left:?}");
}
