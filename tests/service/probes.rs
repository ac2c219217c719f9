//! A worker alone, and what tells of it.

use std::{
    fs::File,
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::service::{command, data_dir, until};

#[test]
fn a_worker_alone_answers_probes_where_it_is_told_to() {
    let dir = data_dir();
    let log = dir.path().join("worker.log");
    let sink = File::create(&log).expect("a log");
    let mut worker = command(dir.path())
        .args(["--role", "worker", "--probe-listen", "127.0.0.1:0"])
        .stdout(Stdio::null())
        .stderr(sink)
        .spawn()
        .expect("started");
    let base = until("the address of the probes", || {
        let said = std::fs::read_to_string(&log).expect("a log");
        if let Some(status) = worker.try_wait().expect("asked") {
            panic!("the worker ended ({status}):\n{said}");
        }
        let rest = &said[said.find("probes and figures: ")? + "probes and figures: ".len()..];
        rest.split_once("/metrics").map(|(base, _)| base.to_owned())
    });
    let check = || {
        let mut healthcheck = Command::new(env!("CARGO_BIN_EXE_estimatord"));
        healthcheck.args(["healthcheck", "--url", &base]).output().expect("ended").status.success()
    };
    until("the worker is ready", || check().then_some(()));
    let pid = Pid::from_raw(i32::try_from(worker.id()).expect("a pid"));
    kill(pid, Signal::SIGTERM).expect("signalled");
    let status = until("the worker stops", || worker.try_wait().expect("asked"));
    assert!(status.success(), "{status}: {}", std::fs::read_to_string(&log).expect("a log"));
    assert!(!check());
}
