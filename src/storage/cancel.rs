//! The end of runs that no worker decides: somebody asks for it, or a run waited too long.

use chrono::{DateTime, Utc};

use super::{ProjectStorage, Storage, StorageError, events, runs::Run};
use crate::domain::{
    ids::RunId,
    run::{Cause, Status},
};

/// What became of a cancel.
#[derive(Clone, Debug, PartialEq)]
pub enum Cancellation {
    /// It had not started and is `Canceled`, or its end is under way (`CancelRequested`).
    Accepted(Box<Run>),
    /// It has ended.
    AlreadyTerminal(Status),
    /// There is no such run.
    NotFound,
}

impl ProjectStorage {
    /// Records the wish that a run end. One that has no place yet ends at once; for any other the wish is durable and the
    /// worker that holds it, or the next one, carries it out. Asking twice changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn cancel_run(&self, id: RunId, now: DateTime<Utc>) -> Result<Cancellation, StorageError> {
        let mut tx = self.pool.begin().await?;
        let Some(row) = sqlx::query!(
            "SELECT status, attempt FROM runs WHERE id = $1 AND project = $2 FOR UPDATE",
            id.as_uuid(),
            self.project.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?
        else {
            return Ok(Cancellation::NotFound);
        };
        let status: Status =
            row.status.parse().map_err(|e| StorageError::inconsistent("runs", "status", id, e))?;
        if status.is_terminal() {
            return Ok(Cancellation::AlreadyTerminal(status));
        }
        if status != Status::CancelRequested {
            let ended = status == Status::Queued;
            let next = if ended { Status::Canceled } else { Status::CancelRequested };
            let cause = ended.then_some(Cause::CanceledByUser);
            let sequence = sqlx::query_scalar!(
                // Whoever holds it now, or the next one, has to act on it at once.
                "UPDATE runs SET status = $2, cause = $3, cancel_requested_at = $4::timestamptz, next_step_at = '-infinity',
                                 waits_for = NULL, waits_since = NULL,
                                 cancel_evidence = CASE
                                     WHEN $5 AND attempt = 0 THEN 'it was in the queue: nothing of it was handed to a backend'
                                     WHEN $5 THEN 'it was in the queue between two attempts: of the one before nothing was left' END,
                                 finished_at = CASE WHEN $5 THEN $4::timestamptz END, event_count = event_count + 1
                 WHERE id = $1 RETURNING event_count",
                id.as_uuid(),
                next.as_str(),
                cause.map(Cause::as_str),
                now,
                ended,
            )
            .fetch_one(&mut *tx)
            .await?;
            let attempt = u32::try_from(row.attempt).unwrap_or(0);
            let detail = if ended { "canceled before it was started" } else { "somebody asked for its end" };
            let event = events::NewEvent {
                cause,
                detail: Some(detail.to_owned()),
                ..events::NewEvent::status(id, sequence, now, attempt, next)
            };
            events::append(&mut tx, &event).await?;
            super::notifications::notify(&mut tx, super::notifications::Hint::Cancel).await?;
        }
        tx.commit().await?;
        match self.get_run(id).await? {
            Some(run) => Ok(Cancellation::Accepted(Box::new(run))),
            None => Ok(Cancellation::NotFound),
        }
    }
}

impl Storage {
    /// Ends queued runs that have waited for longer than they may; `room` at most. The database's clock decides.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_queued_runs(&self, room: u32, now: DateTime<Utc>) -> Result<u64, StorageError> {
        let mut tx = self.pool.begin().await?;
        let rows = sqlx::query!(
            r#"UPDATE runs SET status = 'Canceled', cause = $2, detail = $3, finished_at = $4, event_count = event_count + 1
               WHERE id IN (
                   SELECT id FROM runs WHERE status = 'Queued' AND queue_deadline <= now()
                   ORDER BY queue_deadline LIMIT $1 FOR UPDATE SKIP LOCKED
               ) RETURNING id, event_count, attempt"#,
            i64::from(room),
            Cause::MaxQueueDurationExceeded.as_str(),
            QUEUED_TOO_LONG,
            now,
        )
        .fetch_all(&mut *tx)
        .await?;
        let expired = u64::try_from(rows.len()).unwrap_or(u64::MAX);
        for row in rows {
            let attempt = u32::try_from(row.attempt).unwrap_or(0);
            let event = events::NewEvent {
                cause: Some(Cause::MaxQueueDurationExceeded),
                detail: Some(QUEUED_TOO_LONG.to_owned()),
                ..events::NewEvent::status(
                    RunId::from_uuid(row.id),
                    row.event_count,
                    now,
                    attempt,
                    Status::Canceled,
                )
            };
            events::append(&mut tx, &event).await?;
        }
        tx.commit().await?;
        Ok(expired)
    }
}

/// What is said of a run that waited too long.
const QUEUED_TOO_LONG: &str = "waited in the queue for longer than max_queue_duration_seconds allows";
