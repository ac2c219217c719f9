//! A run as it is shown.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    api::{error::ApiError, estimators::EstimatorDefinition, state::ApiState},
    domain::{
        environment::{ActualEnvironment, Environment},
        finding::Finding,
        ids::{EstimatorId, RunId},
        plan::Plan,
        run::{Cause, Status},
    },
    storage::{
        Storage, StorageError,
        runs::{self as stored, QueueState},
    },
};

/// One reason why a queued run waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct BlockedBy {
    /// `compute_target_at_limit`, `behind_other_runs`, `waiting_for_worker`, or `cluster_queue` once it was handed to a cluster.
    #[schema(example = "compute_target_at_limit")]
    pub code: &'static str,
    /// The same in words.
    #[schema(example = "2 runs are active on `local`, which takes 2 at once")]
    pub detail: String,
}

/// What a run was to have, and what it has.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunEnvironment {
    /// What the definition asks for.
    pub asked: Environment,
    /// What the compute gave it, with what differs; null until it is known.
    #[schema(value_type = Option<ActualEnvironment>)]
    pub actual: Option<Value>,
}

/// One attempt of a run.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunAttempt {
    /// 1 for the first.
    #[schema(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub number: u32,
    /// The worker node that had it.
    pub node: String,
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
    pub status: Status,
    /// Why it ended so; null while it lives and for `Completed`.
    pub cause: Option<Cause>,
    /// The same in words, or what it is waiting for.
    pub detail: Option<String>,
    /// Why it waits, while it is `Queued`.
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
    /// How often the system may try. Failures of the script are final; only those of the system are tried again.
    #[schema(minimum = 1, maximum = 100, example = 1)]
    pub max_attempts: u32,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When its script first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When somebody first asked for its end.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// What it was to have, and what it has.
    pub environment: RunEnvironment,
    /// What is started: everything resolved.
    pub plan: Plan,
    /// The definition with the run's overrides merged in.
    #[schema(value_type = EstimatorDefinition)]
    pub definition: Map<String, Value>,
    /// What validation said of it: warnings and infos. Of an inline estimator, pointers are into the body that started the
    /// run, as in a refusal: `/estimator/…`, or the member that overrides it. Of a stored one, they are into `definition`.
    pub findings: Vec<Finding>,
}

impl Run {
    /// Of what is stored.
    pub(super) fn new(
        run: stored::Run,
        attempts: Vec<stored::RunAttempt>,
        properties: BTreeMap<String, String>,
        queue: Option<QueueState>,
        waits_for: Option<String>,
    ) -> Self {
        let (status, blocked_by) = match (queue, waits_for) {
            (Some(queue), _) if run.status == Status::Queued => {
                (run.status, blocked_by(&run.compute_target, queue))
            }
            // It has its place with us, and none yet on the cluster.
            (_, Some(detail)) if run.status == Status::Starting => {
                (Status::Queued, vec![BlockedBy { code: "cluster_queue", detail }])
            }
            _ => (run.status, Vec::new()),
        };
        Self {
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
            attempts: attempts.into_iter().map(RunAttempt::from).collect(),
            tags: run.tags,
            properties,
            priority: run.priority,
            max_attempts: run.max_attempts,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            cancel_requested_at: run.cancel_requested_at,
            environment: RunEnvironment {
                asked: run.plan.environment.clone(),
                actual: run.actual_environment,
            },
            plan: run.plan,
            definition: run.definition,
            findings: run.findings,
        }
    }

    /// Of one run, with what is kept beside it.
    pub(super) async fn load(storage: &Storage, run: stored::Run) -> Result<Self, StorageError> {
        let attempts = storage.list_run_attempts(run.id).await?;
        let properties =
            storage.properties_of(&[run.id.as_uuid()]).await?.remove(&run.id).unwrap_or_default();
        let queue = match run.status {
            Status::Queued => Some(storage.queue_state(&run).await?),
            _ => None,
        };
        let waits_for = match run.status {
            Status::Starting => storage.waits_of(&[run.id.as_uuid()]).await?.remove(&run.id),
            _ => None,
        };
        Ok(Self::new(run, attempts, properties, queue, waits_for))
    }

    /// Of a page of runs, with three questions in all instead of three for each.
    pub(super) async fn load_all(state: &ApiState, runs: Vec<stored::Run>) -> Result<Vec<Self>, ApiError> {
        let ids: Vec<Uuid> = runs.iter().map(|run| run.id.as_uuid()).collect();
        let mut attempts = state.storage.attempts_of(&ids).await?;
        let mut properties = state.storage.properties_of(&ids).await?;
        let queued: Vec<Uuid> =
            runs.iter().filter(|run| run.status == Status::Queued).map(|run| run.id.as_uuid()).collect();
        let queues =
            if queued.is_empty() { BTreeMap::new() } else { state.storage.queue_states(&queued).await? };
        let starting: Vec<Uuid> =
            runs.iter().filter(|run| run.status == Status::Starting).map(|run| run.id.as_uuid()).collect();
        let mut waits =
            if starting.is_empty() { BTreeMap::new() } else { state.storage.waits_of(&starting).await? };
        let view = |run: stored::Run| {
            let own = attempts.remove(&run.id).unwrap_or_default();
            let queue = queues.get(&run.id).copied();
            let added = properties.remove(&run.id).unwrap_or_default();
            let waits_for = waits.remove(&run.id);
            Self::new(run, own, added, queue, waits_for)
        };
        Ok(runs.into_iter().map(view).collect())
    }
}

fn blocked_by(target: &str, queue: QueueState) -> Vec<BlockedBy> {
    let mut reasons = Vec::new();
    let active = queue.active;
    if let Some(limit) = queue.limit
        && active >= u64::from(limit)
    {
        let detail = format!("{active} run(s) are active on `{target}`, which takes {limit} at once");
        reasons.push(BlockedBy { code: "compute_target_at_limit", detail });
    }
    if queue.ahead > 0 {
        let detail = format!("{} queued run(s) on `{target}` go first", queue.ahead);
        reasons.push(BlockedBy { code: "behind_other_runs", detail });
    }
    if reasons.is_empty() {
        let detail =
            format!("next on `{target}`, where {active} run(s) are active; a worker with room will take it");
        reasons.push(BlockedBy { code: "waiting_for_worker", detail });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(active: u64, limit: Option<u32>, ahead: u64) -> Vec<&'static str> {
        blocked_by("local", QueueState { active, limit, ahead }).into_iter().map(|b| b.code).collect()
    }

    #[test]
    fn a_queued_run_always_says_what_it_waits_for() {
        assert_eq!(codes(0, None, 0), ["waiting_for_worker"]);
        assert_eq!(codes(2, Some(2), 0), ["compute_target_at_limit"]);
        assert_eq!(codes(2, Some(2), 3), ["compute_target_at_limit", "behind_other_runs"]);
        assert_eq!(codes(1, Some(2), 1), ["behind_other_runs"]);
    }
}
