//! Runs: accepting, reading, cancelling. What a worker writes is in `leases` and `transitions`.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{PgPool, types::Json};
use uuid::Uuid;

use super::{
    ProjectStorage, Storage, StorageError,
    error::exact_object,
    estimators::Estimator,
    idempotency::{Idempotency, Recorded},
    new_runs::{Insertion, NewRun},
    shown_runs::RunJson,
};
use crate::domain::{
    compute_target::Backend,
    finding::Finding,
    ids::{EstimatorId, RunId},
    plan::Plan,
    project::Project,
    run::{Cause, Retries, Status},
    trace_parent::TraceParent,
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
    /// When the backend took the order to end it.
    pub stop_sent_at: Option<DateTime<Utc>>,
    /// What the backend answered, by which the cancel is known to be carried out.
    pub cancel_evidence: Option<String>,
    /// Causes besides the system's own after which it is tried again.
    pub retry_on: Vec<Cause>,
    /// Since when it has been in the queue, this time; the last time once it is not.
    pub queued_at: Option<DateTime<Utc>>,
    /// How long it may be queued.
    pub max_queue_duration_seconds: Option<u32>,
    /// Whose it is.
    pub project: Project,
    /// Who posted it: the caller's name, with its project's before it unless that is `default`.
    pub caller: String,
    /// The run that it repeats.
    pub rerun_of: Option<RunId>,
}

impl Run {
    /// How often it may be tried, and after what.
    #[must_use]
    pub fn retries(&self) -> Retries {
        let on_script_failure = self.retry_on.contains(&Cause::ScriptFailed);
        Retries { max_attempts: self.max_attempts, on_script_failure }
    }
}

/// One attempt of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunAttempt {
    /// 1 for the first.
    pub number: u32,
    /// The worker node that had it.
    pub node: String,
    /// The machine that it ran on; none where a cluster chose it.
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
    pub stop_sent_at: Option<DateTime<Utc>>,
    pub cancel_evidence: Option<String>,
    pub retry_on: Vec<String>,
    pub queued_at: Option<DateTime<Utc>>,
    pub max_queue_duration_seconds: Option<i64>,
    pub project: String,
    pub caller: String,
    pub rerun_of: Option<Uuid>,
}

impl TryFrom<Row> for Run {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad = |column, detail: &dyn std::fmt::Display| {
            StorageError::inconsistent("runs", column, row.id, detail)
        };
        let status = row.status.parse().map_err(|e| bad("status", &e))?;
        let cause = row.cause.as_deref().map(str::parse).transpose().map_err(|e| bad("cause", &e))?;
        let retry_on = row.retry_on.iter().map(|word| word.parse()).collect::<Result<_, _>>();
        let retry_on = retry_on.map_err(|e| bad("retry_on", &e))?;
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
            stop_sent_at: row.stop_sent_at,
            cancel_evidence: row.cancel_evidence,
            retry_on,
            queued_at: row.queued_at,
            max_queue_duration_seconds: row.max_queue_duration_seconds.and_then(|n| u32::try_from(n).ok()),
            project: row.project.parse().map_err(|e| bad("project", &e))?,
            caller: row.caller,
            rerun_of: row.rerun_of.map(RunId::from_uuid),
        })
    }
}

/// On what terms a run is accepted.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The key that makes the request safe to repeat, if it has one.
    pub idempotency: Option<&'a Idempotency>,
    /// The body's hash, where the client chose the run's id.
    pub put_hash: Option<[u8; 32]>,
    /// How many runs may be queued.
    pub max_queued: u32,
    /// Where in its trace the request is that the run comes by.
    pub trace_parent: Option<TraceParent>,
}

impl Storage {
    /// Accepts one run: see [`Storage::insert_runs`]. `answer` renders what the client gets.
    ///
    /// # Errors
    /// When its estimator or its snapshot has been deleted since it was judged ([`StorageError::is_about_what_is_gone`]), or the
    /// database fails.
    pub async fn insert_run(
        &self,
        run: &Run,
        inline_estimator: Option<&Estimator>,
        terms: Terms<'_>,
        answer: impl FnOnce() -> Recorded,
    ) -> Result<Insertion, StorageError> {
        let new = NewRun {
            run: run.clone(),
            json: RunJson::try_from(run)?,
            estimator: inline_estimator.cloned(),
            idempotency: terms.idempotency.cloned(),
            put_hash: terms.put_hash,
            trace_parent: terms.trace_parent,
            audit: None,
        };
        let inserted = self.insert_runs(&[Arc::new(new)], &[Some(answer())], Some(terms.max_queued)).await?;
        Ok(inserted.each.and_then(|each| each.into_iter().next()).unwrap_or(Insertion::Exists))
    }

    /// A run by its id, whosever it is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_run(&self, id: RunId) -> Result<Option<Run>, StorageError> {
        find_run(&self.pool, id, None).await
    }

    /// Where in its trace the request was that a run came by, if it was in one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn trace_parent(&self, id: RunId) -> Result<Option<TraceParent>, StorageError> {
        let place = sqlx::query_scalar!("SELECT trace_parent FROM runs WHERE id = $1", id.as_uuid());
        let place = place.fetch_optional(&self.pool).await?.flatten();
        let read = |text: String| {
            text.parse().map_err(|error| StorageError::inconsistent("runs", "trace_parent", id, error))
        };
        place.map(read).transpose()
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
}

/// A run by its id; one of the given project only.
async fn find_run(pool: &PgPool, id: RunId, project: Option<&Project>) -> Result<Option<Run>, StorageError> {
    sqlx::query_as!(
            Row,
            r#"SELECT id, experiment_name, display_name, estimator_id, compute_target, backend AS "backend: Json<Backend>",
                      definition::text AS "definition!", findings AS "findings: Json<Vec<Finding>>",
                      plan AS "plan: Json<Plan>", actual_environment AS "actual_environment: Json<Value>",
                      tags AS "tags: Json<BTreeMap<String, String>>", priority, max_attempts, status, cause, detail,
                      exit_code, signal, attempt, created_at, started_at, finished_at, cancel_requested_at, stop_sent_at,
                      cancel_evidence, retry_on, queued_at, max_queue_duration_seconds, project, caller, rerun_of
               FROM runs WHERE id = $1 AND ($2::text IS NULL OR project = $2)"#,
            id.as_uuid(),
            project.map(Project::as_str),
        )
        .fetch_optional(pool)
        .await?
        .map(TryInto::try_into)
        .transpose()
}

impl ProjectStorage {
    /// A run of the project by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_run(&self, id: RunId) -> Result<Option<Run>, StorageError> {
        find_run(&self.pool, id, Some(&self.project)).await
    }

    /// The hash of the body under which a client put a run at this id; none in it for a run whose id the service made.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_hash(&self, id: RunId) -> Result<Option<Option<Vec<u8>>>, StorageError> {
        let hash = sqlx::query_scalar!(
            "SELECT put_hash FROM runs WHERE id = $1 AND project = $2",
            id.as_uuid(),
            self.project.as_str(),
        );
        Ok(hash.fetch_optional(&self.pool).await?)
    }
}
