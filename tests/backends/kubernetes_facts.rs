//! What a real API server, its controllers and the MPI operator were seen to do, and what the backend makes of it. The numbers are
//! those of the facts as they were written down: 3.x of Jobs, 4.x of MPIJobs. Containers are played, not run.

use std::{sync::Arc, time::Duration};

use axum::http::Method;
use estimatord::{
    backend::{
        Attempt, Backend as _, BackendError, Exit, ExitReason, Observation, RegistryLogin,
        kubernetes::KubernetesBackend,
    },
    domain::{kubernetes::object_name, plan::Launcher, secret::Secret},
};
use serde_json::{Value, json};

use crate::{
    fake_kubernetes::{Admission, FakeCluster, Fault, FaultKind, Options, Play, Propagation},
    harness::{Lab as _, content, scripts, until},
    kubernetes::Kubernetes,
};

/// A cluster whose containers are played: files are fetched at once, and the script goes on until a test ends it.
pub async fn lab() -> Kubernetes {
    with(Options::new("/nowhere")).await
}

pub async fn with(options: Options) -> Kubernetes {
    let lab = Kubernetes::with(options).await;
    lab.cluster.play(|plays| {
        let done = Play { exit_code: Some(0), ..Play::default() };
        plays.scripted.insert("stage", done.clone());
        plays.scripted.insert("packages", done);
        for endless in ["hand-over", "script", "worker"] {
            plays.scripted.insert(endless, Play::default());
        }
    });
    lab
}

pub fn name(attempt: &Attempt) -> String {
    object_name(attempt.run_id, attempt.number)
}

pub fn mpi(mut attempt: Attempt) -> Attempt {
    attempt.plan.launcher = Launcher::Mpi;
    attempt.plan.node_count = 2;
    attempt
}

pub async fn submit(backend: &KubernetesBackend, attempt: &Attempt) {
    let environment = backend.prepare(attempt, &scripts()).await.unwrap();
    backend.ensure_submitted(attempt, &environment).await.unwrap();
}

async fn seen(
    backend: &KubernetesBackend,
    attempt: &Attempt,
    what: &str,
    fits: impl Fn(&Observation) -> bool,
) -> Observation {
    until(what, async || match backend.observe(attempt).await {
        Ok(observation) => fits(&observation).then_some(observation),
        Err(BackendError::Unavailable(_)) => None,
        Err(error) => panic!("{error}"),
    })
    .await
}

async fn running(backend: &KubernetesBackend, attempt: &Attempt) {
    seen(backend, attempt, "the script to run", |seen| matches!(seen, Observation::Running { .. })).await;
}

pub async fn waits_for(backend: &KubernetesBackend, attempt: &Attempt, why: &str) {
    seen(
        backend,
        attempt,
        why,
        |seen| matches!(seen, Observation::Queued { reason } if reason.contains(why)),
    )
    .await;
}

pub async fn settled(backend: &KubernetesBackend, attempt: &Attempt) -> Observation {
    seen(backend, attempt, "the end", Observation::is_final).await
}

pub async fn exited(backend: &KubernetesBackend, attempt: &Attempt) -> Exit {
    match settled(backend, attempt).await {
        Observation::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

/// Started and running: the backend, the attempt, and the pod of its script.
pub async fn started(lab: &Kubernetes, attempt: Attempt) -> (KubernetesBackend, Attempt, String) {
    let backend = lab.backend();
    submit(&backend, &attempt).await;
    running(&backend, &attempt).await;
    let launcher = format!("{}-launcher", name(&attempt));
    let prefix = if attempt.plan.launcher == Launcher::Mpi { launcher } else { name(&attempt) };
    let pod = lab.cluster.pod(&prefix).await;
    (backend, attempt, pod)
}

pub fn count(cluster: &FakeCluster, plural: &str) -> usize {
    cluster.list(plural).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_ends_is_what_its_script_was() {
    for (code, expected) in [(0, (Some(0), None)), (3, (Some(3), None)), (137, (None, Some(9)))] {
        let lab = lab().await;
        let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
        lab.cluster.end(&pod, "script", code);
        let exit = exited(&backend, &attempt).await;
        assert_eq!((exit.reason, (exit.exit_code, exit.signal)), (ExitReason::Exited, expected));
        assert!(exit.started_at.is_some());
        // However often, and by whomever it is asked.
        assert_eq!(exited(&lab.backend(), &attempt).await, exit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_does_not_make_two() {
    let lab = lab().await;
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    lab.cluster.fault(Fault { method: Method::POST, path: "/jobs", what: FaultKind::DoneButTimedOut });
    submit(&backend, &attempt).await;
    running(&backend, &attempt).await;
    assert_eq!((count(&lab.cluster, "jobs"), count(&lab.cluster, "pods")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_killed_between_making_and_noting_is_followed_by_one_who_adopts() {
    let lab = lab().await;
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    // Refused for good: the job is made, and nothing that comes after it.
    lab.cluster.fault(Fault { method: Method::POST, path: "/secrets", what: FaultKind::Status(422) });
    backend.ensure_submitted(&attempt, &environment).await.unwrap_err();
    drop(backend);
    let job = lab.cluster.get("jobs", &name(&attempt)).unwrap();
    let successor = lab.backend();
    successor.ensure_submitted(&attempt, &environment).await.unwrap();
    running(&successor, &attempt).await;
    assert_eq!(lab.cluster.get("jobs", &name(&attempt)).unwrap()["metadata"]["uid"], job["metadata"]["uid"]);
    assert_eq!((count(&lab.cluster, "jobs"), count(&lab.cluster, "secrets")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_job_of_that_name_is_not_taken_for_ours() {
    let lab = lab().await;
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    lab.cluster.create(
        "jobs",
        json!({"metadata": {"name": name(&attempt)}, "spec": {"suspend": true, "template": {}}}),
    );
    let error = backend.ensure_submitted(&attempt, &environment).await.unwrap_err();
    assert!(matches!(&error, BackendError::Refused(why) if why.contains("not this service's")), "{error:?}");
    backend.cancel(&attempt).await.unwrap();
    assert!(lab.cluster.get("jobs", &name(&attempt)).is_some(), "what is not ours stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_loses_nothing() {
    let lab = lab().await;
    let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
    lab.cluster.go_away();
    until("the silence to be noticed", async || {
        matches!(backend.observe(&attempt).await, Err(BackendError::Unavailable(_))).then_some(())
    })
    .await;
    lab.cluster.end(&pod, "script", 5);
    lab.cluster.come_back().await;
    assert_eq!(exited(&backend, &attempt).await.exit_code, Some(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_ends_or_is_too_old_is_taken_up_again() {
    let lab = lab().await;
    let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
    lab.cluster.drop_watches();
    running(&backend, &attempt).await;
    lab.cluster.expire();
    running(&backend, &attempt).await;
    lab.cluster.end(&pod, "script", 0);
    assert_eq!(exited(&backend, &attempt).await.exit_code, Some(0));
}

/// What vanished while nobody watched is not told as deleted.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_deleted_while_nobody_watched_is_missed_all_the_same() {
    let lab = lab().await;
    let (backend, attempt, _) = started(&lab, lab.attempt("exits.py", &[])).await;
    lab.cluster.go_away();
    lab.cluster.delete("jobs", &name(&attempt), Propagation::Background);
    lab.cluster.until("the pods to go", |cluster| (count(cluster, "pods") == 0).then_some(())).await;
    lab.cluster.expire();
    lab.cluster.come_back().await;
    let exit = exited(&backend, &attempt).await;
    assert_eq!(exit.reason, ExitReason::CanceledElsewhere);
}

/// Fact 3.3: a name that is on its way out is not used again; what it stood for is ending.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_being_deleted_is_not_started_again() {
    let lab = lab().await;
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    lab.cluster.fault(Fault { method: Method::POST, path: "/secrets", what: FaultKind::Status(422) });
    backend.ensure_submitted(&attempt, &environment).await.unwrap_err();
    // Somebody deletes it before another worker finds it; a finalizer of theirs keeps it for a while.
    let keep = |job: &mut Value| job["metadata"]["deletionTimestamp"] = json!("2026-11-27T08:00:00Z");
    lab.cluster.update("jobs", &name(&attempt), keep);
    let successor = lab.backend();
    successor.ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(successor.observe(&attempt).await.unwrap(), Observation::Starting);
    assert_eq!(count(&lab.cluster, "secrets"), 0, "it gets nothing more");
    lab.cluster.delete("jobs", &name(&attempt), Propagation::Background);
    assert_eq!(exited(&successor, &attempt).await.reason, ExitReason::CanceledElsewhere);
}

/// Whoever noted that an attempt is to end may be killed before it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_was_noted_is_carried_out_by_whoever_looks_next() {
    let lab = lab().await;
    let (backend, attempt, _) = started(&lab, lab.attempt("exits.py", &[])).await;
    for _ in 0..16 {
        lab.cluster.fault(Fault { method: Method::DELETE, path: "/jobs", what: FaultKind::Status(403) });
    }
    backend.cancel(&attempt).await.unwrap_err();
    drop(backend);
    lab.cluster.forget_faults();
    let exit = exited(&lab.backend(), &attempt).await;
    assert_eq!(exit.reason, ExitReason::Canceled);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_has_too_much_to_do_is_asked_again() {
    let lab = lab().await;
    for path in ["/jobs", "/secrets"] {
        lab.cluster.fault(Fault { method: Method::POST, path, what: FaultKind::Status(429) });
    }
    let (backend, attempt, _) = started(&lab, lab.attempt("exits.py", &[])).await;
    assert_eq!(count(&lab.cluster, "jobs"), 1);
    backend.cancel(&attempt).await.unwrap();
    exited(&backend, &attempt).await;
}

/// Facts 3.1 and 3.2: in the foreground, by uid, and gone only when every pod is.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_deletes_in_the_foreground_and_by_uid() {
    let lab = lab().await;
    let (backend, attempt, _) = started(&lab, lab.attempt("exits.py", &[])).await;
    let uid = lab.cluster.get("jobs", &name(&attempt)).unwrap()["metadata"]["uid"].clone();
    backend.cancel(&attempt).await.unwrap();
    let exit = exited(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.signal), (ExitReason::Canceled, Some(15)));
    for left in ["jobs", "pods", "secrets"] {
        assert_eq!(lab.cluster.list(left), [Value::Null; 0], "{left}");
    }
    let deletion = lab.cluster.seen().into_iter().find(|seen| seen.method == Method::DELETE).unwrap();
    assert_eq!(deletion.body["propagationPolicy"], "Foreground");
    assert_eq!(deletion.body["preconditions"]["uid"], uid);
    // Fact 3.11: what the server does not know is refused, not dropped.
    let mut made = lab.cluster.seen().into_iter().filter(|seen| seen.method == Method::POST);
    assert!(made.all(|seen| seen.query.get("fieldValidation").is_some_and(|how| how == "Strict")));
}

/// Fact 3.7: the Job says nothing, its pod does.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_waited_for_and_given_up() {
    let mut lab = lab().await;
    lab.settings.pending_timeout_seconds = Some(2);
    let (backend, mut attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    attempt.plan.environment.image = Some("registry.example/none:1".into());
    lab.cluster.play(|plays| plays.missing_images.push("registry.example/none:1".into()));
    submit(&backend, &attempt).await;
    waits_for(&backend, &attempt, "ImagePullBackOff").await;
    let exit = exited(&backend, &attempt).await;
    let why = exit.start_error.unwrap();
    assert!(why.contains("2 s in vain") && why.contains("registry.example/none:1"), "{why}");
    assert_eq!(count(&lab.cluster, "jobs"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_no_node_has_room_for_waits_and_says_why() {
    let lab = lab().await;
    let said = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.";
    lab.cluster.play(|plays| plays.unschedulable = Some(said.into()));
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    submit(&backend, &attempt).await;
    waits_for(&backend, &attempt, said).await;
    lab.cluster.play(|plays| plays.unschedulable = None);
    running(&backend, &attempt).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_cannot_be_configured_waits_and_says_why() {
    let lab = lab().await;
    let waits = Some(("CreateContainerConfigError", "secret \"x\" not found"));
    lab.cluster.play(|plays| drop(plays.scripted.insert("script", Play { waits, ..Play::default() })));
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    submit(&backend, &attempt).await;
    waits_for(&backend, &attempt, "CreateContainerConfigError: secret \"x\" not found").await;
}

/// Facts 3.7 and 4.8: of a pod that is not let in there is an event and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_over_a_quota_waits_and_says_why() {
    let lab = lab().await;
    lab.cluster.admission.lock().unwrap().quota =
        Some("exceeded quota: gpus, requested: 1, used: 8, limited: 8".into());
    let backend = lab.backend();
    for attempt in [lab.attempt("exits.py", &[]), mpi(lab.attempt("exits.py", &[]))] {
        submit(&backend, &attempt).await;
        waits_for(&backend, &attempt, "exceeded quota: gpus").await;
    }
}

/// The pods that this service makes pass; one that would not is said.
#[tokio::test(flavor = "multi_thread")]
async fn pods_keep_to_the_standard_restricted() {
    let admission = Admission { restricted: true, quota: None };
    let lab = with(Options { admission, ..Options::new("/nowhere") }).await;
    let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
    lab.cluster.end(&pod, "script", 0);
    assert_eq!(exited(&backend, &attempt).await.exit_code, Some(0));
    started(&lab, mpi(lab.attempt("exits.py", &[]))).await;
}

/// Fact 3.8: what the cluster takes away is no failure of the script, and this service decides on another attempt.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_evicted_is_preempted_and_who_loses_its_node_is_lost() {
    let reasons = [
        ("EvictionByEvictionAPI", true),
        ("PreemptionByScheduler", true),
        ("TerminationByKubelet", true),
        ("DeletionByTaintManager", false),
        ("DeletionByPodGC", false),
    ];
    for (reason, preempted) in reasons {
        let lab = lab().await;
        let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
        lab.cluster.disrupt(&pod, reason);
        match settled(&backend, &attempt).await {
            Observation::Preempted { detail } if preempted => assert!(detail.contains(reason), "{detail}"),
            Observation::Lost { detail } if !preempted => assert!(detail.contains(reason), "{detail}"),
            other => panic!("{reason}: {other:?}"),
        }
        assert_eq!(count(&lab.cluster, "pods"), 0, "nothing takes its place");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_deletes_is_cancelled_elsewhere() {
    let lab = lab().await;
    let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
    lab.cluster.delete("pods", &pod, Propagation::Background);
    let exit = exited(&backend, &attempt).await;
    assert_eq!(exit.reason, ExitReason::CanceledElsewhere);
    assert!(exit.remark.unwrap().contains(&pod));
    let (backend, attempt, _) = started(&lab, lab.attempt("exits.py", &[])).await;
    lab.cluster.delete("jobs", &name(&attempt), Propagation::Background);
    let exit = exited(&backend, &attempt).await;
    assert_eq!(exit.reason, ExitReason::CanceledElsewhere);
    assert!(exit.remark.unwrap().contains("Job was deleted"), "it says what was");
}

/// Facts 3.5 and 3.10: only suspension goes back, and one that ran is another attempt's to run again.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_a_queue_holds_back_waits_however_long() {
    let mut lab = lab().await;
    lab.settings.queue = Some("team-a".into());
    lab.settings.pending_timeout_seconds = Some(1);
    let (backend, attempt) = (lab.backend(), lab.attempt("exits.py", &[]));
    lab.cluster.play(|plays| plays.unschedulable = Some("held".into()));
    submit(&backend, &attempt).await;
    let job =
        lab.cluster.update("jobs", &name(&attempt), |job| job["spec"]["suspend"] = json!(true)).unwrap();
    assert_eq!(job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"], "team-a");
    assert!(job["spec"]["template"]["metadata"]["labels"].get("kueue.x-k8s.io/queue-name").is_none());
    waits_for(&backend, &attempt, "suspended until its queue admits it").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    waits_for(&backend, &attempt, "suspended").await;
    lab.cluster.play(|plays| plays.unschedulable = None);
    lab.cluster.update("jobs", &name(&attempt), |job| job["spec"]["suspend"] = json!(false));
    running(&backend, &attempt).await;
    lab.cluster.update("jobs", &name(&attempt), |job| job["spec"]["suspend"] = json!(true));
    let Observation::Preempted { detail } = settled(&backend, &attempt).await else { panic!("preempted") };
    assert!(detail.contains("suspended while it ran"), "{detail}");
    assert_eq!(count(&lab.cluster, "jobs"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clusters_own_deadline_is_a_timeout() {
    let lab = lab().await;
    let mut attempt = lab.attempt("exits.py", &[]);
    attempt.plan.max_run_duration_seconds = Some(3600);
    let (backend, attempt, _) = started(&lab, attempt).await;
    let own = lab.cluster.get("jobs", &name(&attempt)).unwrap()["spec"]["activeDeadlineSeconds"].as_u64();
    assert!(own.unwrap() > 3600 + 3600, "the service's own clock comes first: {own:?}");
    // Fact 3.9.
    lab.cluster.update("jobs", &name(&attempt), |job| job["spec"]["activeDeadlineSeconds"] = json!(1));
    let exit = exited(&backend, &attempt).await;
    assert_eq!(exit.reason, ExitReason::MaxRunDurationExceeded);
    assert!(exit.remark.unwrap().contains("DeadlineExceeded"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_before_the_script_is_told_apart() {
    let lab = lab().await;
    let backend = lab.backend();
    let fails = |line| Play { exit_code: Some(1), lines: vec![line], ..Play::default() };
    lab.cluster.play(|plays| drop(plays.scripted.insert("stage", fails("the service was not reached"))));
    let attempt = lab.attempt("exits.py", &[]);
    submit(&backend, &attempt).await;
    let exit = exited(&backend, &attempt).await;
    let why = exit.start_error.unwrap();
    assert!(
        why.contains("fetching source tree and data ended with exit code 1: the service was not reached"),
        "{why}"
    );
    lab.cluster.play(|plays| {
        plays.scripted.insert("stage", Play { exit_code: Some(0), ..Play::default() });
        plays.scripted.insert("packages", fails("ERROR: No matching distribution found for chainerr"));
    });
    let mut attempt = lab.attempt("exits.py", &[]);
    attempt.plan.environment.kind = estimatord::domain::environment::EnvironmentKind::Managed;
    attempt.plan.environment.pip_packages = vec!["chainerr".into()];
    submit(&backend, &attempt).await;
    let exit = exited(&backend, &attempt).await;
    assert!(exit.build_error.unwrap().contains("chainerr"));
    let log = until("the build log", async || {
        let logs = backend.log_files(&attempt).await.unwrap();
        logs.iter().any(|log| log.name == "azureml-logs/20_image_build_log.txt").then_some(logs)
    })
    .await;
    assert!(content(&log, "azureml-logs/20_image_build_log.txt").contains("No matching distribution"));
}

/// Fact 3.13: taken up again by whole seconds, without repeats and without loss; and all of it before anything is deleted.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_breaks_off_again_and_again_is_whole() {
    let lab = lab().await;
    let (backend, attempt, pod) = started(&lab, lab.attempt("exits.py", &[])).await;
    let mut whole = String::new();
    for round in 0..5 {
        for line in 0..20 {
            let text = format!("round {round} line {line}\n");
            lab.cluster.log(&pod, "script", &text);
            whole += &text;
        }
        until("the lines so far", async || {
            let logs = backend.log_files(&attempt).await.unwrap();
            logs.iter().any(|log| log.bytes == whole.len() as u64).then_some(())
        })
        .await;
        lab.cluster.break_logs();
    }
    // Another worker has to do without what the first one brought.
    lab.cluster.log(&pod, "script", "no end");
    whole += "no end";
    lab.cluster.end(&pod, "script", 0);
    exited(&backend, &attempt).await;
    let logs = backend.log_files(&attempt).await.unwrap();
    assert_eq!(content(&logs, "user_logs/std_log.txt"), whole);
    let requests = lab.cluster.seen();
    let resumed =
        requests.iter().filter(|seen| seen.path.ends_with("/log") && seen.query.contains_key("sinceTime"));
    assert!(resumed.count() >= 5 && requests.iter().all(|seen| seen.method != Method::DELETE));
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_in_secrets_that_go_with_the_job() {
    let lab = lab().await;
    let mut attempt = lab.attempt("exits.py", &[]);
    attempt.plan.environment.image = Some("registry.example/team/chainer:7".into());
    attempt.plan.environment.container.registry_address = Some("registry.example".into());
    attempt.plan.environment.container.registry_username = Some("puller".into());
    attempt.registry =
        Some(RegistryLogin { username: "puller".into(), password: Secret::new("hunter2-canary".into()) });
    let (backend, attempt, pod) = started(&lab, attempt).await;
    let job = lab.cluster.get("jobs", &name(&attempt)).unwrap();
    let secrets = lab.cluster.list("secrets");
    let kinds: Vec<&str> = secrets.iter().filter_map(|secret| secret["type"].as_str()).collect();
    assert_eq!(kinds, ["kubernetes.io/dockerconfigjson", "Opaque"]);
    for secret in &secrets {
        assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], job["metadata"]["uid"]);
        assert_eq!(secret["immutable"], true);
    }
    let pull = &job["spec"]["template"]["spec"]["imagePullSecrets"][0]["name"];
    assert_eq!(*pull, json!(format!("{}-registry", name(&attempt))));
    for object in [&job, &lab.cluster.get("pods", &pod).unwrap()] {
        let text = object.to_string();
        assert!(!text.contains("hunter2") && !text.contains("est-attempt-v1"), "{text}");
    }
    lab.cluster.end(&pod, "script", 0);
    exited(&backend, &attempt).await;
    backend.remove(&attempt).await.unwrap();
    for plural in ["jobs", "pods", "secrets"] {
        lab.cluster.until("everything to go", |cluster| (count(cluster, plural) == 0).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_watch_serves_all_attempts_of_a_target() {
    let lab = lab().await;
    let backend = Arc::new(lab.backend());
    let attempts: Vec<Attempt> = (0..20).map(|_| lab.attempt("exits.py", &[])).collect();
    for attempt in &attempts {
        submit(&backend, attempt).await;
    }
    for attempt in &attempts {
        running(&backend, attempt).await;
    }
    let before = lab.cluster.seen().len();
    for _ in 0..10 {
        for attempt in &attempts {
            running(&backend, attempt).await;
        }
    }
    assert_eq!(lab.cluster.seen().len(), before, "200 looks ask nothing");
    let watches = lab.cluster.seen().into_iter().filter(|seen| seen.query.contains_key("watch"));
    assert_eq!(watches.count(), 3, "jobs, pods, warnings");
}
