//! Giving queued runs their places on targets: the highest priority first, or the oldest, as many as limits leave free.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    Storage, StorageError,
    leases::{Claimant, Claimed, Lease, TOKEN_OF_EVERY_CLAIM},
    runs::{Row, Run},
};
use crate::domain::{
    compute_target::{Backend, DEFAULT_CLUSTER_LIMIT},
    finding::Finding,
    plan::Plan,
};

/// Who of the queue goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The highest priority, then the oldest.
    Priority,
    /// The oldest: used now and then, so that nobody waits for ever behind others that keep coming.
    Age,
}

/// The order in which advisory locks are taken is nobody's business but this file's: one number per purpose.
const ADMISSION_LOCK: i64 = 0x6573_7469_6d01;

impl Storage {
    /// Gives queued runs their places: as many per target as its limit leaves free, and per caller as the claimant's
    /// limit does; `room` at most. Each becomes `Preparing`, gets its next attempt and a lease.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn admit_runs(
        &self,
        claimant: &Claimant,
        order: Order,
        room: u32,
        now: DateTime<Utc>,
    ) -> Result<Vec<Claimed>, StorageError> {
        let mut tx = self.pool.begin().await?;
        // Counting and admitting must be one thing, or two workers would both see the last free place. Whoever does
        // not get the lock need not wait: the other one is admitting right now.
        let free = sqlx::query_scalar!(r#"SELECT pg_try_advisory_xact_lock($1) AS "free!""#, ADMISSION_LOCK)
            .fetch_one(&mut *tx)
            .await?;
        let chosen = match claimant.caller_limit {
            _ if !free => Vec::new(),
            None => choose(&mut tx, claimant, order, room).await?,
            Some(limit) => choose_within(&mut tx, claimant, limit, order, room).await?,
        };
        let admitted =
            if chosen.is_empty() { Vec::new() } else { admit(&mut tx, claimant, &chosen, now).await? };
        // Also when there is nothing to write: a transaction that is only dropped ends when its connection is next used, and keeps
        // the lock until then.
        tx.commit().await?;
        Ok(admitted)
    }
}

/// The first of every target's queue. What is read grows with the places that are free, and not with the queue.
async fn choose(
    connection: &mut PgConnection,
    claimant: &Claimant,
    order: Order,
    room: u32,
) -> Result<Vec<Uuid>, StorageError> {
    let chosen = sqlx::query_scalar!(
        r#"WITH active AS (
               SELECT pool, count(*) AS runs FROM runs
               JOIN compute_targets ON compute_targets.name = runs.compute_target
               WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested')
               GROUP BY pool
           ), targets AS (
               SELECT name, pool,
                      coalesce((backend->>'max_concurrent_runs')::bigint,
                               CASE WHEN backend->>'kind' = 'process' THEN $1::bigint ELSE $2::bigint END)
                          - coalesce(active.runs, 0) AS places
               FROM compute_targets LEFT JOIN active USING (pool)
           ), ranked AS (
               SELECT first.*, places,
                      row_number() OVER (PARTITION BY pool ORDER BY rank DESC, created_at, id) AS place
               FROM targets CROSS JOIN LATERAL (
                   (SELECT id, priority AS rank, created_at FROM runs
                    WHERE NOT $4 AND compute_target = name AND status = 'Queued' AND next_step_at <= now()
                      AND (queue_deadline IS NULL OR queue_deadline > now())
                    ORDER BY priority DESC, created_at, id LIMIT least(places, $3))
                   UNION ALL
                   (SELECT id, 0 AS rank, created_at FROM runs
                    WHERE $4 AND compute_target = name AND status = 'Queued' AND next_step_at <= now()
                      AND (queue_deadline IS NULL OR queue_deadline > now())
                    ORDER BY created_at, id LIMIT least(places, $3))
               ) AS first
               WHERE places > 0
           )
           SELECT id AS "id!" FROM ranked WHERE place <= places ORDER BY rank DESC, created_at, id LIMIT $3"#,
        i64::from(claimant.default_target_limit),
        i64::from(DEFAULT_CLUSTER_LIMIT),
        i64::from(room),
        order == Order::Age,
    )
    .fetch_all(connection)
    .await?;
    Ok(chosen)
}

/// The same where every caller may have so many active runs and no more. How many of a caller's are ahead of a run is known only
/// once the whole queue was looked at.
async fn choose_within(
    connection: &mut PgConnection,
    claimant: &Claimant,
    caller_limit: u32,
    order: Order,
    room: u32,
) -> Result<Vec<Uuid>, StorageError> {
    let chosen = sqlx::query_scalar!(
        r#"WITH active AS (
               SELECT pool, count(*) AS runs FROM runs
               JOIN compute_targets ON compute_targets.name = runs.compute_target
               WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested')
               GROUP BY pool
           ), callers AS (
               SELECT caller, count(*) AS runs FROM runs
               WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested')
               GROUP BY caller
           ), targets AS (
               SELECT name, pool,
                      coalesce((backend->>'max_concurrent_runs')::bigint,
                               CASE WHEN backend->>'kind' = 'process' THEN $1::bigint ELSE $2::bigint END)
                          - coalesce(active.runs, 0) AS places
               FROM compute_targets LEFT JOIN active USING (pool)
           ), due AS (
               -- Who waits for a full target takes no place of the caller's from those who need not.
               SELECT runs.id, pool, places, CASE WHEN $4 THEN 0 ELSE priority END AS rank, created_at,
                      coalesce(callers.runs, 0) AS of_caller,
                      row_number() OVER (PARTITION BY runs.caller
                                         ORDER BY CASE WHEN $4 THEN 0 ELSE priority END DESC, created_at, id) AS place_of_caller
               FROM runs JOIN targets ON targets.name = runs.compute_target
               LEFT JOIN callers ON callers.caller = runs.caller
               WHERE status = 'Queued' AND next_step_at <= now() AND places > 0
                 AND (queue_deadline IS NULL OR queue_deadline > now())
           ), ranked AS (
               SELECT *, row_number() OVER (PARTITION BY pool ORDER BY rank DESC, created_at, id) AS place
               FROM due WHERE place_of_caller <= $5 - of_caller
           )
           SELECT id AS "id!" FROM ranked WHERE place <= places ORDER BY rank DESC, created_at, id LIMIT $3"#,
        i64::from(claimant.default_target_limit),
        i64::from(DEFAULT_CLUSTER_LIMIT),
        i64::from(room),
        order == Order::Age,
        i64::from(caller_limit),
    )
    .fetch_all(connection)
    .await?;
    Ok(chosen)
}

/// Admits those of the chosen that are still queued: with their attempts, and their histories' word of it.
async fn admit(
    connection: &mut PgConnection,
    claimant: &Claimant,
    chosen: &[Uuid],
    now: DateTime<Utc>,
) -> Result<Vec<Claimed>, StorageError> {
    let tokens: Vec<Uuid> =
        chosen.iter().map(|_| TOKEN_OF_EVERY_CLAIM.unwrap_or_else(Uuid::new_v4)).collect();
    let rows = sqlx::query_as!(
        Row,
        r#"WITH admitted AS (
               UPDATE runs SET
                   status = CASE WHEN plan->'one_off_target' IS NULL THEN 'Preparing' ELSE 'Provisioning' END,
                   attempt = attempt + 1, detail = NULL, exit_code = NULL, signal = NULL,
                   lease_token = chosen.token, lease_owner = $3, lease_expires_at = now() + make_interval(secs => $4),
                   -- Processes can be watched where they were started only, jobs of a cluster from everywhere.
                   node = CASE WHEN backend->>'kind' = 'process' THEN $3 END, next_step_at = '-infinity',
                   event_count = event_count + 1
               FROM unnest($1::uuid[], $2::uuid[]) AS chosen (chosen_id, token)
               WHERE runs.id = chosen.chosen_id AND runs.status = 'Queued'
               RETURNING runs.*
           ), attempts AS (
               INSERT INTO run_attempts (run_id, number, node, host, created_at)
               -- Where a cluster runs it is the cluster's to say.
               SELECT id, attempt, $3, CASE WHEN backend->>'kind' = 'process' THEN $5 END, $6 FROM admitted
           ), events AS (
               INSERT INTO run_events (run_id, sequence, occurred_at, attempt, kind, status)
               SELECT id, event_count, $6, attempt, 'status', status FROM admitted
           )
           SELECT id AS "id!", experiment_name AS "experiment_name!", display_name, estimator_id AS "estimator_id!",
               compute_target AS "compute_target!", backend AS "backend!: Json<Backend>",
               definition::text AS "definition!", findings AS "findings!: Json<Vec<Finding>>",
               plan AS "plan!: Json<Plan>", actual_environment AS "actual_environment: Json<Value>",
               tags AS "tags!: Json<BTreeMap<String, String>>", priority AS "priority!", max_attempts AS "max_attempts!",
               status AS "status!", cause, detail, exit_code, signal, attempt AS "attempt!", created_at AS "created_at!",
               started_at, finished_at, cancel_requested_at, stop_sent_at, cancel_evidence, retry_on AS "retry_on!", queued_at,
               max_queue_duration_seconds, project AS "project!", caller AS "caller!", rerun_of
           FROM admitted"#,
        chosen,
        &tokens,
        claimant.node,
        claimant.ttl.as_secs_f64(),
        claimant.host,
        now,
    )
    .fetch_all(connection)
    .await?;
    let places: HashMap<Uuid, usize> = chosen.iter().copied().zip(0..).collect();
    let mut admitted = Vec::with_capacity(rows.len());
    for row in rows {
        let run = Run::try_from(row)?;
        let place = places.get(&run.id.as_uuid()).copied().unwrap_or(usize::MAX);
        admitted.push((place, run));
    }
    // As they were chosen: whoever goes first is begun first.
    admitted.sort_unstable_by_key(|(place, _)| *place);
    let claimed = admitted.into_iter().filter_map(|(place, run)| {
        let lease = Lease { run_id: run.id, token: *tokens.get(place)? };
        Some(Claimed { lease, run, is_adopted: false })
    });
    Ok(claimed.collect())
}
