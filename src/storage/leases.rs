//! Who works on a run. A lease is a token with an expiry; the database's clock decides, and every write of a worker
//! carries the token, so that one whose lease was taken over can change nothing any more.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    Storage, StorageError, events,
    runs::{Row, Run},
};
use crate::domain::{
    compute_target::{Backend, DEFAULT_CLUSTER_LIMIT, Engine},
    finding::Finding,
    ids::RunId,
    plan::Plan,
};

/// The right to write to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The run.
    pub run_id: RunId,
    /// The fence: only writes with this token count.
    pub token: Uuid,
}

/// Who asks for work, and on what terms.
#[derive(Clone, Debug)]
pub struct Claimant {
    /// Names the worker node: stable across restarts on one data directory, unique among data directories.
    pub node: String,
    /// The name of the machine that it is on.
    pub host: String,
    /// How long a lease lasts unless it is renewed.
    pub ttl: Duration,
    /// Active runs on a target that sets no limit of its own.
    pub default_target_limit: u32,
    /// Active runs that one caller may have; any number when none.
    pub caller_limit: Option<u32>,
}

/// Who of the queue goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The highest priority, then the oldest.
    Priority,
    /// The oldest: used now and then, so that nobody waits for ever behind others that keep coming.
    Age,
}

/// A run that was claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The right to write to it.
    pub lease: Lease,
    /// What it is.
    pub run: Run,
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The lease that goes on.
    pub run_id: RunId,
    /// Whether somebody asked for the run's end.
    pub cancel_requested: bool,
}

/// The order in which advisory locks are taken is nobody's business but this file's: one number per purpose.
const ADMISSION_LOCK: i64 = 0x6573_7469_6d01;

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!("the feature `sabotage` is for tests: nobody runs a service without a fence");

/// The token of every claim: a fresh one of the database's. The feature `sabotage`, of tests only, gives every claim the same and so
/// breaks the fence; `tests/simulation` must find that.
const TOKEN_OF_EVERY_CLAIM: Option<Uuid> = if cfg!(feature = "sabotage") { Some(Uuid::nil()) } else { None };

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
        if !free {
            return Ok(Vec::new());
        }
        let rows = sqlx::query_as!(
            Row,
            r#"WITH active AS (
                   SELECT pool, count(*) AS runs FROM runs
                   JOIN compute_targets ON compute_targets.name = runs.compute_target
                   WHERE status NOT IN ('Queued', 'Completed', 'Failed', 'Canceled') GROUP BY pool
               ), callers AS (
                   SELECT caller, count(*) AS runs FROM runs
                   WHERE status NOT IN ('Queued', 'Completed', 'Failed', 'Canceled') GROUP BY caller
               ), targets AS (
                   SELECT name, pool, backend,
                          coalesce((backend->>'max_concurrent_runs')::bigint,
                                   CASE WHEN backend->>'kind' = 'process' THEN $3::bigint ELSE $5::bigint END)
                              - coalesce(active.runs, 0) AS places
                   FROM compute_targets LEFT JOIN active USING (pool)
               ), due AS (
                   -- Who waits for a full target takes no place of the caller's from those who need not.
                   SELECT runs.id, pool, targets.backend, places, CASE WHEN $8 THEN 0 ELSE priority END AS rank, created_at,
                          coalesce(callers.runs, 0) AS of_caller,
                          row_number() OVER (PARTITION BY runs.caller
                                             ORDER BY CASE WHEN $8 THEN 0 ELSE priority END DESC, created_at, id) AS place_of_caller
                   FROM runs JOIN targets ON targets.name = runs.compute_target
                   LEFT JOIN callers ON callers.caller = runs.caller
                   WHERE status = 'Queued' AND next_step_at <= now() AND places > 0
                     AND (queue_deadline IS NULL OR queue_deadline > now())
               ), ranked AS (
                   SELECT *, row_number() OVER (PARTITION BY pool ORDER BY rank DESC, created_at, id) AS place
                   FROM due WHERE $7::bigint IS NULL OR place_of_caller <= $7 - of_caller
               ), admitted AS (
                   SELECT id, backend AS target_backend FROM ranked WHERE place <= places
                   ORDER BY rank DESC, created_at, id LIMIT $4
               )
               UPDATE runs SET
                   status = CASE WHEN plan->'one_off_target' IS NULL THEN 'Preparing' ELSE 'Provisioning' END, attempt = attempt + 1, detail = NULL, exit_code = NULL, signal = NULL,
                   lease_token = coalesce($6, gen_random_uuid()), lease_owner = $1,
                   lease_expires_at = now() + make_interval(secs => $2),
                   -- Processes can be watched where they were started only, jobs of a cluster from everywhere.
                   node = CASE WHEN runs.backend->>'kind' = 'process' THEN $1::text END, next_step_at = '-infinity', event_count = event_count + 1
               FROM admitted WHERE runs.id = admitted.id AND runs.status = 'Queued'
               RETURNING runs.id, experiment_name, display_name, estimator_id, compute_target,
                   backend AS "backend: Json<Backend>",
                   definition::text AS "definition!", findings AS "findings: Json<Vec<Finding>>",
                   plan AS "plan: Json<Plan>", actual_environment AS "actual_environment: Json<Value>",
                   tags AS "tags: Json<BTreeMap<String, String>>", priority, max_attempts, status, cause, detail,
                   exit_code, signal, attempt, created_at, started_at, finished_at, cancel_requested_at, stop_sent_at,
                      cancel_evidence, retry_on, queued_at, max_queue_duration_seconds, project, caller, rerun_of"#,
            claimant.node,
            claimant.ttl.as_secs_f64(),
            i64::from(claimant.default_target_limit),
            i64::from(room),
            i64::from(DEFAULT_CLUSTER_LIMIT),
            TOKEN_OF_EVERY_CLAIM,
            claimant.caller_limit.map(i64::from),
            order == Order::Age,
        )
        .fetch_all(&mut *tx)
        .await?;
        let runs: Vec<Run> = rows.into_iter().map(Run::try_from).collect::<Result<_, _>>()?;
        let claimed = begin_attempts(&mut tx, claimant, runs, now).await?;
        tx.commit().await?;
        Ok(claimed)
    }

    /// Takes over active runs whose lease has ended and which this node can reach; `room` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn adopt_runs(&self, claimant: &Claimant, room: u32) -> Result<Vec<Claimed>, StorageError> {
        let rows = sqlx::query!(
            r#"UPDATE runs SET lease_token = coalesce($4, gen_random_uuid()), lease_owner = $1,
                               lease_expires_at = now() + make_interval(secs => $2)
               WHERE id IN (
                   SELECT id FROM runs
                   WHERE status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing',
                                    'CancelRequested')
                     AND lease_expires_at <= now() AND next_step_at <= now() AND (node IS NULL OR node = $1)
                   ORDER BY next_step_at LIMIT $3 FOR UPDATE SKIP LOCKED
               ) RETURNING id, lease_token AS "token!""#,
            claimant.node,
            claimant.ttl.as_secs_f64(),
            i64::from(room),
            TOKEN_OF_EVERY_CLAIM,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut claimed = Vec::with_capacity(rows.len());
        for row in rows {
            let run_id = RunId::from_uuid(row.id);
            if let Some(run) = self.get_run(run_id).await? {
                claimed.push(Claimed { lease: Lease { run_id, token: row.token }, run });
            }
        }
        Ok(claimed)
    }

    /// Renews leases, all in one statement. Those missing in the answer are lost.
    ///
    /// # Errors
    /// When the database fails; nothing was renewed then.
    pub async fn renew_leases(&self, leases: &[Lease], ttl: Duration) -> Result<Vec<Renewed>, StorageError> {
        let ids: Vec<Uuid> = leases.iter().map(|l| l.run_id.as_uuid()).collect();
        let tokens: Vec<Uuid> = leases.iter().map(|l| l.token).collect();
        let rows = sqlx::query!(
            r#"WITH held AS MATERIALIZED (
                   -- In the order in which moves lock them too: nobody waits for whom he keeps waiting.
                   SELECT runs.id FROM runs
                   JOIN unnest($1::uuid[], $2::uuid[]) AS held (id, token) ON runs.id = held.id AND runs.lease_token = held.token
                   ORDER BY runs.id FOR NO KEY UPDATE OF runs
               )
               UPDATE runs SET lease_expires_at = now() + make_interval(secs => $3) FROM held WHERE runs.id = held.id
               RETURNING runs.id AS "id!", cancel_requested_at IS NOT NULL AS "cancel_requested!""#,
            &ids,
            &tokens,
            ttl.as_secs_f64(),
        )
        .fetch_all(&self.pool)
        .await?;
        let renewed = rows
            .into_iter()
            .map(|row| Renewed { run_id: RunId::from_uuid(row.id), cancel_requested: row.cancel_requested });
        Ok(renewed.collect())
    }

    /// Gives a lease back; the run is due again after `pause`.
    ///
    /// # Errors
    /// When the database fails; the lease then ends by itself.
    pub async fn release_lease(&self, lease: &Lease, pause: Duration) -> Result<(), StorageError> {
        sqlx::query!(
            "UPDATE runs SET lease_token = NULL, lease_owner = NULL, lease_expires_at = '-infinity',
                             next_step_at = now() + make_interval(secs => $3)
             WHERE id = $1 AND lease_token = $2",
            lease.run_id.as_uuid(),
            lease.token,
            pause.as_secs_f64(),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Gives back every lease of a node at once. Only the node itself may ask, at its start: the lock on its data
    /// directory proves that whoever held them before is dead.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn release_leases_of(&self, node: &str) -> Result<u64, StorageError> {
        let result = sqlx::query!(
            "UPDATE runs SET lease_token = NULL, lease_owner = NULL, lease_expires_at = '-infinity'
             WHERE lease_owner = $1 AND lease_token IS NOT NULL",
            node
        )
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected())
    }

    /// Seconds until a lease ends by the database's clock; negative when it has, `None` when the token is not current.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lease_remaining(&self, lease: &Lease) -> Result<Option<f64>, StorageError> {
        let remaining = sqlx::query_scalar!(
            r#"SELECT extract(epoch FROM lease_expires_at - now())::float8 AS "remaining!"
               FROM runs WHERE id = $1 AND lease_token = $2"#,
            lease.run_id.as_uuid(),
            lease.token,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(remaining)
    }
}

/// Gives runs that were just admitted their attempts, and tells so in their histories.
async fn begin_attempts(
    connection: &mut PgConnection,
    claimant: &Claimant,
    runs: Vec<Run>,
    now: DateTime<Utc>,
) -> Result<Vec<Claimed>, StorageError> {
    if runs.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Uuid> = runs.iter().map(|run| run.id.as_uuid()).collect();
    let held = sqlx::query!(
        r#"SELECT lease_token AS "token!", event_count FROM unnest($1::uuid[]) WITH ORDINALITY AS wanted (id, place)
           JOIN runs ON runs.id = wanted.id ORDER BY place"#,
        &ids,
    )
    .fetch_all(&mut *connection)
    .await?;
    // Where a cluster runs it is the cluster's to say.
    let host = |run: &Run| (run.backend.engine == Engine::Process).then(|| claimant.host.clone());
    sqlx::query!(
        "INSERT INTO run_attempts (run_id, number, node, host, created_at)
         SELECT id, number, $4, host, $5 FROM unnest($1::uuid[], $2::integer[], $3::text[]) AS new (id, number, host)",
        &ids,
        &runs.iter().map(|run| attempt_number(run.attempt)).collect::<Vec<_>>(),
        &runs.iter().map(host).collect::<Vec<_>>() as _,
        claimant.node,
        now,
    )
    .execute(&mut *connection)
    .await?;
    let event = |(run, event_count): (&Run, i64)| {
        events::NewEvent::status(run.id, event_count, now, run.attempt, run.status)
    };
    let events: Vec<_> = runs.iter().zip(held.iter().map(|row| row.event_count)).map(event).collect();
    events::append_all(connection, &events).await?;
    let claimed = runs
        .into_iter()
        .zip(held)
        .map(|(run, row)| Claimed { lease: Lease { run_id: run.id, token: row.token }, run });
    Ok(claimed.collect())
}

/// Keeps the conversion in one place for the files of this module.
pub(in crate::storage) fn attempt_number(attempt: u32) -> i32 {
    i32::try_from(attempt).unwrap_or(i32::MAX)
}
