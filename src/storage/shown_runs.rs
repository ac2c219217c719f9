//! Runs as they are shown: with their attempts, and with what is kept as JSON left as it is written. One run, several or a page in one
//! question.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde_json::value::{RawValue, to_raw_value};
use sqlx::{FromRow, Postgres, QueryBuilder, types::Json};
use uuid::Uuid;

use super::{
    ProjectStorage, Storage, StorageError,
    runs::{Run, RunAttempt, RunFilter},
    snapshots::to_u64,
};
use crate::domain::{
    ids::{EstimatorId, RunId},
    project::Project,
    run::{Cause, Status},
};

/// A run with all that is shown of it.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "they are those of `Run`, where each is explained")]
pub struct ShownRun {
    pub id: RunId,
    pub experiment_name: String,
    pub display_name: Option<String>,
    pub estimator_id: EstimatorId,
    pub compute_target: String,
    pub tags: BTreeMap<String, String>,
    pub properties: BTreeMap<String, String>,
    pub priority: i32,
    pub max_attempts: u32,
    pub status: Status,
    pub cause: Option<Cause>,
    pub detail: Option<String>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub attempt: u32,
    pub created_at: DateTime<Utc>,
    pub started_at: Option<DateTime<Utc>>,
    pub finished_at: Option<DateTime<Utc>>,
    pub cancel_requested_at: Option<DateTime<Utc>>,
    pub stop_sent_at: Option<DateTime<Utc>>,
    pub cancel_evidence: Option<String>,
    pub retry_on: Vec<Cause>,
    pub max_queue_duration_seconds: Option<u32>,
    pub project: Project,
    pub caller: String,
    pub rerun_of: Option<RunId>,
    /// Whether no worker holds what a worker node has of it.
    pub is_unheld: bool,
    pub json: RunJson,
    pub attempts: Vec<RunAttempt>,
}

/// What is kept of a run as JSON, as it is written.
#[derive(Clone, Debug)]
pub struct RunJson {
    /// The definition with the run's overrides merged in.
    pub definition: Box<RawValue>,
    /// What validation said of it.
    pub findings: Box<RawValue>,
    /// What is started.
    pub plan: Box<RawValue>,
    /// What the run really got.
    pub actual_environment: Option<Box<RawValue>>,
}

impl TryFrom<&Run> for RunJson {
    type Error = StorageError;

    fn try_from(run: &Run) -> Result<Self, StorageError> {
        let written = || {
            Ok(Self {
                definition: to_raw_value(&run.definition)?,
                findings: to_raw_value(&run.findings)?,
                plan: to_raw_value(&run.plan)?,
                actual_environment: run.actual_environment.as_ref().map(to_raw_value).transpose()?,
            })
        };
        written().map_err(|error: serde_json::Error| StorageError::Refused(sqlx::Error::Encode(error.into())))
    }
}

impl ShownRun {
    /// One that has no attempts and no properties yet.
    #[must_use]
    pub fn new(run: &Run, json: RunJson) -> Self {
        Self {
            id: run.id,
            experiment_name: run.experiment_name.clone(),
            display_name: run.display_name.clone(),
            estimator_id: run.estimator_id,
            compute_target: run.compute_target.clone(),
            tags: run.tags.clone(),
            properties: BTreeMap::new(),
            priority: run.priority,
            max_attempts: run.max_attempts,
            status: run.status,
            cause: run.cause,
            detail: run.detail.clone(),
            exit_code: run.exit_code,
            signal: run.signal,
            attempt: run.attempt,
            created_at: run.created_at,
            started_at: run.started_at,
            finished_at: run.finished_at,
            cancel_requested_at: run.cancel_requested_at,
            stop_sent_at: run.stop_sent_at,
            cancel_evidence: run.cancel_evidence.clone(),
            retry_on: run.retry_on.clone(),
            max_queue_duration_seconds: run.max_queue_duration_seconds,
            project: run.project.clone(),
            caller: run.caller.clone(),
            rerun_of: run.rerun_of,
            is_unheld: false,
            json,
            attempts: Vec::new(),
        }
    }
}

/// The columns of a run and of one of its attempts. What is long comes with the first attempt alone.
const COLUMNS: &str = "SELECT runs.id, experiment_name, display_name, estimator_id, compute_target, tags, properties, priority,
    max_attempts, status, runs.cause, runs.detail, runs.exit_code, runs.signal, attempt, runs.created_at, runs.started_at,
    runs.finished_at, cancel_requested_at, stop_sent_at, cancel_evidence, retry_on, max_queue_duration_seconds, project, caller,
    rerun_of, runs.node IS NOT NULL AND lease_expires_at <= now() AS is_unheld, CASE WHEN number > 1 THEN NULL ELSE definition END AS definition,
    CASE WHEN number > 1 THEN NULL ELSE findings END AS findings, CASE WHEN number > 1 THEN NULL ELSE plan END AS plan,
    CASE WHEN number > 1 THEN NULL ELSE actual_environment END AS actual_environment, number, run_attempts.node, host,
    run_attempts.created_at AS attempt_created_at, run_attempts.started_at AS attempt_started_at,
    run_attempts.finished_at AS attempt_finished_at, run_attempts.cause AS attempt_cause, run_attempts.detail AS attempt_detail,
    run_attempts.exit_code AS attempt_exit_code, run_attempts.signal AS attempt_signal, cpu_seconds, peak_memory_bytes ";

#[derive(FromRow)]
struct Row {
    id: Uuid,
    experiment_name: String,
    display_name: Option<String>,
    estimator_id: Uuid,
    compute_target: String,
    tags: Json<BTreeMap<String, String>>,
    properties: Json<BTreeMap<String, String>>,
    priority: i32,
    max_attempts: i32,
    status: String,
    cause: Option<String>,
    detail: Option<String>,
    exit_code: Option<i32>,
    signal: Option<i32>,
    attempt: i32,
    created_at: DateTime<Utc>,
    started_at: Option<DateTime<Utc>>,
    finished_at: Option<DateTime<Utc>>,
    cancel_requested_at: Option<DateTime<Utc>>,
    stop_sent_at: Option<DateTime<Utc>>,
    cancel_evidence: Option<String>,
    retry_on: Vec<String>,
    max_queue_duration_seconds: Option<i64>,
    project: String,
    caller: String,
    rerun_of: Option<Uuid>,
    is_unheld: bool,
    definition: Option<Json<Box<RawValue>>>,
    findings: Option<Json<Box<RawValue>>>,
    plan: Option<Json<Box<RawValue>>>,
    actual_environment: Option<Json<Box<RawValue>>>,
    #[sqlx(flatten)]
    of_attempt: AttemptRow,
}

/// All of it null where there is no attempt.
#[derive(FromRow)]
struct AttemptRow {
    number: Option<i32>,
    node: Option<String>,
    host: Option<String>,
    attempt_created_at: Option<DateTime<Utc>>,
    attempt_started_at: Option<DateTime<Utc>>,
    attempt_finished_at: Option<DateTime<Utc>>,
    attempt_cause: Option<String>,
    attempt_detail: Option<String>,
    attempt_exit_code: Option<i32>,
    attempt_signal: Option<i32>,
    cpu_seconds: Option<f64>,
    peak_memory_bytes: Option<i64>,
}

impl AttemptRow {
    fn attempt(self, run: Uuid) -> Result<Option<RunAttempt>, StorageError> {
        let (Some(number), Some(node), Some(created_at)) = (self.number, self.node, self.attempt_created_at)
        else {
            return Ok(None);
        };
        let bad = |e| StorageError::inconsistent("run_attempts", "cause", run, e);
        Ok(Some(RunAttempt {
            number: u32::try_from(number).unwrap_or(0),
            node,
            host: self.host,
            created_at,
            started_at: self.attempt_started_at,
            finished_at: self.attempt_finished_at,
            cause: self.attempt_cause.as_deref().map(str::parse).transpose().map_err(bad)?,
            detail: self.attempt_detail,
            exit_code: self.attempt_exit_code,
            signal: self.attempt_signal,
            cpu_seconds: self.cpu_seconds,
            peak_memory_bytes: self.peak_memory_bytes.map(to_u64),
        }))
    }
}

impl TryFrom<Row> for ShownRun {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad = |column, detail: &dyn std::fmt::Display| {
            StorageError::inconsistent("runs", column, row.id, detail)
        };
        let json = |column, value: Option<Json<Box<RawValue>>>| {
            value.map(|json| json.0).ok_or_else(|| bad(column, &"its first attempt is missing"))
        };
        let retry_on = row.retry_on.iter().map(|word| word.parse()).collect::<Result<_, _>>();
        Ok(Self {
            id: RunId::from_uuid(row.id),
            experiment_name: row.experiment_name,
            display_name: row.display_name,
            estimator_id: EstimatorId::from_uuid(row.estimator_id),
            compute_target: row.compute_target,
            tags: row.tags.0,
            properties: row.properties.0,
            priority: row.priority,
            max_attempts: u32::try_from(row.max_attempts).unwrap_or(1),
            status: row.status.parse().map_err(|e| bad("status", &e))?,
            cause: row.cause.as_deref().map(str::parse).transpose().map_err(|e| bad("cause", &e))?,
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
            retry_on: retry_on.map_err(|e| bad("retry_on", &e))?,
            max_queue_duration_seconds: row.max_queue_duration_seconds.and_then(|n| u32::try_from(n).ok()),
            project: row.project.parse().map_err(|e| bad("project", &e))?,
            caller: row.caller,
            rerun_of: row.rerun_of.map(RunId::from_uuid),
            is_unheld: row.is_unheld,
            json: RunJson {
                definition: json("definition", row.definition)?,
                findings: json("findings", row.findings)?,
                plan: json("plan", row.plan)?,
                actual_environment: row.actual_environment.map(|json| json.0),
            },
            attempts: row.of_attempt.attempt(row.id)?.into_iter().collect(),
        })
    }
}

/// Rows of which those of one run follow one another, first attempts first.
fn gathered(rows: Vec<Row>) -> Result<Vec<ShownRun>, StorageError> {
    let mut runs: Vec<ShownRun> = Vec::with_capacity(rows.len());
    for row in rows {
        match runs.last_mut().filter(|run| run.id.as_uuid() == row.id) {
            Some(run) => run.attempts.extend(row.of_attempt.attempt(row.id)?),
            None => runs.push(row.try_into()?),
        }
    }
    Ok(runs)
}

/// How many elements the planner expects of an array that it does not know.
const EXPECTED: usize = 10;

/// As many ids as the planner expects. A plan made for fewer looks cheaper to it than one that serves every number, so that it would
/// make one for each question, and that takes longer than the answer. Who is named twice is found once.
pub(in crate::storage) fn as_expected(mut ids: Vec<Uuid>) -> Vec<Uuid> {
    if let Some(&last) = ids.last() {
        ids.resize(ids.len().max(EXPECTED), last);
    }
    ids
}

impl Storage {
    /// Several runs, each for a project that asks; none for one that is not there, or is another project's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn shown_runs(
        &self,
        wanted: &[(Project, RunId)],
    ) -> Result<Vec<Option<ShownRun>>, StorageError> {
        let ids: Vec<Uuid> = wanted.iter().map(|(_, id)| id.as_uuid()).collect();
        let ids = as_expected(ids);
        let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
        query
            .push("FROM runs LEFT JOIN run_attempts ON run_id = runs.id WHERE runs.id = ANY (")
            .push_bind(ids);
        query.push(") ORDER BY runs.id, number");
        let rows = query.build_query_as::<Row>().fetch_all(&self.pool).await?;
        let found: HashMap<RunId, ShownRun> = gathered(rows)?.into_iter().map(|run| (run.id, run)).collect();
        let of =
            |(project, id): &(Project, RunId)| found.get(id).filter(|run| run.project == *project).cloned();
        Ok(wanted.iter().map(of).collect())
    }
}

impl ProjectStorage {
    /// Runs, newest first, those before `before` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_runs(
        &self,
        filter: &RunFilter,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ShownRun>, StorageError> {
        let mut query = QueryBuilder::<Postgres>::new(COLUMNS);
        query.push("FROM (SELECT * FROM runs WHERE project = ").push_bind(self.project.as_str());
        // A condition for what is not asked for would keep a plan that serves every question from using the index that serves this one.
        if let Some(name) = &filter.experiment_name {
            query.push(" AND experiment_name = ").push_bind(name);
        }
        if let Some(status) = filter.status {
            // What waits on a cluster is shown as queued. The expression is that of the index, to the letter.
            query.push(
                " AND (CASE WHEN status = 'Starting' AND waits_for IS NOT NULL THEN 'Queued' ELSE status END) = ",
            );
            query.push_bind(status.as_str());
        }
        if let Some(target) = &filter.compute_target {
            query.push(" AND compute_target = ").push_bind(target);
        }
        if !filter.tags.is_empty() {
            query.push(" AND tags @> ").push_bind(Json(&filter.tags));
        }
        if let Some(time) = filter.created_after {
            query.push(" AND created_at > ").push_bind(time);
        }
        if let Some((time, id)) = before {
            query.push(" AND (created_at, id) < (").push_bind(time).push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_at DESC, id DESC LIMIT ");
        if *filter == RunFilter::default() {
            // With a limit that the planner knows it makes one plan for all pages: there is but one index for them.
            query.push(limit);
        } else {
            // Which index is best depends on what is asked for: it is to look at that each time.
            query.push_bind(i64::from(limit));
        }
        query.push(") AS runs LEFT JOIN run_attempts ON run_id = runs.id ORDER BY runs.created_at DESC, runs.id DESC, number");
        gathered(query.build_query_as::<Row>().fetch_all(&self.pool).await?)
    }
}
