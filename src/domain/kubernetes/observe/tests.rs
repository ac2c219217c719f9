//! What is made of what a cluster says. Objects are read from JSON as the API has them; numbers are those of the facts in the tests of
//! the backend (`tests/backends/kubernetes_facts.rs`).

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::kubernetes::{Event, Pod, Workload};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

fn job(status: Value) -> Workload {
    let metadata =
        json!({"name": "run-x-a1", "uid": "u", "creationTimestamp": at(0), "managedFields": [{"x": 1}]});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"backoffLimit": 0}, "status": status}))
        .unwrap()
}

fn conditions(all: &[(&str, &str, &str)]) -> Value {
    let one = |(kind, reason, message): &(&str, &str, &str)| json!({"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at(50)});
    json!(all.iter().map(one).collect::<Vec<_>>())
}

fn pod(status: Value) -> SeenPod {
    let metadata = json!({"name": "run-x-a1-abcde", "uid": "p", "creationTimestamp": at(0)});
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
    SeenPod { pod, gone: false }
}

fn worker(index: u32, status: Value) -> SeenPod {
    let mut seen = pod(status);
    seen.pod.metadata.name = format!("run-x-a1-worker-{index}");
    seen.pod.metadata.labels.insert("training.kubeflow.org/job-role".into(), "worker".into());
    seen
}

fn state(name: &str, state: &Value) -> Value {
    json!([{"name": name, "state": state, "ready": false, "restartCount": 0}])
}

fn running_pod() -> SeenPod {
    pod(
        json!({"phase": "Running", "containerStatuses": state("script", &json!({"running": {"startedAt": at(10)}}))}),
    )
}

fn ended_pod(code: i32, reason: &str) -> SeenPod {
    let ended = json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": at(10), "finishedAt": at(40)}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    pod(json!({"phase": phase, "containerStatuses": state("script", &ended)}))
}

fn disrupted(mut seen: SeenPod, reason: &str) -> SeenPod {
    let all = conditions(&[("DisruptionTarget", reason, "it was in the way")]);
    seen.pod.status.conditions = serde_json::from_value(all).unwrap();
    seen
}

/// A look at a job after a hundred seconds; more of it is set by each test.
fn look<'a>(object: Option<&'a Workload>, pods: &'a [SeenPod]) -> Seen<'a> {
    Seen {
        kind: Kind::Job,
        object,
        pods,
        events: &[],
        created: true,
        stop: None,
        limit: None,
        patience: TimeDelta::seconds(3600),
        build_limit: TimeDelta::seconds(1800),
    }
}

fn seen(object: &Workload, pods: &[SeenPod]) -> Verdict {
    judge(&look(Some(object), pods), at(100))
}

fn mpi(object: &Workload, pods: &[SeenPod]) -> Verdict {
    judge(&Seen { kind: Kind::MpiJob, ..look(Some(object), pods) }, at(100))
}

fn exit(verdict: Verdict) -> Exit {
    assert_eq!(verdict.stop, None, "{:?}", verdict.observation);
    match verdict.observation {
        Observation::Exited(exit) => exit,
        other => panic!("{other:?}"),
    }
}

fn failed(reason: &str, message: &str) -> Workload {
    job(json!({"conditions": conditions(&[("FailureTarget", reason, message), ("Failed", reason, message)])}))
}

const BACKOFF: (&str, &str) = ("BackoffLimitExceeded", "Job has reached the specified backoff limit");

#[test]
fn what_nobody_made_is_not_found() {
    let not_made = Seen { created: false, ..look(None, &[]) };
    assert_eq!(judge(&not_made, at(0)).observation, Observation::NotFound);
}

#[test]
fn what_is_gone_without_our_doing_was_deleted_by_somebody_else() {
    let gone = exit(judge(&look(None, &[running_pod()]), at(100)));
    assert_eq!((gone.reason, gone.started_at), (ExitReason::CanceledElsewhere, Some(at(10))));
    assert!(gone.remark.unwrap().contains("Job was deleted on the cluster"));
}

#[test]
fn what_this_service_ended_says_why_once_it_is_gone() {
    let detail = || "the reason".to_owned();
    for reason in [
        StopReason::Canceled,
        StopReason::OverTime,
        StopReason::NeverBegan { detail: detail() },
        StopReason::BuildFailed { detail: detail() },
        StopReason::Lost { detail: detail() },
        StopReason::Preempted { detail: detail() },
    ] {
        let stop = Stop { reason: reason.clone(), at: at(90), started_at: None };
        let (object, pods) = (job(json!({"active": 1})), [running_pod()]);
        // While anything is there it has not ended, whatever else is said of it.
        let there = Seen { stop: Some(&stop), ..look(Some(&object), &pods) };
        assert_eq!(judge(&there, at(100)), Observation::Running { started_at: at(10) }.into());
        let gone = Seen { stop: Some(&stop), ..look(None, &pods) };
        match (reason, judge(&gone, at(100)).observation) {
            (StopReason::Canceled, Observation::Exited(exit)) => {
                assert_eq!(exit.reason, ExitReason::Canceled)
            }
            (StopReason::OverTime, Observation::Exited(exit)) => {
                assert_eq!(exit.reason, ExitReason::MaxRunDurationExceeded);
            }
            (StopReason::NeverBegan { .. }, Observation::Exited(exit)) => {
                assert_eq!((exit.start_error.as_deref(), exit.started_at), (Some("the reason"), None));
            }
            (StopReason::BuildFailed { .. }, Observation::Exited(exit)) => {
                assert_eq!(exit.build_error.as_deref(), Some("the reason"));
            }
            (StopReason::Lost { .. }, Observation::Lost { detail })
            | (StopReason::Preempted { .. }, Observation::Preempted { detail }) => {
                assert_eq!(detail, "the reason")
            }
            (reason, other) => panic!("{reason:?}: {other:?}"),
        }
    }
}

#[test]
fn how_a_script_ended_is_known_from_its_pod_also_when_it_is_gone() {
    let stop = Stop { reason: StopReason::Canceled, at: at(90), started_at: None };
    let mut pods = [ended_pod(143, "Error")];
    pods[0].gone = true;
    let ended = exit(judge(&Seen { stop: Some(&stop), ..look(None, &pods) }, at(100)));
    assert_eq!((ended.exit_code, ended.signal, ended.finished_at), (None, Some(15), at(40)));
}

#[test]
fn an_ordinary_end_is_its_exit_code() {
    let complete = job(json!({"succeeded": 1, "completionTime": at(45),
        "conditions": conditions(&[("SuccessCriteriaMet", "CompletionsReached", ""), ("Complete", "CompletionsReached", "")])}));
    let ended = exit(seen(&complete, &[ended_pod(0, "Completed")]));
    assert_eq!((ended.exit_code, ended.started_at, ended.finished_at), (Some(0), Some(at(10)), at(40)));
    // Without its pod the job itself is the witness.
    assert_eq!(exit(seen(&complete, &[])).finished_at, at(45));
    for (code, expected) in [(3, (Some(3), None)), (139, (None, Some(11))), (255, (Some(255), None))] {
        let ended = exit(seen(&failed(BACKOFF.0, BACKOFF.1), &[ended_pod(code, "Error")]));
        assert_eq!((ended.exit_code, ended.signal), expected);
        assert_eq!(ended.remark, None);
    }
    let killed = exit(seen(&failed(BACKOFF.0, BACKOFF.1), &[ended_pod(137, "OOMKilled")]));
    assert!(killed.signal == Some(9) && killed.remark.unwrap().contains("more memory"));
}

/// Facts 3.4 and 3.5.
#[test]
fn a_job_has_not_ended_before_it_says_so() {
    for kind in ["SuccessCriteriaMet", "FailureTarget"] {
        let target = job(json!({"active": 0, "conditions": conditions(&[(kind, "x", "y")])}));
        assert_eq!(
            seen(&target, &[ended_pod(0, "Completed")]),
            Observation::Running { started_at: at(10) }.into()
        );
    }
    let silent = job(json!({"active": 0, "ready": 0, "startTime": at(1)}));
    assert_eq!(seen(&silent, &[ended_pod(1, "Error")]), Observation::Running { started_at: at(10) }.into());
}

#[test]
fn what_is_taken_away_is_no_failure_of_the_script() {
    let policy =
        failed("PodFailurePolicy", "Pod x has condition DisruptionTarget matching FailJob rule at index 0");
    for (reason, is_lost) in [
        ("EvictionByEvictionAPI", false),
        ("PreemptionByScheduler", false),
        ("TerminationByKubelet", false),
        ("DeletionByTaintManager", true),
        ("DeletionByPodGC", true),
    ] {
        let verdict = seen(&policy, &[disrupted(ended_pod(143, "Error"), reason)]);
        match verdict.observation {
            Observation::Lost { detail } if is_lost => assert!(detail.contains(reason)),
            Observation::Preempted { detail } if !is_lost => {
                assert!(detail.contains("it was in the way"), "{detail}")
            }
            other => panic!("{reason}: {other:?}"),
        }
    }
    let evicted = pod(
        json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}),
    );
    let Observation::Preempted { detail } = seen(&failed(BACKOFF.0, BACKOFF.1), &[evicted]).observation
    else {
        panic!("preempted");
    };
    assert!(detail.contains("low on resource"), "{detail}");
}

#[test]
fn a_pod_that_a_person_deleted_is_said() {
    let mut deleted = ended_pod(143, "Error");
    deleted.pod.metadata.deletion_timestamp = Some(at(35));
    let ended = exit(seen(&failed(BACKOFF.0, BACKOFF.1), &[deleted]));
    assert_eq!((ended.reason, ended.signal), (ExitReason::CanceledElsewhere, Some(15)));
}

#[test]
fn a_pod_that_took_its_end_along_is_lost_where_its_script_had_begun() {
    let object = failed(BACKOFF.0, BACKOFF.1);
    let mut gone = running_pod();
    gone.gone = true;
    assert!(
        matches!(seen(&object, &[gone]).observation, Observation::Lost { detail } if detail.contains("is gone"))
    );
    assert!(exit(seen(&object, &[])).start_error.unwrap().contains("before its script began"));
}

#[test]
fn what_went_wrong_before_the_script_is_told_apart() {
    let object = failed(BACKOFF.0, BACKOFF.1);
    let first = |name: &str, message: &str| {
        let ended = json!({"terminated": {"exitCode": 1, "reason": "Error", "message": message, "finishedAt": at(20)}});
        pod(json!({"phase": "Failed", "initContainerStatuses": state(name, &ended)}))
    };
    let staged = exit(seen(&object, &[first("stage", "line\n\nestimatord: not reached\n")]));
    assert!(staged.start_error.unwrap().ends_with("exit code 1: line | estimatord: not reached"));
    let built = exit(seen(&object, &[first("packages", "ERROR: no such thing")]));
    assert!(built.build_error.unwrap().contains("no such thing") && built.start_error.is_none());
    let script = |code: i32, reason: &str, message: &str| {
        let ended = json!({"terminated": {"exitCode": code, "reason": reason, "message": message,
            "startedAt": at(10), "finishedAt": at(11)}});
        pod(json!({"phase": "Failed", "containerStatuses": state("script", &ended)}))
    };
    let missing = "estimatord: cannot start: there is no /opt/python in the image";
    let none = exit(seen(&object, &[script(127, "Error", missing)]));
    assert_eq!(
        (none.start_error.as_deref(), none.started_at),
        (Some("there is no /opt/python in the image"), None)
    );
    // Anybody's program may end with 127.
    assert_eq!(exit(seen(&object, &[script(127, "Error", "sh: nope: not found")])).exit_code, Some(127));
    let runtime =
        exit(seen(&object, &[script(128, "StartError", "exec: \"sh\": executable file not found in $PATH")]));
    assert!(runtime.start_error.unwrap().contains("executable file not found"));
}

#[test]
fn a_deadline_of_the_clusters_is_a_timeout() {
    let ended = exit(seen(&failed("DeadlineExceeded", "Job was active longer"), &[running_pod()]));
    assert_eq!(ended.reason, ExitReason::MaxRunDurationExceeded);
    assert!(ended.remark.unwrap().contains("DeadlineExceeded"));
}

fn waiting(status: Value) -> SeenPod {
    pod(status)
}

fn warning(reason: &str, message: &str, seconds: i64) -> Event {
    let event = json!({"reason": reason, "message": message, "type": "Warning", "lastTimestamp": at(seconds),
        "involvedObject": {"kind": "Job", "name": "run-x-a1", "uid": "u"}});
    serde_json::from_value(event).unwrap()
}

#[test]
fn what_an_attempt_waits_for_is_said_in_the_clusters_words() {
    let object = job(json!({"active": 1, "startTime": at(0)}));
    let image = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}});
    let config =
        json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"y\" not found"}});
    let room = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]);
    for (status, expected) in [
        (
            json!({"phase": "Pending", "containerStatuses": state("script", &image)}),
            "ImagePullBackOff: Back-off pulling",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": state("stage", &image)}),
            "ImagePullBackOff (the service's own image)",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": state("script", &config)}),
            "secret \"y\" not found",
        ),
        (json!({"phase": "Pending", "conditions": room}), "Unschedulable: 0/3 nodes"),
    ] {
        let Observation::Queued { reason } = seen(&object, &[waiting(status)]).observation else {
            panic!("queued")
        };
        assert!(reason.starts_with(expected) || reason.contains(expected), "{reason}");
    }
    // What passes by itself in a moment is no reason.
    let ordinary = json!({"waiting": {"reason": "PodInitializing"}});
    let status = json!({"phase": "Pending", "containerStatuses": state("script", &ordinary)});
    assert_eq!(seen(&object, &[waiting(status)]), Observation::Starting.into());
    // Facts 3.7 and 4.8: of a pod that is kept away there are events alone; the latest counts.
    let events = [
        warning("FailedCreate", "Error creating: pods \"a\" is forbidden: exceeded quota: gpus", 5),
        warning(
            "FailedCreate",
            "Error creating: pods \"b\" is forbidden: violates PodSecurity \"restricted:latest\"",
            9,
        ),
        warning("Unrelated", "later, and about nothing", 20),
    ];
    let kept_away = Seen { events: &events, ..look(Some(&object), &[]) };
    let Observation::Queued { reason } = judge(&kept_away, at(100)).observation else { panic!("queued") };
    assert!(reason.contains("violates PodSecurity"), "{reason}");
}

#[test]
fn patience_ends_and_suspension_costs_none() {
    let room =
        json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no room"}]);
    let pods = [waiting(json!({"phase": "Pending", "conditions": room}))];
    let impatient = |object: &Workload, pods: &[SeenPod], now| {
        judge(&Seen { patience: TimeDelta::seconds(60), ..look(Some(object), pods) }, at(now)).stop
    };
    let object = job(json!({"active": 1, "startTime": at(0)}));
    assert_eq!(impatient(&object, &pods, 59), None);
    let Some(StopReason::NeverBegan { detail }) = impatient(&object, &pods, 60) else { panic!("given up") };
    assert!(detail.contains("60 s in vain: Unschedulable: no room"), "{detail}");
    // It was suspended for most of its time: the clock begins when its queue lets it go.
    assert_eq!(impatient(&job(json!({"startTime": at(1000)})), &pods, 1050), None);
    let suspended = job(json!({"conditions": conditions(&[("Suspended", "JobSuspended", "Job suspended")])}));
    assert_eq!(impatient(&suspended, &[], 1_000_000), None);
    // Fetching and installing have limits of their own, and say nothing of waiting.
    let installs =
        json!({"phase": "Pending", "initContainerStatuses": state("packages", &json!({"running": {}}))});
    assert_eq!(impatient(&object, &[waiting(installs)], 10_000), None);
}

#[test]
fn a_script_that_ran_is_not_started_again_by_a_queue() {
    let suspended = job(json!({"conditions": conditions(&[("Suspended", "JobSuspended", "Job suspended")])}));
    let Verdict { stop: Some(StopReason::Preempted { detail }), .. } = seen(&suspended, &[running_pod()])
    else {
        panic!("preempted");
    };
    assert!(detail.contains("suspended while it ran"), "{detail}");
}

#[test]
fn a_kubelet_that_tells_of_no_containers_is_believed_all_the_same() {
    let object = job(json!({"active": 1, "startTime": at(0)}));
    let bare = pod(json!({"phase": "Running", "startTime": at(7)}));
    assert_eq!(seen(&object, &[bare]), Observation::Running { started_at: at(7) }.into());
}

#[test]
fn time_is_counted_from_the_script_s_start() {
    let object = job(json!({"active": 1, "startTime": at(0)}));
    let pods = [running_pod()];
    let limited = |now| judge(&Seen { limit: Some(30), ..look(Some(&object), &pods) }, at(now)).stop;
    assert_eq!((limited(39), limited(40)), (None, Some(StopReason::OverTime)));
}

#[test]
fn what_is_being_deleted_has_not_ended() {
    let mut object = failed(BACKOFF.0, BACKOFF.1);
    object.metadata.deletion_timestamp = Some(at(60));
    assert_eq!(seen(&object, &[ended_pod(1, "Error")]), Observation::Running { started_at: at(10) }.into());
    assert_eq!(seen(&object, &[]), Observation::Starting.into());
}

fn mpi_job(all: &[(&str, &str, &str)], completed: bool) -> Workload {
    let mut status = json!({"conditions": conditions(all), "startTime": at(0)});
    if completed {
        status["completionTime"] = json!(at(45));
    }
    job(status)
}

fn worker_runs(index: u32) -> SeenPod {
    worker(
        index,
        json!({"phase": "Running", "containerStatuses": state("worker", &json!({"running": {"startedAt": at(5)}}))}),
    )
}

/// Fact 4.2.
#[test]
fn an_mpi_job_has_ended_when_it_has_a_time_for_it_and_its_workers_are_gone() {
    let failed = [("Failed", "MPIJobEvicted", "1/2 workers are evicted")];
    let early = mpi(&mpi_job(&failed, false), &[running_pod(), worker_runs(0)]);
    assert_eq!(early.observation, Observation::Running { started_at: at(10) });
    // It does nothing more, so that somebody else has to end it, also before there is a launcher.
    for pods in [vec![running_pod(), worker_runs(0)], vec![worker_runs(0)]] {
        let stop = mpi(&mpi_job(&failed, false), &pods).stop;
        assert!(
            matches!(stop, Some(StopReason::Preempted { detail }) if detail.contains("1/2 workers")),
            "{pods:?}"
        );
    }
    let succeeded = mpi_job(&[("Succeeded", "MPIJobSucceeded", "")], true);
    let left = mpi(&succeeded, &[ended_pod(0, "Completed"), worker_runs(0)]);
    assert_eq!(left, Observation::Running { started_at: at(10) }.into());
    let mut gone = worker_runs(0);
    gone.gone = true;
    assert_eq!(exit(mpi(&succeeded, &[ended_pod(0, "Completed"), gone])).exit_code, Some(0));
}

/// Fact 4.7.
#[test]
fn why_an_mpi_job_failed_is_in_its_launcher() {
    let object =
        mpi_job(&[("Failed", "BackoffLimitExceeded/", "Job has reached the specified backoff limit")], true);
    let ended = exit(mpi(&object, &[ended_pod(2, "Error")]));
    assert_eq!((ended.exit_code, ended.started_at), (Some(2), Some(at(10))));
}

/// Facts 4.2 and 4.4.
#[test]
fn ranks_whose_worker_is_gone_are_ended() {
    let object = mpi_job(&[("Running", "MPIJobRunning", "")], false);
    let evicted = disrupted(worker_runs(1), "EvictionByEvictionAPI");
    let Some(StopReason::Preempted { detail }) =
        mpi(&object, &[running_pod(), SeenPod { gone: true, ..evicted }]).stop
    else {
        panic!("preempted");
    };
    assert!(detail.contains("worker-1"), "{detail}");
    let dead = worker(0, json!({"phase": "Failed"}));
    assert!(matches!(mpi(&object, &[running_pod(), dead.clone()]).stop, Some(StopReason::Lost { .. })));
    // When the launcher has ended, that is how it is done.
    assert_eq!(mpi(&object, &[ended_pod(0, "Completed"), dead]).stop, None);
    // The operator may know of one that nobody here saw.
    let mut counted = object;
    counted.status.replica_statuses =
        serde_json::from_value(json!({"Worker": {"active": 1, "failed": 1}})).unwrap();
    assert!(matches!(mpi(&counted, &[running_pod()]).stop, Some(StopReason::Lost { .. })));
}

/// Fact 4.3.
#[test]
fn ranks_that_wait_for_a_worker_that_failed_are_ended() {
    let object = mpi_job(&[("Created", "MPIJobCreated", "")], false);
    let ended = |name: &str, list: &str| {
        let ended = json!({"terminated": {"exitCode": 1, "message": "because"}});
        worker(0, json!({"phase": "Failed", list: state(name, &ended)}))
    };
    let stop = |seen: SeenPod| mpi(&object, &[seen, worker_runs(1)]).stop;
    assert!(
        matches!(stop(ended("stage", "initContainerStatuses")), Some(StopReason::NeverBegan { detail }) if detail.contains("because"))
    );
    assert!(matches!(stop(ended("packages", "initContainerStatuses")), Some(StopReason::BuildFailed { .. })));
    assert!(
        matches!(stop(ended("worker", "containerStatuses")), Some(StopReason::NeverBegan { detail }) if detail.contains("exit code 1"))
    );
}

/// Fact 4.1.
#[test]
fn an_object_that_its_own_operator_refuses_is_hopeless() {
    let object = job(json!({}));
    let events = [warning("ValidationError", "Found validation errors: metadata.name", 1)];
    let refused = Seen { kind: Kind::MpiJob, events: &events, ..look(Some(&object), &[]) };
    let Some(StopReason::NeverBegan { detail }) = judge(&refused, at(2)).stop else { panic!("hopeless") };
    assert!(detail.contains("metadata.name"), "{detail}");
}

proptest! {
    /// Fact 3.5: whatever is seen of a run that goes its way, and however late, it never goes back.
    #[test]
    fn an_attempt_never_goes_back(steps in proptest::collection::vec((0_usize..6, 0_usize..5), 1..12)) {
        // What the object says and what the pods say come by two watches: each goes forward, at its own pace.
        let objects = [
            job(json!({})),
            job(json!({"active": 1, "startTime": at(0)})),
            job(json!({"active": 1, "ready": 1, "startTime": at(0)})),
            job(json!({"active": 0, "startTime": at(0)})),
            job(json!({"active": 0, "conditions": conditions(&[("SuccessCriteriaMet", "", "")])})),
            job(json!({"conditions": conditions(&[("SuccessCriteriaMet", "", ""), ("Complete", "", "")])})),
        ];
        let pods = [
            vec![],
            vec![waiting(json!({"phase": "Pending"}))],
            vec![waiting(json!({"phase": "Pending", "initContainerStatuses": state("stage", &json!({"running": {}}))}))],
            vec![running_pod()],
            vec![ended_pod(0, "Completed")],
        ];
        let (mut object, mut pod, mut last) = (0, 0, 0);
        for (to_object, to_pod) in steps {
            (object, pod) = (object.max(to_object), pod.max(to_pod));
            let rank = match seen(&objects[object], &pods[pod]).observation {
                Observation::Queued { .. } | Observation::Starting => 0,
                Observation::Running { .. } => 1,
                Observation::Exited(_) => 2,
                other => panic!("{other:?}"),
            };
            prop_assert!(rank >= last, "from {last} to {rank} at {object}, {pod}");
            last = rank;
        }
    }
}
