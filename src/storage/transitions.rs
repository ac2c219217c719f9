//! A worker's writes. Each says which token it holds and which status it starts from, and must hit one row.

use chrono::{DateTime, Utc};

use super::{
    Storage, StorageError,
    error::json_text,
    events,
    leases::{Lease, attempt_number},
    snapshots::to_i64,
};
use crate::domain::run::{Cause, Move, Status};

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
        let (status, ending, keeps_lease) = match step {
            Move::To { status, .. } => (*status, None, true),
            Move::End { status, ending } => (*status, Some(ending), false),
            Move::Requeue { ending, .. } => (Status::Queued, Some(ending), false),
        };
        let (detail, started_at, environment) = match step {
            Move::To { detail, started_at, actual_environment, .. } => {
                (detail.as_ref(), *started_at, actual_environment.as_ref())
            }
            Move::End { ending, .. } | Move::Requeue { ending, .. } => {
                (ending.detail.as_ref(), ending.started_at, None)
            }
        };
        let environment = environment.map(json_text).transpose()?;
        let terminal = status.is_terminal();
        let delay = match step {
            Move::Requeue { delay, .. } => delay.to_std().unwrap_or_default().as_secs_f64(),
            Move::To { .. } | Move::End { .. } => 0.0,
        };
        // A requeued run carries no cause: it has not ended. Its attempt does.
        let run_cause = if terminal { ending.and_then(|e| e.cause) } else { None };

        // The backend's word, where it has one: the service may have been away when the processes ended.
        let finished_at = ending.and_then(|e| e.finished_at).unwrap_or(now);

        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            "UPDATE runs SET
                 status = $4, cause = $5, waits_for = NULL,
                 -- What was said of an earlier status is not true of this one.
                 detail = $6,
                 exit_code = CASE WHEN $15 THEN $7 ELSE exit_code END, signal = CASE WHEN $15 THEN $8 ELSE signal END,
                 started_at = coalesce(started_at, $9), finished_at = CASE WHEN $10 THEN $11::timestamptz END,
                 actual_environment = coalesce($12::text::json, actual_environment),
                 -- Clocks of workers differ; when something is due is decided by one.
                 next_step_at = now() + make_interval(secs => $13),
                 queued_at = CASE WHEN $4 = 'Queued' THEN $16::timestamptz ELSE queued_at END,
                 -- Before its delay is over nothing could have started it.
                 queue_deadline = CASE WHEN $4 = 'Queued' THEN now() + make_interval(secs => coalesce($13, 0) + max_queue_duration_seconds::float8)
                                       ELSE queue_deadline END,
                 cancel_evidence = coalesce($17, cancel_evidence), waits_since = NULL,
                 lease_token = CASE WHEN $14 THEN lease_token END,
                 lease_owner = CASE WHEN $14 THEN lease_owner END,
                 lease_expires_at = CASE WHEN $14 THEN lease_expires_at ELSE '-infinity' END,
                 node = CASE WHEN $4 = 'Queued' THEN NULL ELSE node END,
                 event_count = event_count + 1
             WHERE id = $1 AND lease_token = $2 AND status = $3
             RETURNING event_count, attempt",
            lease.run_id.as_uuid(),
            lease.token,
            from.as_str(),
            status.as_str(),
            run_cause.map(Cause::as_str),
            detail,
            ending.and_then(|e| e.exit_code),
            ending.and_then(|e| e.signal),
            started_at,
            terminal,
            finished_at,
            environment.as_deref(),
            delay,
            keeps_lease,
            ending.is_some(),
            now,
            ending.and_then(|e| e.evidence.as_deref()),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            tx.rollback().await?;
            // An end takes the lease with it: one that is there already was written by us, and the answer did not come.
            return self.why_not_written(lease, terminal.then_some(status)).await;
        };
        let event = events::NewEvent {
            cause: ending.and_then(|e| e.cause),
            detail: detail.cloned(),
            ..events::NewEvent::status(
                lease.run_id,
                row.event_count,
                now,
                u32::try_from(row.attempt).unwrap_or(0),
                status,
            )
        };
        events::append(&mut tx, &event).await?;
        if let Some(started_at) = started_at {
            sqlx::query!(
                "UPDATE run_attempts SET started_at = coalesce(started_at, $3) WHERE run_id = $1 AND number = $2",
                lease.run_id.as_uuid(),
                row.attempt,
                started_at,
            )
            .execute(&mut *tx)
            .await?;
        }
        if let Some(ending) = ending {
            sqlx::query!(
                "UPDATE run_attempts SET finished_at = $3, cause = $4, detail = $5, exit_code = $6, signal = $7,
                                         cpu_seconds = $8, peak_memory_bytes = $9
                 WHERE run_id = $1 AND number = $2",
                lease.run_id.as_uuid(),
                row.attempt,
                finished_at,
                ending.cause.map(Cause::as_str),
                ending.detail,
                ending.exit_code,
                ending.signal,
                ending.cpu_seconds,
                ending.peak_memory_bytes.map(to_i64),
            )
            .execute(&mut *tx)
            .await?;
            // A place on the target is free.
            super::notifications::notify(&mut tx).await?;
        }
        tx.commit().await?;
        Ok(Written::Done)
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
            return self.why_not_written(lease, None).await;
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
            return self.why_not_written(lease, None).await;
        };
        let said = "the backend took the order to end it; its processes have their grace";
        let event = noted(lease, (row.event_count, row.attempt, &row.status), "stop_sent", said, now)?;
        events::append(&mut tx, &event).await?;
        tx.commit().await?;
        Ok(Written::Done)
    }

    async fn why_not_written(&self, lease: &Lease, ended: Option<Status>) -> Result<Written, StorageError> {
        let status = sqlx::query_scalar!(
            "SELECT status FROM runs WHERE id = $1 AND (lease_token = $2 OR (lease_token IS NULL AND status = $3))",
            lease.run_id.as_uuid(),
            lease.token,
            ended.map(Status::as_str),
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
