//! What is killed while it works.

use chrono::{DateTime, Utc};
use estimatord::clock::{Clock as _, SystemClock};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::service::{Service, data_dir, until};

/// Says that it started, waits for a file, says that it ended.
const PATIENT: &str = "import os, sys, time\n\
                       open(sys.argv[1] + '/started', 'a').write('x')\n\
                       print('epoch 1', flush=True)\n\
                       while not os.path.exists(sys.argv[1] + '/go'): time.sleep(0.01)\n\
                       print('epoch 2', flush=True)\n\
                       open('outputs/model.txt', 'w').write('weights')\n";

fn patient_run(service: &Service, dir: &std::path::Path) -> String {
    let mut definition = service.definition(PATIENT);
    definition["script_params"] = json!({dir.to_str().expect("UTF-8"): ""});
    let id = service.submit(&definition);
    service.until_status(&id, &["Running"]);
    until("the script has started", || dir.join("started").exists().then_some(()));
    id
}

#[test]
fn a_run_survives_kill_nine_of_the_service_and_trains_once() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let id = patient_run(&service, dir.path());
    service.kill();
    let service = Service::start(dir.path());
    assert_eq!(service.run(&id)["status"], "Running");
    std::fs::write(dir.path().join("go"), "").expect("opened");
    let run = service.until_status(&id, &["Completed"]);
    assert_eq!(std::fs::read_to_string(dir.path().join("started")).expect("read"), "x", "started once");
    assert_eq!(run["attempts"].as_array().expect("attempts").len(), 1);
    assert_eq!(service.log_text(&id), "epoch 1\nepoch 2\n");
    assert_eq!(service.call("GET", &format!("/v1/runs/{id}/outputs/model.txt"), None).text(), "weights");
}

#[test]
fn a_run_that_ends_while_no_service_is_there_completes_at_the_next_start() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let id = patient_run(&service, dir.path());
    service.kill();
    std::fs::write(dir.path().join("go"), "").expect("opened");
    let exit = dir.path().join("runs").join(&id).join("1").join("exit.json");
    until("the script has ended", || exit.exists().then_some(()));
    let back = SystemClock.now();
    let service = Service::start(dir.path());
    let run = service.until_status(&id, &["Completed"]);
    assert_eq!(service.log_text(&id), "epoch 1\nepoch 2\n");
    // Its end is when it ended, and not when somebody was there to see it.
    for end in [&run["finished_at"], &run["attempts"][0]["finished_at"]] {
        let end: DateTime<Utc> = end.as_str().expect("a time").parse().expect("RFC 3339");
        assert!(end <= back, "{end} is after {back}");
    }
}

#[test]
fn a_run_goes_on_while_the_service_is_stopped() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let id = patient_run(&service, dir.path());
    assert!(service.stop().success());
    let service = Service::start(dir.path());
    assert_eq!(service.run(&id)["status"], "Running");
    std::fs::write(dir.path().join("go"), "").expect("opened");
    assert_eq!(service.until_status(&id, &["Completed"])["attempt"], 1);
}

#[test]
fn a_cancel_that_was_acknowledged_is_carried_out_after_a_crash() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let id = patient_run(&service, dir.path());
    // The worker cannot act on it: the whole service stands still until it is killed.
    let answer = service.call("POST", &format!("/v1/runs/{id}/cancel"), None);
    assert_eq!(answer.status, 202);
    service.kill();
    let service = Service::start(dir.path());
    let run = service.until_status(&id, &["Canceled"]);
    assert_eq!(run["cause"], "canceled_by_user");
}

#[test]
fn a_killed_supervisor_is_told_as_lost_and_leaves_nothing() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let id = patient_run(&service, dir.path());
    let marker = format!("ESTIMATORD_ATTEMPT={id}.1");
    let record = dir.path().join("runs").join(&id).join("1").join("supervisor.json");
    let record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(record).expect("read")).expect("JSON");
    let pid = i32::try_from(record["pid"].as_i64().expect("a pid")).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL).expect("killed");
    let run = service.until_status(&id, &["Failed"]);
    assert_eq!(run["cause"], "compute_lost");
    for entry in std::fs::read_dir("/proc").expect("proc") {
        let environment = std::fs::read(entry.expect("an entry").path().join("environ")).unwrap_or_default();
        assert!(!environment.split(|b| *b == 0).any(|v| v == marker.as_bytes()), "a process is left");
    }
}
