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

/// Its build waits for a file.
const SLOW_SETUP: &str = "import os, setuptools, time\n\
                          open(os.environ['PIP_TEST_NOTES'] + '/building', 'a').write('x')\n\
                          while not os.path.exists(os.environ['PIP_TEST_NOTES'] + '/go'): time.sleep(0.01)\n\
                          setuptools.setup(name='slow', version='1.0', py_modules=['slow'])\n";

/// The service and everything that it started for an environment, as when the machine loses its power.
fn kill_with_installers(service: Service, dir: &std::path::Path) {
    service.kill();
    let environments = dir.join("environments");
    let environments = environments.to_str().expect("UTF-8").as_bytes();
    until("no installer is left", || {
        let mut found = false;
        for entry in std::fs::read_dir("/proc").expect("listed").flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            let command = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if command.windows(environments.len()).any(|part| part == environments) {
                found = true;
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        (!found).then_some(())
    });
}

#[test]
fn what_a_killed_build_left_is_never_used() {
    let dir = data_dir();
    let notes = [("PIP_TEST_NOTES", dir.path())];
    let service = Service::start_in(dir.path(), &notes);
    let snapshot = service.upload(&[
        ("train.py", "import slow\nprint(slow.TEXT)\n"),
        ("slow/setup.py", SLOW_SETUP),
        ("slow/slow.py", "TEXT = 'built whole'\n"),
    ]);
    let environment = json!({"python": {"conda_dependencies": {"dependencies": [{"pip": ["setuptools", "slow @ file:./slow"]}]}}});
    let definition = json!({"source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
        "environment_definition": environment});
    let id = service.submit(&definition);
    service.until_status(&id, &["Preparing"]);
    until("the package is being built", || dir.path().join("building").exists().then_some(()));
    kill_with_installers(service, dir.path());
    let service = Service::start_in(dir.path(), &notes);
    let kept = service.call("GET", "/v1/environments", None).json();
    assert_eq!(kept["items"], json!([]), "half an environment is none");
    std::fs::write(dir.path().join("go"), "").expect("written");
    let run = service.until_status(&id, &["Completed"]);
    assert_eq!(
        (run["attempts"].as_array().map(Vec::len), &run["environment"]["actual"]["reused"]),
        (Some(1), &json!(false))
    );
    assert_eq!(service.log_text(&id), "built whole\n");
    let built = std::fs::read_dir(dir.path().join("environments")).expect("listed").flatten();
    assert_eq!(built.filter(|entry| entry.path().is_dir()).count(), 1);
}

#[test]
fn what_a_killed_download_left_is_completed() {
    const FILES: usize = 4000;
    let (dir, store) = (data_dir(), data_dir());
    for number in 0..FILES {
        std::fs::write(store.path().join(number.to_string()), format!("content {number}").repeat(100))
            .expect("written");
    }
    let service = Service::start(dir.path());
    let body = json!({"url": format!("file://{}", store.path().display())});
    assert_eq!(service.call("PUT", "/v1/datastores/mystore", Some(&body)).status, 201);
    let script = "import os\nplace = os.environ['AZUREML_DATAREFERENCE_d']\nnames = os.listdir(place)\n\
                  assert all(open(place + '/' + name).read() == ('content ' + name) * 100 for name in names)\n\
                  print(len(names), 'whole')\n";
    let mut definition = service.definition(script);
    definition["inputs"] = json!([{"type": "DataReference", "datastore": "mystore", "data_reference_name": "d",
        "mode": "download"}]);
    let id = service.submit(&definition);
    let place = dir.path().join("runs").join(&id).join("1/data/inputs/d");
    let names = || -> Vec<String> {
        let entries = std::fs::read_dir(&place).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let copied = || {
        let partial = names().into_iter().find(|name| name.starts_with('.'))?;
        std::fs::read_dir(place.join(partial).join("content")).ok().map(Iterator::count)
    };
    until("the download is under way", || copied().filter(|count| *count > 0));
    service.kill();
    assert!(copied().is_some_and(|count| count < FILES), "it was not killed in between: {:?}", names());
    assert!(!place.join("mystore").exists(), "there whole or not at all");
    let service = Service::start(dir.path());
    let run = service.until_status(&id, &["Completed"]);
    assert_eq!(run["attempts"].as_array().map(Vec::len), Some(1));
    assert_eq!(service.log_text(&id), format!("{FILES} whole\n"));
}

#[test]
fn the_time_of_a_run_goes_on_while_no_service_is_there() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let mut definition = service.definition("import time\nprint('begun', flush=True)\ntime.sleep(600)\n");
    definition["max_run_duration_seconds"] = json!(2);
    let id = service.submit(&definition);
    service.until_status(&id, &["Running"]);
    service.kill();
    let exit = dir.path().join("runs").join(&id).join("1/exit.json");
    until("the run has ended without a service", || exit.exists().then_some(()));
    let service = Service::start(dir.path());
    let run = service.until_status(&id, &["Canceled"]);
    assert_eq!(run["cause"], "max_run_duration_exceeded");
}
