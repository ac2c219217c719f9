//! How an attempt ended, by its own account and the cluster's.

use chrono::{DateTime, Utc};

use super::{
    names::{PACKAGES, SCRIPT, STAGE},
    objects::{Condition, Pod, Terminated, Workload, true_condition},
    observe::{SeenPod, StopReason},
};
use crate::domain::run::{Exit, ExitReason, Observation};

/// The label by which the MPI operator tells launcher and workers apart.
const ROLE: &str = "training.kubeflow.org/job-role";

/// What the script's container says, in one line, where there is nothing to start: see `domain::render::kubernetes`.
pub const CANNOT_START: &str = "estimatord: cannot start:";

/// The exit code that goes with it: a shell's for a program that is not there.
const NOT_FOUND: i32 = 127;

/// Whether a pod holds ranks only.
#[must_use]
pub fn is_worker(pod: &Pod) -> bool {
    pod.metadata.labels.get(ROLE).is_some_and(|role| role == "worker")
}

/// How the script's container ended; none for one that never began.
#[must_use]
pub fn script_end(pod: &Pod) -> Option<&Terminated> {
    pod.terminated(SCRIPT).filter(|ended| ended.reason != "StartError" && !is_no_start(ended))
}

fn is_no_start(ended: &Terminated) -> bool {
    ended.exit_code == NOT_FOUND && ended.message.contains(CANNOT_START)
}

/// A container's code as exit code and signal: 128 is added to the number of the signal that ended a program; there are 64.
#[must_use]
pub fn code(code: i32) -> (Option<i32>, Option<i32>) {
    if 128 < code && code <= 192 { (None, Some(code - 128)) } else { (Some(code), None) }
}

/// Why a pod was taken away, if it was.
#[must_use]
pub fn taken_away(pod: &Pod) -> Option<StopReason> {
    let disruption = true_condition(&pod.status.conditions, "DisruptionTarget");
    let said = |condition: &Condition| {
        let name = &pod.metadata.name;
        format!("the pod {name} was taken away: {}: {}", condition.reason, condition.message)
    };
    if let Some(condition) = disruption {
        let detail = said(condition);
        return Some(match condition.reason.as_str() {
            // The node is gone, or cannot be reached.
            "DeletionByPodGC" | "DeletionByTaintManager" => StopReason::Lost { detail },
            _ => StopReason::Preempted { detail },
        });
    }
    match pod.status.reason.as_str() {
        "Evicted" | "Preempting" | "Preempted" | "Terminated" | "NodeShutdown" => {
            Some(StopReason::Preempted {
                detail: format!(
                    "the pod {} was taken away: {}: {}",
                    pod.metadata.name, pod.status.reason, pod.status.message
                ),
            })
        }
        "NodeLost" | "NodeAffinity" | "UnexpectedAdmissionError" => Some(StopReason::Lost {
            detail: format!("the pod {}: {}: {}", pod.metadata.name, pod.status.reason, pod.status.message),
        }),
        _ => None,
    }
}

/// What went wrong before the script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unready {
    /// Whether it was the packages.
    pub is_build: bool,
    /// What went wrong.
    pub detail: String,
}

/// What went wrong in a pod before its script could begin.
#[must_use]
pub fn before_the_script(pod: &Pod) -> Option<Unready> {
    for (name, is_build) in [(STAGE, false), (PACKAGES, true)] {
        let Some(ended) = pod.terminated(name).filter(|ended| ended.exit_code != 0) else { continue };
        let what = if is_build { "installing the packages" } else { "fetching source tree and data" };
        let said = last_words(ended);
        let detail = format!("{what} ended with exit code {}{said}", ended.exit_code);
        return Some(Unready { is_build, detail });
    }
    let ended = pod.terminated(SCRIPT)?;
    let detail = if is_no_start(ended) {
        let said = ended.message.split(CANNOT_START).last().unwrap_or_default();
        said.lines().next().unwrap_or_default().trim().to_owned()
    } else if ended.reason == "StartError" {
        format!("the container could not be started{}", last_words(ended))
    } else {
        return None;
    };
    Some(Unready { is_build: false, detail })
}

/// The end of what a container wrote, in one line.
fn last_words(ended: &Terminated) -> String {
    let lines: Vec<&str> = ended.message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let from = lines.len().saturating_sub(5);
    if lines.is_empty() { String::new() } else { format!(": {}", lines[from..].join(" | ")) }
}

/// How a `Job` ended; none while it has not.
pub(super) fn ended_job(
    object: &Workload,
    pods: &[SeenPod],
    began: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<Observation> {
    let conditions = &object.status.conditions;
    if true_condition(conditions, "Complete").is_some() {
        return Some(completed(object, pods, began, now));
    }
    // `SuccessCriteriaMet` and `FailureTarget` come before the last pod is gone.
    true_condition(conditions, "Failed").map(|failed| failure(failed, pods, began, now))
}

/// How an `MPIJob` ended; none while it has not, or while ranks may be left.
pub(super) fn ended_mpi_job(
    object: &Workload,
    pods: &[SeenPod],
    began: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<Observation> {
    // `Failed` alone may be taken back.
    object.status.completion_time?;
    let is_left = |seen: &SeenPod| is_worker(&seen.pod) && !seen.gone && !seen.pod.has_ended();
    if pods.iter().any(is_left) {
        return None;
    }
    let conditions = &object.status.conditions;
    if true_condition(conditions, "Succeeded").is_some() {
        return Some(completed(object, pods, began, now));
    }
    true_condition(conditions, "Failed").map(|failed| failure(failed, pods, began, now))
}

fn completed(
    object: &Workload,
    pods: &[SeenPod],
    began: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Observation {
    let ended = pods.iter().find_map(|seen| script_end(&seen.pod));
    let finished_at = ended.and_then(|ended| ended.finished_at).or(object.status.completion_time);
    let started_at = began.or(object.status.start_time);
    Observation::Exited(exit(Some(0), None, started_at, finished_at.unwrap_or(now)))
}

fn failure(
    failed: &Condition,
    pods: &[SeenPod],
    began: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Observation {
    if let Some(taken) = pods.iter().find_map(|seen| taken_away(&seen.pod)) {
        return match taken {
            StopReason::Preempted { detail } => Observation::Preempted { detail },
            StopReason::Lost { detail }
            | StopReason::NeverBegan { detail }
            | StopReason::BuildFailed { detail } => Observation::Lost { detail },
            StopReason::Canceled | StopReason::OverTime => Observation::Lost { detail: said(failed) },
        };
    }
    let ended = pods.iter().find_map(|seen| script_end(&seen.pod));
    let finished_at =
        ended.and_then(|ended| ended.finished_at).or(failed.last_transition_time).unwrap_or(now);
    let said = said(failed);
    // The MPI operator writes the reason of the pod behind it.
    if failed.reason.starts_with("DeadlineExceeded") || failed.reason.ends_with("/DeadlineExceeded") {
        return Observation::Exited(Exit {
            reason: ExitReason::MaxRunDurationExceeded,
            remark: Some(said),
            ..exit(None, None, began, finished_at)
        });
    }
    if let Some(unready) = pods.iter().find_map(|seen| before_the_script(&seen.pod)) {
        let exit = exit(None, None, None, finished_at);
        return Observation::Exited(if unready.is_build {
            Exit { build_error: Some(unready.detail), ..exit }
        } else {
            Exit { start_error: Some(unready.detail), ..exit }
        });
    }
    let is_deleted =
        |seen: &&SeenPod| !is_worker(&seen.pod) && seen.pod.metadata.deletion_timestamp.is_some();
    if let Some(SeenPod { pod, .. }) = pods.iter().find(is_deleted) {
        // Neither the cluster's controllers nor this service did that.
        let remark = format!("its pod {} was deleted on the cluster", pod.metadata.name);
        let (exit_code, signal) = ended.map_or((None, None), |ended| code(ended.exit_code));
        return Observation::Exited(Exit {
            reason: ExitReason::CanceledElsewhere,
            remark: Some(remark),
            ..exit(exit_code, signal, began, finished_at)
        });
    }
    let Some(ended) = ended else {
        // A pod that is gone and took its end with it: a person deleted it, or nobody looked in time.
        return match began {
            Some(_) => Observation::Lost {
                detail: format!("its pod is gone and nothing tells how the script ended ({said})"),
            },
            None => Observation::Exited(Exit {
                start_error: Some(format!("it failed before its script began ({said})")),
                ..exit(None, None, None, finished_at)
            }),
        };
    };
    let (exit_code, signal) = code(ended.exit_code);
    let remark = match ended.reason.as_str() {
        "OOMKilled" => Some("OOMKilled: it took more memory than it had".to_owned()),
        "" | "Error" | "Completed" => None,
        other => Some(other.to_owned()),
    };
    Observation::Exited(Exit { remark, ..exit(exit_code, signal, began, finished_at) })
}

fn said(failed: &Condition) -> String {
    format!("{}: {}", failed.reason, failed.message)
}

fn exit(
    exit_code: Option<i32>,
    signal: Option<i32>,
    started_at: Option<DateTime<Utc>>,
    finished_at: DateTime<Utc>,
) -> Exit {
    Exit { exit_code, signal, ..Exit::new(ExitReason::Exited, started_at, finished_at) }
}
