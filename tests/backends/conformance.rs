//! What the contract promises, for any backend.

use std::{fs, sync::Arc, time::Duration};

use estimatord::{
    backend::{AttemptFile, Backend, ExitReason, Observation, ServiceAccess, ServiceAddresses},
    domain::record::{Record, rank_of},
    vault::Vault,
};

use crate::harness::{Lab, content, ended, noted_pids, start, until, with_variable};

/// Gives every test that wants nothing but a place to run in to the macro `$each`, which makes tests of them.
macro_rules! suite {
    ($each:ident) => {
        $each! {
            tells_the_exit_code,
            tells_the_signal,
            starts_once_however_often_it_is_asked,
            starts_once_when_all_ask_first,
            cancelling_ends_the_whole_family,
            what_the_script_leaves_behind_is_ended,
            cancelled_before_the_start_it_never_starts,
            cancelling_what_was_never_prepared_is_no_error,
            cancelling_while_it_starts_ends_it,
            too_long_a_run_is_ended,
            lists_logs_and_outputs_without_links,
            what_a_script_logs_is_recorded,
            logs_can_be_read_while_it_runs,
            arguments_arrive_verbatim_and_variables_are_set,
            a_script_finds_the_service,
            what_cannot_start_says_so,
            removing_leaves_nothing_and_spares_what_runs,
            what_a_run_left_can_be_removed_without_its_attempts,
            what_was_removed_cannot_be_started_again,
        }
    };
}
pub(crate) use suite;

fn names(files: &[AttemptFile]) -> Vec<&str> {
    files.iter().map(|file| file.name.as_str()).collect()
}

async fn is_running<B: Backend>(backend: &B, attempt: &estimatord::backend::Attempt) {
    let state = backend.observe(attempt).await.unwrap();
    assert!(matches!(state, Observation::Running { .. }), "{state:?}");
}

pub async fn tells_the_exit_code(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &["3"]));
    assert_eq!(backend.observe(&attempt).await.unwrap(), Observation::NotFound);
    let environment = start(&backend, &attempt).await;
    assert_eq!(environment.kind, "user_managed");
    assert!(environment.python_version.starts_with("3.") || !lab.knows_python());
    let exit = ended(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.exit_code, exit.signal), (ExitReason::Exited, Some(3), None));
    assert!(exit.started_at.unwrap() <= exit.finished_at);
    if lab.measures() {
        assert!(exit.cpu_seconds.unwrap() > 0.0 && exit.peak_memory_bytes.unwrap() > 1_000_000);
    }
    let logs = backend.log_files(&attempt).await.unwrap();
    assert_eq!(content(&logs, "user_logs/std_log.txt"), "out\nerr\n");
}

pub async fn tells_the_signal(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("dies.py", &["11"]));
    start(&backend, &attempt).await;
    let exit = ended(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.exit_code, exit.signal), (ExitReason::Exited, None, Some(11)));
}

pub async fn starts_once_however_often_it_is_asked(lab: &impl Lab) {
    let backends: Vec<_> = (0..6).map(|_| Arc::new(lab.backend())).collect();
    let attempt = lab.attempt("waits.py", &[&lab.note("starts")]);
    let environment = start(&*backends[0], &attempt).await;
    let calls = backends.iter().map(|backend| {
        let (backend, attempt, environment) = (Arc::clone(backend), attempt.clone(), environment.clone());
        tokio::spawn(async move { backend.ensure_submitted(&attempt, &environment).await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    is_running(&*backends[3], &attempt).await;
    noted_pids(&lab.note("starts")).await;
    fs::write(lab.note("go"), "").unwrap();
    assert_eq!(ended(&*backends[0], &attempt).await.exit_code, Some(0));
    backends[0].ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(noted_pids(&lab.note("starts")).await.len(), 1);
}

pub async fn starts_once_when_all_ask_first(lab: &impl Lab) {
    fs::write(lab.note("go"), "").unwrap();
    for round in 0..5 {
        let notes = lab.note(&format!("starts{round}"));
        let attempt = lab.attempt("waits.py", &[&notes]);
        let environment = lab.backend().prepare(&attempt, &crate::harness::scripts()).await.unwrap();
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let (backend, attempt, environment) = (lab.backend(), attempt.clone(), environment.clone());
                tokio::spawn(async move { backend.ensure_submitted(&attempt, &environment).await })
            })
            .collect();
        for call in calls {
            call.await.unwrap().unwrap();
        }
        assert_eq!(ended(&lab.backend(), &attempt).await.exit_code, Some(0));
        assert_eq!(noted_pids(&notes).await.len(), 1);
    }
}

pub async fn cancelling_ends_the_whole_family(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("family.py", &[&lab.note("family"), "stay"]));
    start(&backend, &attempt).await;
    let family = noted_pids(&lab.note("family")).await;
    assert_eq!(family.len(), 3);
    assert!(family.iter().all(|pid| lab.is_alive(*pid)));
    backend.cancel(&attempt).await.unwrap();
    backend.cancel(&attempt).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert!(!family.iter().any(|pid| lab.is_alive(*pid)), "it has ended only when nothing is left");
    assert_eq!((exit.reason, exit.signal), (ExitReason::Canceled, Some(15)), "{exit:?}");
    backend.cancel(&attempt).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await, exit, "how it ended does not change");
}

pub async fn who_ignores_term_is_killed_after_the_grace(lab: &impl Lab, grace: Duration) {
    let notes = lab.note("family");
    let (backend, attempt) = (lab.backend(), lab.attempt("family.py", &[&notes, "stay", "stubborn"]));
    start(&backend, &attempt).await;
    let family = noted_pids(&notes).await;
    let asked = std::time::Instant::now();
    backend.cancel(&attempt).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert!(asked.elapsed() >= grace, "{:?}", asked.elapsed());
    assert_eq!((exit.reason, exit.signal), (ExitReason::Canceled, Some(9)));
    assert!(!family.iter().any(|pid| lab.is_alive(*pid)));
}

pub async fn what_the_script_leaves_behind_is_ended(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("family.py", &[&lab.note("family"), "leave"]));
    start(&backend, &attempt).await;
    let exit = ended(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.exit_code), (ExitReason::Exited, Some(0)));
    assert!(!noted_pids(&lab.note("family")).await.iter().any(|pid| lab.is_alive(*pid)));
}

pub async fn cancelled_before_the_start_it_never_starts(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("waits.py", &[&lab.note("starts")]));
    let environment = backend.prepare(&attempt, &crate::harness::scripts()).await.unwrap();
    backend.cancel(&attempt).await.unwrap();
    backend.cancel(&attempt).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.started_at, exit.exit_code), (ExitReason::Canceled, None, None));
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(ended(&lab.backend(), &attempt).await, exit);
    assert!(!fs::exists(lab.note("starts")).unwrap());
}

pub async fn cancelling_what_was_never_prepared_is_no_error(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &["0"]));
    backend.cancel(&attempt).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.reason, ExitReason::Canceled);
}

pub async fn cancelling_while_it_starts_ends_it(lab: &impl Lab) {
    for round in 0..8 {
        let notes = lab.note(&format!("family{round}"));
        let (backend, attempt) = (lab.backend(), lab.attempt("family.py", &[&notes, "stay"]));
        let environment = backend.prepare(&attempt, &crate::harness::scripts()).await.unwrap();
        let delayed = async {
            tokio::time::sleep(Duration::from_millis(round)).await;
            backend.cancel(&attempt).await
        };
        let (submitted, canceled) = tokio::join!(backend.ensure_submitted(&attempt, &environment), delayed);
        submitted.unwrap();
        canceled.unwrap();
        assert_eq!(ended(&backend, &attempt).await.reason, ExitReason::Canceled);
        if let Ok(family) = fs::read_to_string(&notes) {
            assert!(!family.lines().any(|pid| lab.is_alive(pid.parse().unwrap())));
        }
    }
}

pub async fn too_long_a_run_is_ended(lab: &impl Lab) {
    let mut attempt = lab.attempt("family.py", &[&lab.note("family"), "stay"]);
    // Long enough for a script to start on a machine that does other things as well.
    attempt.plan.max_run_duration_seconds = Some(4);
    let backend = lab.backend();
    start(&backend, &attempt).await;
    let family = noted_pids(&lab.note("family")).await;
    let exit = ended(&backend, &attempt).await;
    assert_eq!(exit.reason, ExitReason::MaxRunDurationExceeded);
    let took = exit.finished_at - exit.started_at.unwrap();
    assert!(took >= chrono::TimeDelta::seconds(4), "{took}");
    assert!(!family.iter().any(|pid| lab.is_alive(*pid)));
}

pub async fn lists_logs_and_outputs_without_links(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("writes.py", &[]));
    assert!(backend.output_files(&attempt).await.unwrap().is_empty());
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let outputs = backend.output_files(&attempt).await.unwrap();
    assert_eq!(names(&outputs), ["deep/er/a.txt", "model.npz"]);
    assert_eq!(backend.missing_files(&attempt).await.unwrap(), None);
    assert_eq!(outputs[1].bytes, 5);
    let mut logs = backend.log_files(&attempt).await.unwrap();
    // Whether something had to be built is another matter.
    logs.retain(|log| !log.name.starts_with("azureml-logs/"));
    assert_eq!(names(&logs), ["logs/own.txt", "user_logs/std_log.txt"]);
}

pub async fn what_a_script_logs_is_recorded(lab: &impl Lab) {
    let (backend, mut attempt) = (lab.backend(), lab.attempt("logs.py", &[]));
    attempt.tags.insert("team".into(), "vision".into());
    start(&backend, &attempt).await;
    let exit = ended(&backend, &attempt).await;
    let logs = backend.log_files(&attempt).await.unwrap();
    let log = content(&logs, "user_logs/std_log.txt");
    assert_eq!(log, format!("{} {{'team': 'vision'}}\n", attempt.run_id), "{exit:?}");
    let records = backend.record_files(&attempt).await.unwrap();
    let [file] = &records[..] else { panic!("one process logs: {records:?}") };
    assert_eq!(rank_of(&file.name), Some(0));
    let Ok(Record::Metric(metric)) = Record::parse(content(&records, &file.name).as_bytes()) else {
        panic!("{file:?} holds one metric");
    };
    assert_eq!((metric.name.as_str(), metric.value), ("accuracy", serde_json::json!(0.97)));
    let outputs = backend.output_files(&attempt).await.unwrap();
    assert_eq!(content(&outputs, "kept.txt"), "kept");
}

pub async fn logs_can_be_read_while_it_runs(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("waits.py", &[&lab.note("starts")]));
    start(&backend, &attempt).await;
    until("the first line of the log", async || {
        let logs = backend.log_files(&attempt).await.unwrap();
        let is_there = logs.iter().any(|log| log.name == "user_logs/std_log.txt");
        (is_there && content(&logs, "user_logs/std_log.txt") == "waiting\n").then_some(())
    })
    .await;
    is_running(&backend, &attempt).await;
    backend.cancel(&attempt).await.unwrap();
    ended(&backend, &attempt).await;
}

pub async fn arguments_arrive_verbatim_and_variables_are_set(lab: &impl Lab) {
    let arguments = ["--a", "b c", "\"q\" 'r' $HOME `x` \\ *", "two\nlines", "", "--", "-", "ünï"];
    let attempt = with_variable(lab.attempt("shows.py", &arguments), "MINE", "a b=\"c\"\n$x");
    let backend = lab.backend();
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let outputs = backend.output_files(&attempt).await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&content(&outputs, "seen.json")).unwrap();
    assert_eq!(seen["argv"], serde_json::json!(arguments));
    assert_eq!(seen["stdin"], "");
    let environment = &seen["environment"];
    assert_eq!(environment["MINE"], "a b=\"c\"\n$x");
    assert_eq!(environment["AZUREML_RUN_ID"], attempt.run_id.to_string());
    assert_eq!(environment["AZUREML_ARM_PROJECT_NAME"], "conformance");
    assert_eq!(environment["PYTHONUNBUFFERED"], "1");
    for foreign in ["CARGO_MANIFEST_DIR", "PYTHONDONTWRITEBYTECODE", "DATABASE_URL"] {
        assert!(environment.get(foreign).is_none(), "{foreign} is the service's own");
    }
}

pub async fn a_script_finds_the_service(lab: &impl Lab) {
    let (backend, mut attempt) = (lab.backend(), lab.attempt("shows.py", &[]));
    let token = Vault::new([7; 32]).script_token(attempt.run_id, attempt.number);
    let url = "http://estimatord.example:8080".parse().ok();
    let addresses = ServiceAddresses { public: url, local: None };
    attempt.access = Some(ServiceAccess { token: token.clone(), addresses });
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let outputs = backend.output_files(&attempt).await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&content(&outputs, "seen.json")).unwrap();
    assert_eq!(seen["environment"]["ESTIMATORD_TOKEN"], token.expose());
    // In pods it is the address that the target names.
    let url = seen["environment"]["ESTIMATORD_URL"].as_str().unwrap();
    assert!(url.starts_with("http://"), "{url}");
}

pub async fn what_cannot_start_says_so(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &["0"]));
    let mut environment = backend.prepare(&attempt, &crate::harness::scripts()).await.unwrap();
    environment.interpreter = "/nowhere/python".into();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert!(exit.start_error.as_ref().unwrap().contains("/nowhere/python"), "{exit:?}");
    assert_eq!((exit.started_at, exit.exit_code), (None, None));
}

pub async fn removing_leaves_nothing_and_spares_what_runs(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("waits.py", &[&lab.note("starts")]));
    start(&backend, &attempt).await;
    backend.remove(&attempt).await.unwrap_err();
    is_running(&backend, &attempt).await;
    assert_eq!(backend.remaining_runs().await.unwrap(), [attempt.run_id]);
    backend.cancel(&attempt).await.unwrap();
    ended(&backend, &attempt).await;
    until("the removal", async || backend.remove(&attempt).await.ok()).await;
    backend.remove(&attempt).await.unwrap();
    assert_eq!(backend.observe(&attempt).await.unwrap(), Observation::NotFound);
    assert!(backend.log_files(&attempt).await.unwrap().is_empty());
    assert!(backend.remaining_runs().await.unwrap().is_empty());
}

pub async fn what_a_run_left_can_be_removed_without_its_attempts(lab: &impl Lab) {
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &["0"]));
    start(&backend, &attempt).await;
    ended(&backend, &attempt).await;
    until("the removal", async || backend.remove_run(attempt.run_id).await.ok()).await;
    assert!(backend.remaining_runs().await.unwrap().is_empty());
    backend.remove_run(attempt.run_id).await.unwrap();
}

/// A worker that stood still while others brought the attempt to its end goes on with handing it in.
pub async fn what_was_removed_cannot_be_started_again(lab: &impl Lab) {
    let (backend, late) = (lab.backend(), lab.backend());
    let attempt = lab.attempt("waits.py", &[&lab.note("starts")]);
    let environment = start(&backend, &attempt).await;
    fs::write(lab.note("go"), "").unwrap();
    ended(&backend, &attempt).await;
    until("the removal", async || backend.remove(&attempt).await.ok()).await;
    // Refused or taken for done: it must not run.
    let _ = late.ensure_submitted(&attempt, &environment).await;
    let seen = late.observe(&attempt).await.unwrap();
    assert!(
        !matches!(seen, Observation::Starting | Observation::Running { .. } | Observation::Queued { .. }),
        "{seen:?}"
    );
    late.cancel(&attempt).await.unwrap();
    until("nothing of it is left", async || {
        let seen = late.observe(&attempt).await.unwrap();
        (seen == Observation::NotFound || seen.is_final()).then_some(())
    })
    .await;
    assert_eq!(fs::read_to_string(lab.note("starts")).unwrap().lines().count(), 1, "started once");
}
