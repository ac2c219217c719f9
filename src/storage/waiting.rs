//! Why runs are not running, as far as the database knows: for a page of them, or for all, in one question.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{Storage, StorageError, shown_runs::as_expected, snapshots::to_u64};
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
            r#"SELECT pool, priority, count(*) FILTER (WHERE next_step_at <= now()) AS "due!", count(*) AS "all!" FROM runs
               JOIN compute_targets ON compute_targets.name = runs.compute_target
               WHERE status = 'Queued' GROUP BY pool, priority"#
        )
        .fetch_all(&mut *connection)
        .await?;
        let active = sqlx::query!(
            r#"SELECT pool, caller, count(*) AS "runs!" FROM runs
               JOIN compute_targets ON compute_targets.name = runs.compute_target
               -- Those of the index `runs_due`: the others in the queue are not looked at.
               WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested')
               GROUP BY pool, caller"#
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
            queued_in_all: queued.iter().map(|row| to_u64(row.all)).sum(),
            queued: queued.into_iter().map(|row| ((row.pool, row.priority), to_u64(row.due))).collect(),
            active: active.into_iter().map(|row| ((row.pool, row.caller), to_u64(row.runs))).collect(),
            worker_seen_at,
            now,
        })
    }

    /// What bears on why each of these runs does not run. Those that have ended are left out. `caller_limit` is what this service allows
    /// one caller.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn waiting(
        &self,
        runs: &[Uuid],
        caller_limit: Option<u32>,
    ) -> Result<BTreeMap<RunId, Waiting>, StorageError> {
        // Each part is put together by itself: whatever the planner thinks of their sizes, none is gone through for every run.
        let rows = sqlx::query_as!(
            WaitingRow,
            r#"WITH asked AS MATERIALIZED (
                   SELECT runs.id, status, compute_target, pool, caller, node, queued_at, waits_for, waits_since, next_step_at,
                          lease_expires_at, coalesce((target.backend->>'max_concurrent_runs')::bigint, target.default_limit) AS "limit",
                          reachable, health_since, health_detail
                   FROM runs
                   JOIN compute_targets AS target ON target.name = runs.compute_target
                   WHERE runs.id = ANY ($1) AND status NOT IN ('Completed', 'Failed', 'Canceled')
               ), active AS MATERIALIZED (
                   SELECT pool, caller, count(*) AS runs FROM runs
                   JOIN compute_targets ON compute_targets.name = runs.compute_target
                   WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested')
                     -- Who else is there is of interest to those in the queue, and costs as much as there are.
                     AND EXISTS (SELECT FROM asked WHERE status = 'Queued')
                   GROUP BY pool, caller
               ), ranked AS MATERIALIZED (
                   SELECT id, ahead FROM (
                       -- What waits for its next attempt goes before nobody.
                       SELECT id, row_number() OVER (PARTITION BY pool ORDER BY priority DESC, runs.created_at, id) - 1 AS ahead
                       FROM runs JOIN compute_targets ON compute_targets.name = runs.compute_target
                       WHERE status = 'Queued' AND next_step_at <= now() AND pool IN (SELECT pool FROM asked WHERE status = 'Queued')
                   ) AS queue
                   WHERE id = ANY ($1)
               )
               SELECT asked.id AS "id!", status AS "status!", compute_target AS "compute_target!", caller AS "caller!", node,
                      queued_at, waits_for, waits_since,
                      (SELECT max(occurred_at) FROM run_events WHERE run_id = asked.id AND kind = 'status') AS status_since,
                      CASE WHEN next_step_at > now() THEN next_step_at END AS not_before,
                      lease_expires_at <= now() AS "is_unheld!",
                      CASE WHEN isfinite(lease_expires_at) THEN lease_expires_at END AS lease_expires_at,
                      coalesce((SELECT sum(runs) FROM active WHERE active.pool = asked.pool), 0)::bigint AS "active!",
                      coalesce(ahead, 0) AS "ahead!",
                      coalesce((SELECT sum(runs) FROM active WHERE active.caller = asked.caller), 0)::bigint AS "of_caller!",
                      "limit", reachable, health_since, health_detail,
                      (SELECT max(worker_seen_at) FROM compute_targets) AS worker_seen_at, now() AS "now!"
               FROM asked LEFT JOIN ranked ON ranked.id = asked.id"#,
            &as_expected(runs.to_vec()),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| row.waiting(caller_limit)).collect()
    }

    /// The same of each run that has not ended, but for since when it is in its status.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn all_waiting(
        &self,
        caller_limit: Option<u32>,
    ) -> Result<BTreeMap<RunId, Waiting>, StorageError> {
        let rows = sqlx::query_as!(
            WaitingRow,
            r#"SELECT id, status, compute_target, caller, node, queued_at, waits_for, waits_since, NULL::timestamptz AS status_since,
                      CASE WHEN next_step_at > now() THEN next_step_at END AS not_before,
                      lease_expires_at <= now() AS "is_unheld!",
                      CASE WHEN isfinite(lease_expires_at) THEN lease_expires_at END AS lease_expires_at,
                      active AS "active!",
                      CASE WHEN status = 'Queued' AND next_step_at <= now() THEN place - 1 ELSE 0 END AS "ahead!",
                      of_caller AS "of_caller!", "limit", reachable AS "reachable?", health_since, health_detail,
                      (SELECT max(worker_seen_at) FROM compute_targets) AS worker_seen_at, now() AS "now!"
               FROM (
                   SELECT runs.id, status, compute_target, caller, node, queued_at, waits_for, waits_since, next_step_at,
                          lease_expires_at, reachable, health_since, health_detail,
                          coalesce((target.backend->>'max_concurrent_runs')::bigint, target.default_limit) AS "limit",
                          -- What waits for its next attempt goes before nobody.
                          count(*) FILTER (WHERE status = 'Queued' AND next_step_at <= now())
                              OVER (PARTITION BY pool ORDER BY priority DESC, runs.created_at, runs.id ROWS UNBOUNDED PRECEDING) AS place,
                          count(*) FILTER (WHERE status <> 'Queued') OVER (PARTITION BY pool) AS active,
                          count(*) FILTER (WHERE status <> 'Queued') OVER (PARTITION BY caller) AS of_caller
                   FROM runs
                   JOIN compute_targets AS target ON target.name = runs.compute_target
                   WHERE status NOT IN ('Completed', 'Failed', 'Canceled')
               ) AS live"#,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(|row| row.waiting(caller_limit)).collect()
    }
}

struct WaitingRow {
    id: Uuid,
    status: String,
    compute_target: String,
    caller: String,
    node: Option<String>,
    queued_at: Option<DateTime<Utc>>,
    waits_for: Option<String>,
    waits_since: Option<DateTime<Utc>>,
    status_since: Option<DateTime<Utc>>,
    not_before: Option<DateTime<Utc>>,
    is_unheld: bool,
    lease_expires_at: Option<DateTime<Utc>>,
    active: i64,
    ahead: i64,
    of_caller: i64,
    limit: Option<i64>,
    reachable: Option<bool>,
    health_since: Option<DateTime<Utc>>,
    health_detail: Option<String>,
    worker_seen_at: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
}

impl WaitingRow {
    fn waiting(self, caller_limit: Option<u32>) -> Result<(RunId, Waiting), StorageError> {
        let bad = |e| StorageError::inconsistent("runs", "status", self.id, e);
        let unreachable = match (self.reachable, self.health_since) {
            (Some(false), Some(since)) => Some((self.health_detail.unwrap_or_default(), since)),
            _ => None,
        };
        let node_away = match (self.node, self.is_unheld) {
            (Some(node), true) => {
                Some((node, self.lease_expires_at.or(self.status_since).unwrap_or(self.now)))
            }
            _ => None,
        };
        let waiting = Waiting {
            status: self.status.parse().map_err(bad)?,
            status_since: self.status_since,
            compute_target: self.compute_target,
            active: to_u64(self.active),
            limit: self.limit.and_then(|limit| u32::try_from(limit).ok()),
            ahead: to_u64(self.ahead),
            caller: (self.caller, to_u64(self.of_caller)),
            caller_limit,
            queued_at: self.queued_at,
            not_before: self.not_before,
            waits_for: self.waits_for.zip(self.waits_since),
            unreachable,
            node_away,
            worker_seen_at: self.worker_seen_at,
            now: self.now,
        };
        Ok((RunId::from_uuid(self.id), waiting))
    }
}
