//! Runs from definition to end.

use serde_json::json;

use crate::service::{Service, data_dir, is_alive, until};

#[test]
fn a_definition_becomes_a_finished_run() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let script = "import os, sys\n\
                  print('arguments', sys.argv[1:])\n\
                  print('run', os.environ['AZUREML_RUN_ID'], os.environ['AZUREML_ARM_PROJECT_NAME'], os.environ['RATE'])\n\
                  print('secrets', [k for k in os.environ if k in ('DATABASE_URL', 'ESTIMATORD_SECRET_KEY')])\n\
                  open('outputs/model.txt', 'w').write('weights')\n\
                  open('logs/trace.txt', 'w').write('trace')\n";
    let mut definition = service.definition(script);
    // From text: a literal would have lost the spelling of its numbers before it is sent.
    let parsed = |text: &str| -> serde_json::Value { serde_json::from_str(text).expect("JSON") };
    definition["script_params"] =
        parsed(r#"{"--z": 1, "--a": "two words", "--flag": "", "--list": [1.50, true]}"#);
    definition["environment_variables"] = parsed(r#"{"RATE": 0.10}"#);
    let id = service.submit(&definition);
    let run = service.until_status(&id, &["Completed"]);
    assert_eq!(run["exit_code"], 0);
    assert_eq!(run["attempts"].as_array().expect("attempts").len(), 1);
    let host = nix::unistd::gethostname().expect("a name");
    assert_eq!(run["attempts"][0]["host"], host.to_str().expect("UTF-8"));
    let log = service.log_text(&id);
    assert!(
        log.contains("arguments ['--z', '1', '--a', 'two words', '--flag', '--list', '1.50', 'True']"),
        "{log}"
    );
    assert!(log.contains(&format!("run {id} tests 0.10")), "{log}");
    assert!(log.contains("secrets []"), "{log}");
    let outputs = service.call("GET", &format!("/v1/runs/{id}/outputs"), None).json();
    assert_eq!(outputs["items"][0]["path"], "model.txt");
    assert_eq!(service.call("GET", &format!("/v1/runs/{id}/outputs/model.txt"), None).text(), "weights");
    assert_eq!(service.call("GET", &format!("/v1/runs/{id}/logs/logs/trace.txt"), None).text(), "trace");
    let events = service.call("GET", &format!("/v1/runs/{id}/events"), None).json();
    let last = events["items"].as_array().expect("events").last().expect("one").clone();
    assert_eq!(last["status"], "Completed");
    // Only the copies in the artifact store are left.
    until("the working directory is removed", || {
        (!dir.path().join("runs").join(&id).join("1").exists()).then_some(())
    });
    assert!(service.stop().success());
}

#[test]
fn a_failing_script_fails_its_run_with_code_and_traceback() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let raises = service.submit(&service.definition("raise ValueError('no such digit')\n"));
    let run = service.until_status(&raises, &["Failed"]);
    assert_eq!((run["cause"].as_str(), run["exit_code"].as_i64()), (Some("script_failed"), Some(1)));
    let log = service.log_text(&raises);
    assert!(log.contains("Traceback") && log.contains("ValueError: no such digit"), "{log}");
    let exits = service.submit(&service.definition("import sys\nsys.exit(42)\n"));
    assert_eq!(service.until_status(&exits, &["Failed"])["exit_code"], 42);
    let killed = service.submit(&service.definition("import os\nos.kill(os.getpid(), 11)\n"));
    let run = service.until_status(&killed, &["Failed"]);
    assert_eq!((run["signal"].as_i64(), run["exit_code"].as_i64()), (Some(11), None));
}

#[test]
fn a_cancel_leaves_no_process_behind() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    // A child, and a grandchild that went into a session of its own; all ignore TERM.
    let script = "import os, signal, sys, time\n\
                  signal.signal(signal.SIGTERM, signal.SIG_IGN)\n\
                  if os.fork() == 0:\n\
                  \x20   os.setsid()\n\
                  \x20   if os.fork() == 0:\n\
                  \x20       os.setsid()\n\
                  pids = open(sys.argv[1], 'a')\n\
                  pids.write(f'{os.getpid()}\\n'); pids.flush()\n\
                  time.sleep(600)\n";
    let pids = dir.path().join("pids");
    let mut definition = service.definition(script);
    definition["script_params"] = json!({pids.to_str().expect("UTF-8"): ""});
    let id = service.submit(&definition);
    let found: Vec<i32> = until("three processes have started", || {
        let text = std::fs::read_to_string(&pids).ok()?;
        let found: Vec<i32> = text.lines().map(|l| l.parse().expect("a pid")).collect();
        (found.len() == 3).then_some(found)
    });
    service.until_status(&id, &["Running"]);
    let answer = service.call("POST", &format!("/v1/runs/{id}/cancel"), None);
    assert_eq!((answer.status, answer.json()["status"].as_str()), (202, Some("CancelRequested")));
    let run = service.until_status(&id, &["Canceled"]);
    // At once, not eventually: Canceled means that they are gone.
    assert!(found.iter().all(|pid| !is_alive(*pid)), "{found:?}");
    assert_eq!(run["cause"], "canceled_by_user");
    let again = service.call("POST", &format!("/v1/runs/{id}/cancel"), None);
    assert_eq!((again.status, again.content_type.as_str()), (409, "application/problem+json"));
}

#[test]
fn a_run_over_its_time_is_stopped_and_says_why() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let mut definition = service.definition("import time\nprint('begun', flush=True)\ntime.sleep(600)\n");
    definition["max_run_duration_seconds"] = json!(1);
    let id = service.submit(&definition);
    let run = service.until_status(&id, &["Canceled"]);
    assert_eq!(run["cause"], "max_run_duration_exceeded");
    assert!(run["detail"].as_str().expect("a reason").contains("max_run_duration_seconds"));
    assert!(service.log_text(&id).contains("begun"));
}

#[test]
fn runs_wait_for_a_place_and_say_so() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let local = json!({"type": "local", "backend": {"kind": "process", "max_concurrent_runs": 1}});
    assert_eq!(service.call("PUT", "/v1/compute-targets/local", Some(&local)).status, 200);
    let gate = dir.path().join("gate");
    let script = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.01)\n";
    let mut definition = service.definition(script);
    definition["script_params"] = json!({gate.to_str().expect("UTF-8"): ""});
    let first = service.submit(&definition);
    service.until_status(&first, &["Running"]);
    let second = service.submit(&definition);
    let waiting = service.run(&second);
    assert_eq!(waiting["status"], "Queued");
    assert_eq!(waiting["blocked_by"][0]["code"], "compute_target_at_limit", "{waiting:#}");
    std::fs::write(&gate, "").expect("opened");
    service.until_status(&first, &["Completed"]);
    service.until_status(&second, &["Completed"]);
}
