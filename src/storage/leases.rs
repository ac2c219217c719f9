//! Who works on a run. A lease is a token with an expiry; the database's clock decides, and every write of a worker
//! carries the token, so that one whose lease was taken over can change nothing any more.

use std::time::Duration;

use uuid::Uuid;

use super::{Storage, StorageError, runs::Run};
use crate::domain::ids::RunId;

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

/// A run that was claimed.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The right to write to it.
    pub lease: Lease,
    /// What it is.
    pub run: Run,
    /// Whether another worker had it before, in this attempt.
    pub is_adopted: bool,
}

/// The answer to a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The lease that goes on.
    pub run_id: RunId,
    /// Whether somebody asked for the run's end.
    pub cancel_requested: bool,
}

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!("the feature `sabotage` is for tests: nobody runs a service without a fence");

/// The token of every claim: a fresh one of the database's. The feature `sabotage`, of tests only, gives every claim the same and so
/// breaks the fence; `tests/simulation` must find that.
pub(in crate::storage) const TOKEN_OF_EVERY_CLAIM: Option<Uuid> =
    if cfg!(feature = "sabotage") { Some(Uuid::nil()) } else { None };

impl Storage {
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
                claimed.push(Claimed { lease: Lease { run_id, token: row.token }, run, is_adopted: true });
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
             WHERE lease_owner = $1 AND lease_token IS NOT NULL
               AND status IN ('Provisioning', 'Preparing', 'Starting', 'Running', 'NotResponding', 'Finalizing', 'CancelRequested')",
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

/// Keeps the conversion in one place for the files of this module.
pub(in crate::storage) fn attempt_number(attempt: u32) -> i32 {
    i32::try_from(attempt).unwrap_or(i32::MAX)
}
