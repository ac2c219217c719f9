//! Why runs are not running, as far as the database knows: for a page of them, or for all, in one question.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{Storage, StorageError, runs::Run, snapshots::to_u64};
use crate::domain::{ids::RunId, run::Waiting};

impl Storage {
    /// The same for a run that is about to be stored.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting_of_new(
        &self,
        run: &Run,
        caller_limit: Option<u32>,
    ) -> Result<Waiting, StorageError> {
        let row = sqlx::query!(
            r#"WITH live AS (
                   SELECT runs.id, priority, runs.created_at, status, next_step_at FROM runs
                   JOIN compute_targets ON compute_targets.name = runs.compute_target
                   WHERE pool = (SELECT pool FROM compute_targets WHERE name = $1)
                     AND status NOT IN ('Completed', 'Failed', 'Canceled')
               )
               SELECT
                   (SELECT count(*) FROM live WHERE status <> 'Queued') AS "active!",
                   (SELECT count(*) FROM live WHERE status = 'Queued'
                       AND next_step_at <= now() AND (priority > $2 OR (priority = $2 AND (created_at, id) < ($3, $4)))) AS "ahead!",
                   (SELECT count(*) FROM runs WHERE caller = $5 AND status NOT IN ('Queued', 'Completed', 'Failed', 'Canceled')) AS "of_caller!",
                   (SELECT coalesce((backend->>'max_concurrent_runs')::bigint, default_limit) FROM compute_targets
                       WHERE name = $1) AS "limit",
                   target.reachable AS "reachable?", target.health_since AS "health_since?", target.health_detail AS "health_detail?",
                   (SELECT max(worker_seen_at) FROM compute_targets) AS worker_seen_at, now() AS "now!"
               -- The target of one run alone is stored with it.
               FROM (VALUES ($1::text)) AS asked (name) LEFT JOIN compute_targets AS target ON target.name = asked.name"#,
            run.compute_target,
            run.priority,
            run.created_at,
            run.id.as_uuid(),
            run.caller,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(Waiting {
            status: run.status,
            status_since: Some(run.created_at),
            compute_target: run.compute_target.clone(),
            active: to_u64(row.active),
            limit: row.limit.and_then(|limit| u32::try_from(limit).ok()),
            ahead: to_u64(row.ahead),
            caller: (run.caller.clone(), to_u64(row.of_caller)),
            caller_limit,
            queued_at: run.queued_at,
            not_before: None,
            waits_for: None,
            unreachable: match (row.reachable, row.health_since) {
                (Some(false), Some(since)) => Some((row.health_detail.unwrap_or_default(), since)),
                _ => None,
            },
            node_away: None,
            worker_seen_at: row.worker_seen_at,
            now: row.now,
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
