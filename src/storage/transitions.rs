//! A worker's writes. Each says which token it holds and which status it starts from, and must hit one row.

use chrono::{DateTime, Utc};

use super::{
    Storage, StorageError, events,
    leases::{Lease, attempt_number},
    moves::Transition,
    snapshots::to_i64,
};
use crate::domain::run::{Move, Status};

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is durable.
    Done,
    /// The lease still holds, but the run is in another status: somebody asked for its end meanwhile.
    StatusIs(Status),
    /// Somebody else holds the run; whatever this worker was about to do is dropped.
    LeaseLost,
}

/// An event that changes no status. The run is at this number of events, in this attempt, in this status.
fn noted(
    lease: &Lease,
    (number, attempt, status): (i64, i32, &str),
    kind: &'static str,
    detail: &str,
    now: DateTime<Utc>,
) -> Result<events::NewEvent, StorageError> {
    let status = status.parse().map_err(|e| StorageError::inconsistent("runs", "status", lease.run_id, e))?;
    let attempt = u32::try_from(attempt).unwrap_or(0);
    Ok(events::NewEvent {
        kind,
        detail: Some(detail.to_owned()),
        ..events::NewEvent::status(lease.run_id, number, now, attempt, status)
    })
}

impl Storage {
    /// Writes a move that starts from `from`.
    ///
    /// # Errors
    /// When the database fails. Whether the write happened is then not known; the same move can be tried again.
    pub async fn move_run(
        &self,
        lease: &Lease,
        from: Status,
        step: &Move,
        now: DateTime<Utc>,
    ) -> Result<Written, StorageError> {
        let transition = Transition { lease: *lease, from, steps: vec![step.clone()], now };
        let written = self.move_runs(std::slice::from_ref(&transition)).await?;
        Ok(written.first().copied().unwrap_or(Written::LeaseLost))
    }

    /// Adds an event that changes no status, e.g. what the environment differs in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_run_event(
        &self,
        lease: &Lease,
        kind: &'static str,
        detail: &str,
        now: DateTime<Utc>,
    ) -> Result<Written, StorageError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            "UPDATE runs SET event_count = event_count + 1 WHERE id = $1 AND lease_token = $2
             RETURNING event_count, attempt, status",
            lease.run_id.as_uuid(),
            lease.token,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            return Ok(Written::LeaseLost);
        };
        let event = noted(lease, (row.event_count, row.attempt, &row.status), kind, detail, now)?;
        events::append(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(Written::Done)
    }

    /// Records what a run waits for in a queue of the compute's own, and that it no longer does.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_wait(
        &self,
        lease: &Lease,
        reason: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Written, StorageError> {
        let mut tx = self.pool.begin().await?;
        // Who takes a run over finds again what is known already: that is no news.
        let row = sqlx::query!(
            "UPDATE runs SET waits_for = $3::text, waits_since = CASE WHEN $3::text IS NOT NULL THEN $4::timestamptz END,
                             event_count = event_count + CASE WHEN $3::text IS NULL THEN 0 ELSE 1 END
             WHERE id = $1 AND lease_token = $2 AND status = 'Starting' AND waits_for IS DISTINCT FROM $3::text
             RETURNING event_count, attempt, status",
            lease.run_id.as_uuid(),
            lease.token,
            reason,
            now,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            drop(tx);
            return self.why_not_written(lease).await;
        };
        if let Some(reason) = reason {
            let event = noted(lease, (row.event_count, row.attempt, &row.status), "waiting", reason, now)?;
            events::append(&mut tx, &event).await?;
        }
        tx.commit().await?;
        Ok(Written::Done)
    }

    /// Records that the backend took the order to end the run. Said again, it is no news.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_stop_sent(&self, lease: &Lease, now: DateTime<Utc>) -> Result<Written, StorageError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            "UPDATE runs SET stop_sent_at = $3, event_count = event_count + 1
             WHERE id = $1 AND lease_token = $2 AND status = 'CancelRequested' AND stop_sent_at IS NULL
             RETURNING event_count, attempt, status",
            lease.run_id.as_uuid(),
            lease.token,
            now,
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            drop(tx);
            return self.why_not_written(lease).await;
        };
        let said = "the backend took the order to end it; its processes have their grace";
        let event = noted(lease, (row.event_count, row.attempt, &row.status), "stop_sent", said, now)?;
        events::append(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(Written::Done)
    }

    async fn why_not_written(&self, lease: &Lease) -> Result<Written, StorageError> {
        let status = sqlx::query_scalar!(
            "SELECT status FROM runs WHERE id = $1 AND lease_token = $2",
            lease.run_id.as_uuid(),
            lease.token,
        )
        .fetch_optional(&self.pool)
        .await?;
        match status {
            None => Ok(Written::LeaseLost),
            Some(word) => {
                let status = word
                    .parse()
                    .map_err(|e| StorageError::inconsistent("runs", "status", lease.run_id, e))?;
                Ok(Written::StatusIs(status))
            }
        }
    }

    /// Records how much of a log file is in the artifact store.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_log(
        &self,
        lease: &Lease,
        attempt: u32,
        name: &str,
        bytes: u64,
        complete: bool,
    ) -> Result<Written, StorageError> {
        let result = sqlx::query!(
            "INSERT INTO run_logs (run_id, attempt, name, bytes, complete)
             SELECT id, $3, $4, $5, $6 FROM runs WHERE id = $1 AND lease_token = $2
             ON CONFLICT (run_id, attempt, name) DO UPDATE SET bytes = excluded.bytes, complete = excluded.complete",
            lease.run_id.as_uuid(),
            lease.token,
            attempt_number(attempt),
            name,
            to_i64(bytes),
            complete,
        )
        .execute(&self.pool)
        .await?;
        Ok(if result.rows_affected() == 1 { Written::Done } else { Written::LeaseLost })
    }

    /// Records an output that is in the artifact store.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_output(
        &self,
        lease: &Lease,
        attempt: u32,
        name: &str,
        bytes: u64,
        sha256: &str,
    ) -> Result<Written, StorageError> {
        let result = sqlx::query!(
            "INSERT INTO run_outputs (run_id, attempt, name, bytes, sha256)
             SELECT id, $3, $4, $5, $6 FROM runs WHERE id = $1 AND lease_token = $2
             ON CONFLICT (run_id, attempt, name) DO UPDATE SET bytes = excluded.bytes, sha256 = excluded.sha256",
            lease.run_id.as_uuid(),
            lease.token,
            attempt_number(attempt),
            name,
            to_i64(bytes),
            sha256,
        )
        .execute(&self.pool)
        .await?;
        Ok(if result.rows_affected() == 1 { Written::Done } else { Written::LeaseLost })
    }
}
