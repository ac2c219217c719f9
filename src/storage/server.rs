//! What kind of a database it is, for whoever looks whether it is fit.

use std::time::Duration;

use sqlx::postgres::PgListener;

use super::{Storage, StorageError};
use crate::domain::doctor::DatabaseFacts;

/// How long a notification may take to come back.
const PATIENCE: Duration = Duration::from_secs(3);

impl Storage {
    /// How the server is set up, for this database and this user.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn server_facts(&self) -> Result<DatabaseFacts, StorageError> {
        let row = sqlx::query!(
            r#"SELECT current_setting('server_version_num')::int AS "version!",
                      current_setting('fsync')::bool AS "fsync!",
                      current_setting('full_page_writes')::bool AS "full_page_writes!",
                      current_setting('synchronous_commit') AS "synchronous_commit!",
                      current_setting('max_connections')::bigint
                          - current_setting('superuser_reserved_connections')::bigint AS "connections!",
                      pg_is_in_recovery() AS "is_standby!",
                      clock_timestamp() AS "now!""#,
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(DatabaseFacts {
            version: row.version,
            fsync: row.fsync,
            full_page_writes: row.full_page_writes,
            synchronous_commit: row.synchronous_commit,
            connections: row.connections,
            is_standby: row.is_standby,
            now: row.now,
        })
    }

    /// Whether a notification that is sent arrives: behind a PgBouncer in transaction mode it does not. `channel` is nobody else's.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delivers_notifications(&self, channel: &str) -> Result<bool, StorageError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(channel).await?;
        sqlx::query!("SELECT pg_notify($1, '')", channel).execute(&self.pool).await?;
        match tokio::time::timeout(PATIENCE, listener.recv()).await {
            Ok(heard) => Ok(heard.map(|_| true)?),
            Err(_) => Ok(false),
        }
    }
}
