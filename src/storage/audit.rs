//! The audit trail: rows are added, and a trigger refuses everything else.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Storage, StorageError};
use crate::domain::audit::AuditEvent;

/// Adds to the trail, all in one statement.
pub(in crate::storage) async fn append_all(
    connection: &mut PgConnection,
    events: &[&AuditEvent],
) -> Result<(), StorageError> {
    fn column<T>(events: &[&AuditEvent], of: impl Fn(&AuditEvent) -> T) -> Vec<T> {
        events.iter().map(|event| of(event)).collect()
    }
    sqlx::query!(
        "INSERT INTO audit_events (id, occurred_at, caller, project, credential, token_id, address, operation, method,
                                       path, status, request_id)
             SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::uuid[], $7::text[],
                                  $8::text[], $9::text[], $10::text[], $11::integer[], $12::text[])",
        &column(events, |event| event.id),
        &column(events, |event| event.occurred_at),
        &column(events, |event| event.caller.clone()),
        &column(events, |event| event.project.clone()),
        &column(events, |event| event.credential.clone()),
        &column(events, |event| event.token_id) as _,
        &column(events, |event| event.address.clone()) as _,
        &column(events, |event| event.operation.clone()),
        &column(events, |event| event.method.clone()),
        &column(events, |event| event.path.clone()),
        &column(events, |event| i32::from(event.status)),
        &column(events, |event| event.request_id.clone()),
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Storage {
    /// Adds to the trail.
    ///
    /// # Errors
    /// When the database fails; nothing was added then.
    pub async fn append_audit_events(&self, events: &[AuditEvent]) -> Result<(), StorageError> {
        let mut connection = self.pool.acquire().await?;
        append_all(&mut connection, &events.iter().collect::<Vec<_>>()).await
    }

    /// The trail, newest first, of one project where one is named, those before `before` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_audit_events(
        &self,
        project: Option<&str>,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> Result<Vec<AuditEvent>, StorageError> {
        let rows = sqlx::query!(
            "SELECT id, occurred_at, caller, project, credential, token_id, address, operation, method, path, status, request_id
             FROM audit_events
             WHERE ($1::text IS NULL OR project = $1)
               AND ($2::timestamptz IS NULL OR (occurred_at, id) < ($2, $3::uuid))
             ORDER BY occurred_at DESC, id DESC LIMIT $4",
            project,
            before.map(|b| b.0),
            before.map(|b| b.1),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let events = rows.into_iter().map(|row| AuditEvent {
            id: row.id,
            occurred_at: row.occurred_at,
            caller: row.caller,
            project: row.project,
            credential: row.credential,
            token_id: row.token_id,
            address: row.address,
            operation: row.operation,
            method: row.method,
            path: row.path,
            status: u16::try_from(row.status).unwrap_or(0),
            request_id: row.request_id,
        });
        Ok(events.collect())
    }
}
