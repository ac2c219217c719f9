//! What the API shows beside runs, for a whole page in one question each.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Storage, StorageError,
    runs::{QueueState, RunAttempt},
    snapshots::to_u64,
};
use crate::domain::{ids::RunId, run::Status};

/// Where a run is: all that somebody who follows it has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its status.
    pub status: Status,
    /// The number of its current attempt; 0 before the first.
    pub attempt: u32,
}

impl Storage {
    /// Where a run is; cheaper than the whole of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_progress(&self, id: RunId) -> Result<Option<Progress>, StorageError> {
        let row = sqlx::query!("SELECT status, attempt FROM runs WHERE id = $1", id.as_uuid())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| {
            let bad = |e| StorageError::inconsistent("runs", "status", id, e);
            let status = row.status.parse().map_err(bad)?;
            Ok(Progress { status, attempt: u32::try_from(row.attempt).unwrap_or(0) })
        })
        .transpose()
    }

    /// The attempts of several runs, first ones first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn attempts_of(&self, runs: &[Uuid]) -> Result<BTreeMap<RunId, Vec<RunAttempt>>, StorageError> {
        let rows = sqlx::query!(
            "SELECT run_id, number, node, created_at, started_at, finished_at, cause, detail, exit_code, signal,
                    cpu_seconds, peak_memory_bytes
             FROM run_attempts WHERE run_id = ANY($1) ORDER BY run_id, number",
            runs,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut attempts: BTreeMap<RunId, Vec<RunAttempt>> = BTreeMap::new();
        for row in rows {
            let bad = |e| StorageError::inconsistent("run_attempts", "cause", row.run_id, e);
            let cause = row.cause.as_deref().map(str::parse).transpose().map_err(bad)?;
            attempts.entry(RunId::from_uuid(row.run_id)).or_default().push(RunAttempt {
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
                peak_memory_bytes: row.peak_memory_bytes.map(to_u64),
            });
        }
        Ok(attempts)
    }

    /// What those of several runs that wait on a cluster wait for, in its words.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waits_of(&self, runs: &[Uuid]) -> Result<BTreeMap<RunId, String>, StorageError> {
        let rows = sqlx::query!(
            r#"SELECT id, waits_for AS "waits_for!" FROM runs
               WHERE id = ANY($1) AND status = 'Starting' AND waits_for IS NOT NULL"#,
            runs,
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|row| (RunId::from_uuid(row.id), row.waits_for)).collect())
    }

    /// Why each of several queued runs waits.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_states(&self, runs: &[Uuid]) -> Result<BTreeMap<RunId, QueueState>, StorageError> {
        let rows = sqlx::query!(
            r#"WITH active AS (
                   SELECT pool, count(*) AS runs FROM runs
                   JOIN compute_targets ON compute_targets.name = runs.compute_target
                   WHERE status NOT IN ('Queued', 'Completed', 'Failed', 'Canceled') GROUP BY pool
               ), ranked AS (
                   SELECT runs.id, pool, target.backend, target.default_limit,
                          row_number() OVER (PARTITION BY pool ORDER BY priority DESC, runs.created_at, runs.id) - 1 AS ahead
                   FROM runs JOIN compute_targets AS target ON target.name = runs.compute_target
                   WHERE status = 'Queued'
               )
               SELECT ranked.id AS "id!", ranked.ahead AS "ahead!", coalesce(active.runs, 0) AS "active!",
                      coalesce((ranked.backend->>'max_concurrent_runs')::bigint, ranked.default_limit) AS "limit"
               FROM ranked LEFT JOIN active ON active.pool = ranked.pool
               WHERE ranked.id = ANY($1)"#,
            runs,
        )
        .fetch_all(&self.pool)
        .await?;
        let states = rows.into_iter().map(|row| {
            let state = QueueState {
                active: to_u64(row.active),
                limit: row.limit.and_then(|limit| u32::try_from(limit).ok()),
                ahead: to_u64(row.ahead),
            };
            (RunId::from_uuid(row.id), state)
        });
        Ok(states.collect())
    }
}
