//! The append-only history of a run.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Storage, StorageError, snapshots::to_i64};
use crate::domain::{
    ids::RunId,
    run::{Cause, Status},
};

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// 1 for the first, without gaps.
    pub sequence: u64,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// In which attempt; 0 before the first.
    pub attempt: u32,
    /// `status` for a change of status, `environment` for what differs from what was asked, …
    pub kind: String,
    /// The status after it.
    pub status: Status,
    /// Why, for an end.
    pub cause: Option<Cause>,
    /// In words.
    pub detail: Option<String>,
}

pub(in crate::storage) struct NewEvent {
    pub run_id: RunId,
    pub sequence: i64,
    pub occurred_at: DateTime<Utc>,
    pub attempt: u32,
    pub kind: &'static str,
    pub status: Status,
    pub cause: Option<Cause>,
    pub detail: Option<String>,
}

impl NewEvent {
    pub(in crate::storage) const fn status(
        run_id: RunId,
        sequence: i64,
        occurred_at: DateTime<Utc>,
        attempt: u32,
        status: Status,
    ) -> Self {
        Self { run_id, sequence, occurred_at, attempt, kind: "status", status, cause: None, detail: None }
    }
}

/// Appends an event whose sequence number was taken from `runs.event_count` in the same transaction.
pub(in crate::storage) async fn append(
    connection: &mut PgConnection,
    event: &NewEvent,
) -> Result<(), StorageError> {
    append_all(connection, std::slice::from_ref(event)).await
}

/// Appends events, all in one statement.
pub(in crate::storage) async fn append_all(
    connection: &mut PgConnection,
    events: &[NewEvent],
) -> Result<(), StorageError> {
    fn column<T>(events: &[NewEvent], of: impl Fn(&NewEvent) -> T) -> Vec<T> {
        events.iter().map(of).collect()
    }
    sqlx::query!(
        "INSERT INTO run_events (run_id, sequence, occurred_at, attempt, kind, status, cause, detail)
         SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::integer[], $5::text[], $6::text[], $7::text[],
                              $8::text[])",
        &column(events, |event| event.run_id.as_uuid()),
        &column(events, |event| event.sequence),
        &column(events, |event| event.occurred_at),
        &column(events, |event| i32::try_from(event.attempt).unwrap_or(i32::MAX)),
        &column(events, |event| event.kind.to_owned()),
        &column(events, |event| event.status.as_str().to_owned()),
        &column(events, |event| event.cause.map(|cause| cause.as_str().to_owned())) as _,
        &column(events, |event| event.detail.clone()) as _,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Storage {
    /// The events of a run after the given sequence number, in order, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_run_events(
        &self,
        run_id: RunId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<RunEvent>, StorageError> {
        let rows = sqlx::query!(
            "SELECT sequence, occurred_at, attempt, kind, status, cause, detail
             FROM run_events WHERE run_id = $1 AND sequence > $2 ORDER BY sequence LIMIT $3",
            run_id.as_uuid(),
            to_i64(after),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let bad = |column, e: crate::domain::run::UnknownWord| {
                    StorageError::inconsistent("run_events", column, run_id, e)
                };
                Ok(RunEvent {
                    sequence: super::snapshots::to_u64(row.sequence),
                    occurred_at: row.occurred_at,
                    attempt: u32::try_from(row.attempt).unwrap_or(0),
                    kind: row.kind,
                    status: row.status.parse().map_err(|e| bad("status", e))?,
                    cause: row.cause.as_deref().map(str::parse).transpose().map_err(|e| bad("cause", e))?,
                    detail: row.detail,
                })
            })
            .collect()
    }
}
