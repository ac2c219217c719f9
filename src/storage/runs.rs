//! Runs: accepting, reading, cancelling. What a worker writes is in `leases` and `transitions`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::types::Json;
use uuid::Uuid;

use super::{
    Storage, StorageError, compute_targets,
    error::{exact_object, json_text},
    estimators,
    estimators::Estimator,
    events,
    idempotency::{Idempotency, Keyed, Recorded},
};
use crate::domain::{
    compute_target::Backend,
    finding::Finding,
    ids::{EstimatorId, RunId},
    one_off_target::one_off_target,
    plan::Plan,
    run::{Cause, Status},
};

/// A run as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// The experiment.
    pub experiment_name: String,
    /// A name for people.
    pub display_name: Option<String>,
    /// The estimator that it was made of.
    pub estimator_id: EstimatorId,
    /// The target's name.
    pub compute_target: String,
    /// The target's backend when the run was accepted.
    pub backend: Backend,
    /// The definition with the run's overrides merged in.
    pub definition: Map<String, Value>,
    /// What validation said of it.
    pub findings: Vec<Finding>,
    /// What is started.
    pub plan: Plan,
    /// The environment that it really got, as the backend reported it; null before.
    pub actual_environment: Option<Value>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Higher goes first.
    pub priority: i32,
    /// How often the system may try.
    pub max_attempts: u32,
    /// Where it is.
    pub status: Status,
    /// Why it ended so.
    pub cause: Option<Cause>,
    /// The same in words, or what it is waiting for.
    pub detail: Option<String>,
    /// Of the last attempt's script.
    pub exit_code: Option<i32>,
    /// Of the last attempt's script.
    pub signal: Option<i32>,
    /// The number of the current attempt; 0 before the first.
    pub attempt: u32,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When its script first started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// When somebody first asked for its end.
    pub cancel_requested_at: Option<DateTime<Utc>>,
}

/// One attempt of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunAttempt {
    /// 1 for the first.
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
    /// Of its script.
    pub signal: Option<i32>,
    /// User and system time of all its processes.
    pub cpu_seconds: Option<f64>,
    /// The largest resident set of any one process.
    pub peak_memory_bytes: Option<u64>,
}

/// Which runs a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only this experiment.
    pub experiment_name: Option<String>,
    /// Only this status.
    pub status: Option<Status>,
    /// Only this target.
    pub compute_target: Option<String>,
    /// Only runs that carry all of these tags.
    pub tags: BTreeMap<String, String>,
    /// Only runs accepted after this.
    pub created_after: Option<DateTime<Utc>>,
}

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancellation {
    /// It had not started and is `Canceled`, or its end is under way (`CancelRequested`).
    Accepted(Box<Run>),
    /// It has ended.
    AlreadyTerminal(Status),
    /// There is no such run.
    NotFound,
}

/// Why a queued run waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueState {
    /// Runs that hold a place on the target.
    pub active: u64,
    /// The target's own limit, else the one that workers apply; null before a worker has said so.
    pub limit: Option<u32>,
    /// Queued runs that go first.
    pub ahead: u64,
}

pub(in crate::storage) struct Row {
    pub id: Uuid,
    pub experiment_name: String,
    pub display_name: Option<String>,
    pub estimator_id: Uuid,
    pub compute_target: String,
    pub backend: Json<Backend>,
    pub definition: String,
    pub findings: Json<Vec<Finding>>,
    pub plan: Json<Plan>,
    pub actual_environment: Option<Json<Value>>,
    pub tags: Json<BTreeMap<String, String>>,
    pub priority: i32,
    pub max_attempts: i32,
    pub status: String,
    pub cause: Option<String>,
    pub detail: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub attempt: i32,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Run {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad = |column, detail: &dyn std::fmt::Display| {
            StorageError::inconsistent("runs", column, row.id, detail)
        };
        let status = row.status.parse().map_err(|e| bad("status", &e))?;
        let cause = row.cause.as_deref().map(str::parse).transpose().map_err(|e| bad("cause", &e))?;
        Ok(Self {
            id: RunId::from_uuid(row.id),
            experiment_name: row.experiment_name,
            display_name: row.display_name,
            estimator_id: EstimatorId::from_uuid(row.estimator_id),
            compute_target: row.compute_target,
            backend: row.backend.0,
            definition: exact_object(&row.definition, "runs", "definition", row.id)?,
            findings: row.findings.0,
            plan: row.plan.0,
            actual_environment: row.actual_environment.map(|j| j.0),
            tags: row.tags.0,
            priority: row.priority,
            max_attempts: u32::try_from(row.max_attempts).unwrap_or(1),
            status,
            cause,
            detail: row.detail,
            exit_code: row.exit_code,
            signal: row.signal,
            attempt: u32::try_from(row.attempt).unwrap_or(0),
            created_at: row.created_at,
            started_at: row.started_at,
            finished_at: row.finished_at,
            cancel_requested_at: row.cancel_requested_at,
        })
    }
}

/// What became of a request to accept a run.
#[derive(Clone, Debug, PartialEq)]
pub enum Insertion {
    /// See [`Keyed`].
    Keyed(Keyed),
    /// The target was deleted since the definition was judged.
    TargetGone,
}

impl Storage {
    /// Accepts a run: the estimator (when it came inline), the run, its first event and the answer to an idempotent
    /// request, in one transaction. `answer` renders what the client gets.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_run(
        &self,
        run: &Run,
        inline_estimator: Option<&Estimator>,
        idempotency: Option<&Idempotency>,
        answer: impl FnOnce() -> Recorded,
    ) -> Result<Insertion, StorageError> {
        let mut tx = self.pool.begin().await?;
        if let Some(key) = idempotency
            && let Some(earlier) = super::idempotency::begin(&mut tx, key).await?
        {
            // Explicitly, so that the key's lock is gone when the client asks again.
            tx.rollback().await?;
            return Ok(Insertion::Keyed(earlier));
        }
        let one_off = one_off_target(run.id, &run.plan, &run.backend);
        if one_off.is_none() {
            let target = sqlx::query_scalar!(
                r#"SELECT 1 AS "one!" FROM compute_targets WHERE name = $1 FOR SHARE"#,
                run.compute_target
            )
            .fetch_optional(&mut *tx)
            .await?;
            if target.is_none() {
                tx.rollback().await?;
                return Ok(Insertion::TargetGone);
            }
        }
        if let Some(estimator) = inline_estimator {
            estimators::insert(&mut tx, estimator).await?;
        }
        sqlx::query!(
            "INSERT INTO runs (id, experiment_name, display_name, estimator_id, compute_target, backend, definition,
                               findings, plan, tags, priority, max_attempts, status, created_at, next_step_at, event_count)
             VALUES ($1, $2, $3, $4, $5, $6::text::json, $7::text::json, $8::text::json, $9::text::json, $10, $11, $12,
                     'Queued', $13, $13, 1)",
            run.id.as_uuid(),
            run.experiment_name,
            run.display_name,
            run.estimator_id.as_uuid(),
            run.compute_target,
            json_text(&run.backend)?,
            json_text(&run.definition)?,
            json_text(&run.findings)?,
            json_text(&run.plan)?,
            Json(&run.tags) as _,
            run.priority,
            i32::try_from(run.max_attempts).unwrap_or(i32::MAX),
            run.created_at,
        )
        .execute(&mut *tx)
        .await?;
        if let Some(target) = &one_off {
            compute_targets::insert_one_off(&mut tx, target, run.id, run.created_at).await?;
        }
        events::append(&mut tx, &events::NewEvent::status(run.id, 1, run.created_at, 0, Status::Queued))
            .await?;
        let recorded = answer();
        if let Some(key) = idempotency {
            super::idempotency::record(&mut tx, key, &recorded, run.created_at).await?;
        }
        super::notifications::notify(&mut tx).await?;
        tx.commit().await?;
        Ok(Insertion::Keyed(Keyed::Done(recorded)))
    }

    /// A run by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_run(&self, id: RunId) -> Result<Option<Run>, StorageError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id, experiment_name, display_name, estimator_id, compute_target, backend AS "backend: Json<Backend>",
                      definition::text AS "definition!", findings AS "findings: Json<Vec<Finding>>",
                      plan AS "plan: Json<Plan>", actual_environment AS "actual_environment: Json<Value>",
                      tags AS "tags: Json<BTreeMap<String, String>>", priority, max_attempts, status, cause, detail,
                      exit_code, signal, attempt, created_at, started_at, finished_at, cancel_requested_at
               FROM runs WHERE id = $1"#,
            id.as_uuid()
        )
        .fetch_optional(&self.pool)
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    /// The status of a run; cheaper than the whole of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_run_status(&self, id: RunId) -> Result<Option<Status>, StorageError> {
        sqlx::query_scalar!("SELECT status FROM runs WHERE id = $1", id.as_uuid())
            .fetch_optional(&self.pool)
            .await?
            .map(|s| s.parse().map_err(|e| StorageError::inconsistent("runs", "status", id, e)))
            .transpose()
    }

    /// The attempts of a run, first one first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_run_attempts(&self, id: RunId) -> Result<Vec<RunAttempt>, StorageError> {
        let rows = sqlx::query!(
            "SELECT number, node, created_at, started_at, finished_at, cause, detail, exit_code, signal, cpu_seconds,
                    peak_memory_bytes
             FROM run_attempts WHERE run_id = $1 ORDER BY number",
            id.as_uuid()
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let cause = row
                    .cause
                    .as_deref()
                    .map(str::parse)
                    .transpose()
                    .map_err(|e| StorageError::inconsistent("run_attempts", "cause", id, e))?;
                Ok(RunAttempt {
                    number: u32::try_from(row.number).unwrap_or(0),
                    node: row.node,
                    created_at: row.created_at,
                    started_at: row.started_at,
                    finished_at: row.finished_at,
                    cause,
                    detail: row.detail,
                    exit_code: row.exit_code,
                    signal: row.signal,
                    cpu_seconds: row.cpu_seconds,
                    peak_memory_bytes: row.peak_memory_bytes.map(super::snapshots::to_u64),
                })
            })
            .collect()
    }

    /// Runs, newest first, those before `before` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_runs(
        &self,
        filter: &RunFilter,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Run>, StorageError> {
        sqlx::query_as!(
            Row,
            r#"SELECT id, experiment_name, display_name, estimator_id, compute_target, backend AS "backend: Json<Backend>",
                      definition::text AS "definition!", findings AS "findings: Json<Vec<Finding>>",
                      plan AS "plan: Json<Plan>", actual_environment AS "actual_environment: Json<Value>",
                      tags AS "tags: Json<BTreeMap<String, String>>", priority, max_attempts, status, cause, detail,
                      exit_code, signal, attempt, created_at, started_at, finished_at, cancel_requested_at
               FROM runs
               WHERE ($1::text IS NULL OR experiment_name = $1)
                 -- What waits on a cluster is shown as queued.
                 AND ($2::text IS NULL OR CASE WHEN status = 'Starting' AND waits_for IS NOT NULL THEN 'Queued' ELSE status END = $2)
                 AND ($3::text IS NULL OR compute_target = $3)
                 AND ($4::jsonb IS NULL OR tags @> $4)
                 AND ($5::timestamptz IS NULL OR created_at > $5)
                 AND ($6::timestamptz IS NULL OR (created_at, id) < ($6, $7::uuid))
               ORDER BY created_at DESC, id DESC LIMIT $8"#,
            filter.experiment_name,
            filter.status.map(Status::as_str),
            filter.compute_target,
            (!filter.tags.is_empty()).then_some(Json(&filter.tags)) as _,
            filter.created_after,
            before.map(|b| b.0),
            before.map(|b| b.1),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    /// Records the wish that a run end. One that has no place yet ends at once; for any other the wish is durable and the
    /// worker that holds it, or the next one, carries it out. Asking twice changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel_run(&self, id: RunId, now: DateTime<Utc>) -> Result<Cancellation, StorageError> {
        let mut tx = self.pool.begin().await?;
        let Some(row) =
            sqlx::query!("SELECT status, attempt FROM runs WHERE id = $1 FOR UPDATE", id.as_uuid())
                .fetch_optional(&mut *tx)
                .await?
        else {
            return Ok(Cancellation::NotFound);
        };
        let status: Status =
            row.status.parse().map_err(|e| StorageError::inconsistent("runs", "status", id, e))?;
        if status.is_terminal() {
            return Ok(Cancellation::AlreadyTerminal(status));
        }
        if status != Status::CancelRequested {
            let ended = status == Status::Queued;
            let next = if ended { Status::Canceled } else { Status::CancelRequested };
            let cause = ended.then_some(Cause::CanceledByUser);
            let sequence = sqlx::query_scalar!(
                "UPDATE runs SET status = $2, cause = $3, cancel_requested_at = $4::timestamptz, next_step_at = $4::timestamptz,
                                 finished_at = CASE WHEN $5 THEN $4::timestamptz END, event_count = event_count + 1
                 WHERE id = $1 RETURNING event_count",
                id.as_uuid(),
                next.as_str(),
                cause.map(Cause::as_str),
                now,
                ended,
            )
            .fetch_one(&mut *tx)
            .await?;
            let attempt = u32::try_from(row.attempt).unwrap_or(0);
            let detail = if ended { "canceled before it was started" } else { "somebody asked for its end" };
            let event = events::NewEvent {
                cause,
                detail: Some(detail.to_owned()),
                ..events::NewEvent::status(id, sequence, now, attempt, next)
            };
            events::append(&mut tx, &event).await?;
            super::notifications::notify(&mut tx).await?;
        }
        tx.commit().await?;
        match self.get_run(id).await? {
            Some(run) => Ok(Cancellation::Accepted(Box::new(run))),
            None => Ok(Cancellation::NotFound),
        }
    }

    /// Why a queued run waits: what its target has to do, and what goes first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_state(&self, run: &Run) -> Result<QueueState, StorageError> {
        let row = sqlx::query!(
            r#"WITH live AS (
                   SELECT runs.id, priority, runs.created_at, status FROM runs
                   JOIN compute_targets ON compute_targets.name = runs.compute_target
                   WHERE pool = (SELECT pool FROM compute_targets WHERE name = $1)
                     AND status NOT IN ('Completed', 'Failed', 'Canceled')
               )
               SELECT
                   (SELECT count(*) FROM live WHERE status <> 'Queued') AS "active!",
                   (SELECT count(*) FROM live WHERE status = 'Queued'
                       AND (priority > $2 OR (priority = $2 AND (created_at, id) < ($3, $4)))) AS "ahead!",
                   (SELECT coalesce((backend->>'max_concurrent_runs')::bigint, default_limit) FROM compute_targets
                       WHERE name = $1) AS "limit""#,
            run.compute_target,
            run.priority,
            run.created_at,
            run.id.as_uuid(),
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(QueueState {
            active: super::snapshots::to_u64(row.active),
            limit: row.limit.and_then(|l| u32::try_from(l).ok()),
            ahead: super::snapshots::to_u64(row.ahead),
        })
    }
}
