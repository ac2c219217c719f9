//! A run as it is shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    api::{error::ApiError, estimators::EstimatorDefinition, scoped::Scoped},
    domain::{
        environment::{ActualEnvironment, Environment},
        finding::Finding,
        ids::{EstimatorId, RunId},
        plan::Plan,
        run::{BlockedBy, Cause, Status, Waiting, blocked_by, may_be_blocked},
    },
    storage::{ACQUIRE_TIMEOUT, runs as stored, shown_runs::ShownRun},
};

/// How far a cancel is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Cancellation {
    /// When somebody first asked for it. From then on the run ends as `Canceled` and as nothing else.
    pub requested_at: DateTime<Utc>,
    /// When the backend took the order to end it; null before, and for a run that was still in the queue.
    pub stop_sent_at: Option<DateTime<Utc>>,
    /// When nothing of it was left.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// By what that is known: what the backend answered.
    #[schema(example = "every process was gone at 2026-07-01T12:00:05Z; the script was ended by signal 15")]
    pub evidence: Option<String>,
}

/// What a run was to have, and what it has.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunEnvironment {
    /// What the definition asks for.
    #[schema(value_type = Environment)]
    pub asked: Box<RawValue>,
    /// What the compute gave it, with what differs; null until it is known.
    #[schema(value_type = Option<ActualEnvironment>)]
    pub actual: Option<Box<RawValue>>,
}

/// One attempt of a run.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunAttempt {
    /// 1 for the first.
    #[schema(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub number: u32,
    /// The worker node that had it.
    pub node: String,
    /// The machine that it ran on; null where a cluster chose it.
    #[schema(example = "gpu-box-3")]
    pub host: Option<String>,
    /// When a worker took it.
    pub created_at: DateTime<Utc>,
    /// When its script started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// Why it ended so.
    pub cause: Option<Cause>,
    /// The same in words.
    pub detail: Option<String>,
    /// Of its script.
    pub exit_code: Option<i32>,
    /// The signal that ended its script.
    pub signal: Option<i32>,
    /// User and system time of all its processes.
    pub cpu_seconds: Option<f64>,
    /// The largest resident set of any one process.
    #[schema(minimum = 0)]
    pub peak_memory_bytes: Option<u64>,
}

impl From<stored::RunAttempt> for RunAttempt {
    fn from(attempt: stored::RunAttempt) -> Self {
        Self {
            number: attempt.number,
            node: attempt.node,
            host: attempt.host,
            created_at: attempt.created_at,
            started_at: attempt.started_at,
            finished_at: attempt.finished_at,
            cause: attempt.cause,
            detail: attempt.detail,
            exit_code: attempt.exit_code,
            signal: attempt.signal,
            cpu_seconds: attempt.cpu_seconds,
            peak_memory_bytes: attempt.peak_memory_bytes,
        }
    }
}

/// A run.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The experiment.
    #[schema(example = "mnist")]
    pub experiment_name: String,
    /// A name for people.
    pub display_name: Option<String>,
    /// The estimator that it was made of. For an inline estimator, the one that was stored with the run: the definition with
    /// the run's overrides merged in.
    pub estimator_id: EstimatorId,
    /// Where it runs.
    #[schema(example = "local")]
    pub compute_target: String,
    /// Where it is in its life.
    #[schema(example = "Completed")]
    pub status: Status,
    /// Why it ended so; null while it lives and for `Completed`.
    #[schema(example = json!(null))]
    pub cause: Option<Cause>,
    /// The same in words, or what it is waiting for.
    pub detail: Option<String>,
    /// Why it is not running, what weighs most first; empty once it runs.
    pub blocked_by: Vec<BlockedBy>,
    /// Of the last attempt's script.
    pub exit_code: Option<i32>,
    /// The signal that ended the last attempt's script.
    pub signal: Option<i32>,
    /// The number of the current attempt; 0 before the first.
    #[schema(minimum = 0, maximum = 2_147_483_647, example = 0)]
    pub attempt: u32,
    /// All attempts, first one first.
    pub attempts: Vec<RunAttempt>,
    /// Labels.
    #[schema(example = json!({"team": "vision"}))]
    pub tags: BTreeMap<String, String>,
    /// What its script added with `add_properties`.
    #[schema(example = json!({"data_version": "3"}))]
    pub properties: BTreeMap<String, String>,
    /// Higher goes first among queued runs of one target.
    pub priority: i32,
    /// How many attempts it may have. Another one is made after a failure of the system, and after the causes in `retry_on`.
    #[schema(minimum = 1, maximum = 100, example = 1)]
    pub max_attempts: u32,
    /// What else it is tried again after, besides failures of the system.
    pub retry_on: Vec<Cause>,
    /// How long it may be queued before it ends as `Canceled`; null for any time.
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub max_queue_duration_seconds: Option<u32>,
    /// Who posted it: the name beside the token that came with the request; empty where callers are not told apart.
    pub caller: String,
    /// The run that it repeats; it may have been deleted since.
    pub rerun_of: Option<RunId>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When its script first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When somebody first asked for its end.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// How far its cancel is, if one was asked for.
    pub cancellation: Option<Cancellation>,
    /// What it was to have, and what it has.
    pub environment: RunEnvironment,
    /// What is started: everything resolved.
    #[schema(value_type = Plan)]
    pub plan: Box<RawValue>,
    /// The definition with the run's overrides merged in.
    #[schema(value_type = EstimatorDefinition)]
    pub definition: Box<RawValue>,
    /// What validation said of it: warnings and infos. Of an inline estimator, pointers are into the body that started the
    /// run, as in a refusal: `/estimator/…`, or the member that overrides it. Of a stored one, they are into `definition`.
    #[schema(value_type = Vec<Finding>)]
    pub findings: Box<RawValue>,
}

/// What of a plan is shown a second time.
#[derive(Deserialize)]
struct Planned<'a> {
    #[serde(borrow)]
    environment: &'a RawValue,
}

impl Run {
    /// Of what is stored.
    pub(super) fn new(run: ShownRun, waiting: Option<&Waiting>) -> Result<Self, ApiError> {
        let blocked_by = waiting.map(blocked_by).unwrap_or_default();
        // It has its place with us, and none yet on the cluster.
        let waits = waiting.is_some_and(|waiting| waiting.waits_for.is_some());
        let status = if waits && run.status == Status::Starting { Status::Queued } else { run.status };
        let cancellation = run.cancel_requested_at.map(|requested_at| Cancellation {
            requested_at,
            stop_sent_at: run.stop_sent_at,
            // A script that had ended by itself was known to be gone no earlier than somebody asked.
            confirmed_at: run.cancel_evidence.as_ref().and(run.finished_at).map(|at| at.max(requested_at)),
            evidence: run.cancel_evidence,
        });
        let planned: Planned<'_> = serde_json::from_str(run.json.plan.get())
            .map_err(|error| ApiError::Internal(format!("the plan of the run {}: {error}", run.id)))?;
        let asked = planned.environment.to_owned();
        Ok(Self {
            id: run.id,
            experiment_name: run.experiment_name,
            display_name: run.display_name,
            estimator_id: run.estimator_id,
            compute_target: run.compute_target,
            status,
            cause: run.cause,
            detail: run.detail,
            blocked_by,
            exit_code: run.exit_code,
            signal: run.signal,
            attempt: run.attempt,
            attempts: run.attempts.into_iter().map(RunAttempt::from).collect(),
            tags: run.tags,
            properties: run.properties,
            priority: run.priority,
            max_attempts: run.max_attempts,
            retry_on: run.retry_on,
            max_queue_duration_seconds: run.max_queue_duration_seconds,
            caller: run.caller,
            rerun_of: run.rerun_of,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            cancel_requested_at: run.cancel_requested_at,
            cancellation,
            environment: RunEnvironment { asked, actual: run.json.actual_environment },
            plan: run.json.plan,
            definition: run.json.definition,
            findings: run.json.findings,
        })
    }

    /// Of the caller's run with this id, if there is one: read after it was asked for.
    pub(super) async fn find(state: &Scoped, id: RunId) -> Result<Option<Self>, ApiError> {
        let wanted = (state.principal.project.clone(), id);
        match state.readings.done_in_time(wanted, ACQUIRE_TIMEOUT).await?? {
            Some(run) => Ok(Self::of_all(state, vec![run]).await?.pop()),
            None => Ok(None),
        }
    }

    /// Of the caller's run with this id.
    pub(super) async fn load(state: &Scoped, id: RunId) -> Result<Self, ApiError> {
        Self::find(state, id).await?.ok_or_else(|| ApiError::not_found("run", id))
    }

    /// Of runs that were read, with one more question for all that may be kept from running.
    pub(super) async fn of_all(state: &Scoped, runs: Vec<ShownRun>) -> Result<Vec<Self>, ApiError> {
        let waits = |run: &&ShownRun| may_be_blocked(run.status, run.is_unheld);
        let live: Vec<Uuid> = runs.iter().filter(waits).map(|run| run.id.as_uuid()).collect();
        let waiting = if live.is_empty() {
            BTreeMap::new()
        } else {
            state.installation.waiting(&live, state.caller_limit).await?
        };
        let view = |run: ShownRun| {
            // It may have gone on between the two questions: what is said of another status is not said of this one.
            let waiting = waiting.get(&run.id).filter(|waiting| waiting.status == run.status);
            Self::new(run, waiting)
        };
        runs.into_iter().map(view).collect()
    }
}
