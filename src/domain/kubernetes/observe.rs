//! What has become of an attempt: what the API server has of it, put together.
//!
//! The object ends last, and what it says at its end is not all: how a script ended is in its pod, which may be gone. So what was
//! seen of pods before they went is looked at too ([`SeenPod::gone`]), and what this service itself decided is kept outside the
//! cluster ([`Stop`]), because deleting an object deletes its memory.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{
    end::{before_the_script, code, ended_job, ended_mpi_job, is_worker, script_end, taken_away},
    names::{PACKAGES, SCRIPT, STAGE, WORKER},
    objects::{Event, Pod, Workload, true_condition},
    waiting::waits_for,
};
use crate::domain::run::{Exit, ExitReason, Observation};

/// What an attempt is on the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A `Job` of `batch/v1`: one process.
    Job,
    /// An `MPIJob` of `kubeflow.org/v2beta1`: ranks.
    MpiJob,
}

impl Kind {
    /// The word for people, and of the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::MpiJob => "MPIJob",
        }
    }
}

/// Why this service ended an attempt: deleted its object, which then can tell nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// Somebody asked for it.
    Canceled,
    /// It ran longer than it may.
    OverTime,
    /// It waited for too long, or for what never comes.
    NeverBegan {
        /// For what.
        detail: String,
    },
    /// Its packages could not be installed, and the rest of it would wait for ever.
    BuildFailed {
        /// What was said.
        detail: String,
    },
    /// A part of it is gone, and the rest would wait for ever.
    Lost {
        /// What was found.
        detail: String,
    },
    /// The cluster took its place away.
    Preempted {
        /// In the cluster's words.
        detail: String,
    },
}

/// That this service ended an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// When.
    pub at: DateTime<Utc>,
    /// When its script had begun, if it had.
    pub started_at: Option<DateTime<Utc>>,
}

/// A pod as it was last seen.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenPod {
    /// What was last known of it.
    pub pod: Pod,
    /// Whether it is no longer there.
    pub gone: bool,
}

/// Everything that is known of an attempt.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// What it is.
    pub kind: Kind,
    /// Its object; none where the API server says that there is none.
    pub object: Option<&'a Workload>,
    /// Its pods, also those that are gone.
    pub pods: &'a [SeenPod],
    /// What happened to object and pods; only needed while it has not begun.
    pub events: &'a [Event],
    /// Whether an object of it was there, or may have been.
    pub created: bool,
    /// Whether this service ended it.
    pub stop: Option<&'a Stop>,
    /// `max_run_duration_seconds`.
    pub limit: Option<u64>,
    /// How long it may wait for something, suspension not counted.
    pub patience: TimeDelta,
    /// How long installing its packages may take.
    pub build_limit: TimeDelta,
}

/// What is to be made of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// What is to be said of the attempt.
    pub observation: Observation,
    /// Why the service has to end it now.
    pub stop: Option<StopReason>,
}

impl From<Observation> for Verdict {
    fn from(observation: Observation) -> Self {
        Self { observation, stop: None }
    }
}

/// What has become of an attempt.
#[must_use]
pub fn judge(seen: &Seen<'_>, now: DateTime<Utc>) -> Verdict {
    let Some(object) = seen.object else { return without_object(seen, now).into() };
    let began = began(seen);
    // Deleted in the foreground it stays until the last of its pods is gone.
    if seen.stop.is_some() || object.metadata.deletion_timestamp.is_some() {
        return alive(began).into();
    }
    let ended = match seen.kind {
        Kind::Job => ended_job(object, seen.pods, began, now),
        Kind::MpiJob => ended_mpi_job(object, seen.pods, began, now),
    };
    if let Some(observation) = ended {
        return observation.into();
    }
    match began {
        Some(started_at) => running(seen, object, started_at, now),
        None => waiting(seen, object, now),
    }
}

/// When the script began, as far as any pod tells.
fn began(seen: &Seen<'_>) -> Option<DateTime<Utc>> {
    let started = |seen: &SeenPod| {
        let Some(container) = seen.pod.container(SCRIPT) else { return bare_start(&seen.pod) };
        let state = &container.state;
        let running = state.running.as_ref().and_then(|running| running.started_at);
        running.or_else(|| script_end(&seen.pod).and_then(|ended| ended.started_at))
    };
    let stop = seen.stop.and_then(|stop| stop.started_at);
    seen.pods.iter().filter_map(started).min().or(stop)
}

/// The start of a pod whose kubelet tells of no containers, only that they run: virtual ones do that.
fn bare_start(pod: &Pod) -> Option<DateTime<Utc>> {
    let status = &pod.status;
    let is_bare = status.container_statuses.is_empty() && status.init_container_statuses.is_empty();
    (is_bare && status.phase == "Running" && !is_worker(pod)).then_some(status.start_time).flatten()
}

const fn alive(began: Option<DateTime<Utc>>) -> Observation {
    match began {
        Some(started_at) => Observation::Running { started_at },
        None => Observation::Starting,
    }
}

/// There is no object (any more).
fn without_object(seen: &Seen<'_>, now: DateTime<Utc>) -> Observation {
    let kind = seen.kind.as_str();
    let started_at = began(seen);
    let Some(stop) = seen.stop else {
        if !seen.created {
            return Observation::NotFound;
        }
        // Only who may delete objects in this namespace can have done so.
        let remark = format!("its {kind} was deleted on the cluster, not through this service");
        let exit = of_pods(seen.pods, ExitReason::CanceledElsewhere, started_at, now);
        return Observation::Exited(Exit { remark: Some(remark), ..exit });
    };
    match &stop.reason {
        StopReason::Canceled => {
            Observation::Exited(of_pods(seen.pods, ExitReason::Canceled, started_at, now))
        }
        StopReason::OverTime => {
            let exit = of_pods(seen.pods, ExitReason::MaxRunDurationExceeded, started_at, now);
            Observation::Exited(exit)
        }
        StopReason::NeverBegan { detail } => Observation::Exited(Exit {
            start_error: Some(detail.clone()),
            ..of_pods(&[], ExitReason::Exited, None, now)
        }),
        StopReason::BuildFailed { detail } => Observation::Exited(Exit {
            build_error: Some(detail.clone()),
            ..of_pods(&[], ExitReason::Exited, None, now)
        }),
        StopReason::Lost { detail } => Observation::Lost { detail: detail.clone() },
        StopReason::Preempted { detail } => Observation::Preempted { detail: detail.clone() },
    }
}

/// An end with what the pods tell of the script's.
fn of_pods(
    pods: &[SeenPod],
    reason: ExitReason,
    started_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Exit {
    let ended = pods.iter().find_map(|seen| script_end(&seen.pod));
    let (exit_code, signal) = ended.map_or((None, None), |ended| code(ended.exit_code));
    let finished_at = ended.and_then(|ended| ended.finished_at).unwrap_or(now);
    Exit { exit_code, signal, ..Exit::new(reason, started_at, finished_at) }
}

fn running(seen: &Seen<'_>, object: &Workload, started_at: DateTime<Utc>, now: DateTime<Utc>) -> Verdict {
    let stop = if let Some(suspended) = true_condition(&object.status.conditions, "Suspended") {
        // Another start is another attempt.
        Some(StopReason::Preempted {
            detail: format!("its {} was suspended while it ran: {}", seen.kind.as_str(), suspended.message),
        })
    } else if is_over(started_at, seen.limit, now) {
        Some(StopReason::OverTime)
    } else {
        // The MPI operator neither replaces nor mentions a worker that is gone.
        (seen.kind == Kind::MpiJob).then(|| broken_worker(object, seen.pods)).flatten()
    };
    Verdict { observation: Observation::Running { started_at }, stop }
}

fn is_over(started_at: DateTime<Utc>, limit: Option<u64>, now: DateTime<Utc>) -> bool {
    let limit = limit.and_then(|seconds| i64::try_from(seconds).ok()).and_then(TimeDelta::try_seconds);
    limit.is_some_and(|limit| now - started_at >= limit)
}

/// What the MPI operator says of an eviction, after which it does nothing more.
fn evicted(object: &Workload) -> Option<StopReason> {
    let failed = true_condition(&object.status.conditions, "Failed")?;
    let detail = format!("{}: {}", failed.reason, failed.message);
    (failed.reason == "MPIJobEvicted").then_some(StopReason::Preempted { detail })
}

/// A worker of an `MPIJob` that has ended although the launcher has not.
fn broken_worker(object: &Workload, pods: &[SeenPod]) -> Option<StopReason> {
    // At its end the operator deletes them; before that nobody but the cluster or a person does.
    let launcher_ended = pods.iter().any(|seen| script_end(&seen.pod).is_some());
    if launcher_ended {
        return None;
    }
    let mut workers = pods.iter().filter(|seen| is_worker(&seen.pod));
    let worker = workers
        .find(|seen| seen.gone || seen.pod.has_ended() || seen.pod.metadata.deletion_timestamp.is_some());
    let lost = |detail: String| StopReason::Lost { detail };
    match worker {
        Some(SeenPod { pod, .. }) => {
            Some(taken_away(pod).or_else(|| evicted(object)).unwrap_or_else(|| {
                lost(format!("its worker {} ended before the launcher", pod.metadata.name))
            }))
        }
        None => evicted(object).or_else(|| {
            let failed =
                object.status.replica_statuses.get("Worker").is_some_and(|workers| workers.failed > 0);
            failed.then(|| lost("a worker of its MPIJob failed before the launcher".to_owned()))
        }),
    }
}

/// Its script has not begun.
fn waiting(seen: &Seen<'_>, object: &Workload, now: DateTime<Utc>) -> Verdict {
    let pods: Vec<&Pod> = seen.pods.iter().filter(|seen| !seen.gone).map(|seen| &seen.pod).collect();
    let reason = waits_for(object, &pods, seen.events);
    let observation = match &reason {
        Some(reason) => Observation::Queued { reason: reason.clone() },
        None => Observation::Starting,
    };
    let is_suspended = true_condition(&object.status.conditions, "Suspended").is_some();
    let stop = match (seen.kind, hopeless(object, seen.events)) {
        (_, Some(detail)) => Some(StopReason::NeverBegan { detail }),
        (Kind::MpiJob, None) if evicted(object).is_some() => evicted(object),
        (Kind::MpiJob, None) if failed_worker(&pods).is_some() => failed_worker(&pods),
        // What a queue holds back has time.
        _ if is_suspended => None,
        _ => took_too_long(seen, object, &pods, reason.as_deref(), now),
    };
    Verdict { observation, stop }
}

/// What has taken so long that it is given up: installing has a limit of its own, and fetching ends by itself.
fn took_too_long(
    seen: &Seen<'_>,
    object: &Workload,
    pods: &[&Pod],
    reason: Option<&str>,
    now: DateTime<Utc>,
) -> Option<StopReason> {
    let since = |name| pods.iter().find_map(|pod| pod.container(name)?.state.running.as_ref());
    if let Some(installing) = since(PACKAGES) {
        let limit = seen.build_limit.num_seconds();
        let is_over = installing.started_at.is_some_and(|since| now - since >= seen.build_limit);
        return is_over.then(|| StopReason::BuildFailed {
            detail: format!("installing the packages took longer than {limit} s"),
        });
    }
    if since(STAGE).is_some() {
        return None;
    }
    // What came before the present wait is not counted.
    let ended = pods.iter().flat_map(|pod| &pod.status.init_container_statuses);
    let ended = ended.filter_map(|status| status.state.terminated.as_ref()?.finished_at).max();
    let since = object.status.start_time.max(object.metadata.creation_timestamp).max(ended);
    let is_late = since.is_some_and(|since| now - since >= seen.patience);
    is_late.then(|| StopReason::NeverBegan {
        detail: format!(
            "it waited for {} s in vain: {}",
            seen.patience.num_seconds(),
            reason.unwrap_or("its pod did not begin, and nothing says why")
        ),
    })
}

/// What an object that is not valid to its own controller gets: an event, and nothing else ever.
fn hopeless(object: &Workload, events: &[Event]) -> Option<String> {
    let invalid = events.iter().find(|event| event.reason == "ValidationError")?;
    object.status.is_empty().then(|| format!("the MPI operator refuses it: {}", invalid.message))
}

/// A worker that failed before there is a launcher: the operator waits for it for ever.
fn failed_worker(pods: &[&Pod]) -> Option<StopReason> {
    let pod = pods.iter().find(|pod| pod.status.phase == "Failed" && is_worker(pod))?;
    Some(match (taken_away(pod), before_the_script(pod)) {
        (Some(taken), _) => taken,
        (None, Some(failed)) if failed.is_build => StopReason::BuildFailed { detail: failed.detail },
        (None, Some(failed)) => StopReason::NeverBegan { detail: failed.detail },
        (None, None) => {
            let ended = pod.terminated(WORKER);
            let code = ended.map_or_else(String::new, |ended| format!(" with exit code {}", ended.exit_code));
            let name = &pod.metadata.name;
            StopReason::NeverBegan {
                detail: format!("the worker {name} ended{code} before the launcher began"),
            }
        }
    })
}

#[cfg(test)]
mod tests;
