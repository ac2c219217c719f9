//! Why runs are not running, as far as the database knows: for a page of them, or for all, in one question.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Storage, StorageError, snapshots::to_u64};
use crate::domain::{
    ids::RunId,
    run::{QueueView, TargetView, Waiting},
};

impl Storage {
    /// How busy all targets are.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queue_view(&self) -> Result<QueueView, StorageError> {
        let mut connection = self.pool.acquire().await?;
        let targets = sqlx::query!(
            r#"SELECT name, pool, coalesce((backend->>'max_concurrent_runs')::bigint, default_limit) AS "limit",
                      reachable, health_since, health_detail, max(worker_seen_at) OVER () AS worker_seen_at, now() AS "now!"
               FROM compute_targets"#
        )
        .fetch_all(&mut *connection)
        .await?;
        let queued = sqlx::query!(
            r#"SELECT pool, priority, count(*) AS "runs!" FROM runs
               JOIN compute_targets ON compute_targets.name = runs.compute_target
               WHERE status = 'Queued' AND next_step_at <= now() GROUP BY pool, priority"#
        )
        .fetch_all(&mut *connection)
        .await?;
        let active = sqlx::query!(
            r#"SELECT pool, caller, count(*) AS "runs!" FROM runs
               JOIN compute_targets ON compute_targets.name = runs.compute_target
               WHERE status NOT IN ('Queued', 'Completed', 'Failed', 'Canceled') GROUP BY pool, caller"#
        )
        .fetch_all(&mut *connection)
        .await?;
        // There is always a target: `local` cannot be deleted.
        let first = targets.first();
        let (worker_seen_at, now) = first.map_or_else(Default::default, |row| (row.worker_seen_at, row.now));
        Ok(QueueView {
            targets: targets
                .into_iter()
                .map(|row| {
                    let unreachable = match (row.reachable, row.health_since) {
                        (Some(false), Some(since)) => Some((row.health_detail.unwrap_or_default(), since)),
                        _ => None,
                    };
                    let limit = row.limit.and_then(|limit| u32::try_from(limit).ok());
                    (row.name, TargetView { pool: row.pool, limit, unreachable })
                })
                .collect(),
            queued: queued.into_iter().map(|row| ((row.pool, row.priority), to_u64(row.runs))).collect(),
            active: active.into_iter().map(|row| ((row.pool, row.caller), to_u64(row.runs))).collect(),
            worker_seen_at,
            now,
        })
    }

    /// What bears on why each of these runs does not run, or on why each run that has not ended does not. Those that have
    /// ended are left out. `caller_limit` is what this service allows one caller.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(
        &self,
        runs: Option<&[Uuid]>,
        caller_limit: Option<u32>,
    ) -> Result<BTreeMap<RunId, Waiting>, StorageError> {
        let rows = sqlx::query!(
            r#"WITH live AS (
                   SELECT runs.id, status, compute_target, pool, priority, runs.created_at, caller, next_step_at FROM runs
                   JOIN compute_targets ON compute_targets.name = runs.compute_target
                   WHERE status NOT IN ('Completed', 'Failed', 'Canceled')
                     -- Who else is there is of interest to those in the queue, and costs as much as there are.
                     AND ($1::uuid[] IS NULL OR EXISTS (SELECT FROM runs WHERE id = ANY($1) AND status = 'Queued'))
               ), active AS (
                   SELECT pool, count(*) AS runs FROM live WHERE status <> 'Queued' GROUP BY pool
               ), callers AS (
                   SELECT caller, count(*) AS runs FROM live WHERE status <> 'Queued' GROUP BY caller
               ), ranked AS (
                   -- What waits for its next attempt goes before nobody.
                   SELECT id, row_number() OVER (PARTITION BY pool ORDER BY priority DESC, created_at, id) - 1 AS ahead
                   FROM live WHERE status = 'Queued' AND next_step_at <= now()
               )
               SELECT runs.id, runs.status, runs.compute_target, runs.caller, runs.node, runs.queued_at, runs.waits_for, runs.waits_since,
                      -- Of every run at once nobody wants to know.
                      CASE WHEN $1::uuid[] IS NOT NULL THEN (
                          SELECT max(occurred_at) FROM run_events WHERE run_id = runs.id AND kind = 'status'
                      ) END AS status_since,
                      CASE WHEN next_step_at > now() THEN next_step_at END AS not_before,
                      lease_expires_at <= now() AS "is_unheld!",
                      CASE WHEN isfinite(lease_expires_at) THEN lease_expires_at END AS lease_expires_at,
                      coalesce(active.runs, 0) AS "active!", coalesce(ranked.ahead, 0) AS "ahead!", coalesce(callers.runs, 0) AS "of_caller!",
                      coalesce((target.backend->>'max_concurrent_runs')::bigint, target.default_limit) AS "limit",
                      target.reachable AS "reachable?", target.health_since, target.health_detail,
                      (SELECT max(worker_seen_at) FROM compute_targets) AS worker_seen_at, now() AS "now!"
               FROM runs
               JOIN compute_targets AS target ON target.name = runs.compute_target
               LEFT JOIN active ON active.pool = target.pool
               LEFT JOIN callers ON callers.caller = runs.caller
               LEFT JOIN ranked ON ranked.id = runs.id
               WHERE runs.status NOT IN ('Completed', 'Failed', 'Canceled') AND ($1::uuid[] IS NULL OR runs.id = ANY($1))"#,
            runs,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut all = BTreeMap::new();
        for row in rows {
            let bad = |e| StorageError::inconsistent("runs", "status", row.id, e);
            let unreachable = match (row.reachable, row.health_since) {
                (Some(false), Some(since)) => Some((row.health_detail.unwrap_or_default(), since)),
                _ => None,
            };
            let node_away = match (row.node, row.is_unheld) {
                (Some(node), true) => {
                    Some((node, row.lease_expires_at.or(row.status_since).unwrap_or(row.now)))
                }
                _ => None,
            };
            let waiting = Waiting {
                status: row.status.parse().map_err(bad)?,
                status_since: row.status_since,
                compute_target: row.compute_target,
                active: to_u64(row.active),
                limit: row.limit.and_then(|limit| u32::try_from(limit).ok()),
                ahead: to_u64(row.ahead),
                caller: (row.caller, to_u64(row.of_caller)),
                caller_limit,
                queued_at: row.queued_at,
                not_before: row.not_before,
                waits_for: row.waits_for.zip(row.waits_since),
                unreachable,
                node_away,
                worker_seen_at: row.worker_seen_at,
                now: row.now,
            };
            all.insert(RunId::from_uuid(row.id), waiting);
        }
        Ok(all)
    }
}
