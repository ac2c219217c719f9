//! What is in the artifact store of a run: logs (growing while it runs) and outputs.

use super::{Storage, StorageError, leases::attempt_number, snapshots::to_u64};
use crate::domain::ids::RunId;

/// A log file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunLog {
    /// Its attempt.
    pub attempt: u32,
    /// Its name, with `/`, e.g. `user_logs/std_log.txt`.
    pub name: String,
    /// How much of it can be read now.
    pub bytes: u64,
    /// Whether nothing will be added.
    pub complete: bool,
}

/// An output file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutput {
    /// Its attempt.
    pub attempt: u32,
    /// Its path below `./outputs`, with `/`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Hexadecimal digest of its content.
    pub sha256: String,
}

impl Storage {
    /// The logs of an attempt, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_run_logs(&self, run: RunId, attempt: u32) -> Result<Vec<RunLog>, StorageError> {
        let rows = sqlx::query!(
            "SELECT name, bytes, complete FROM run_logs WHERE run_id = $1 AND attempt = $2 ORDER BY name",
            run.as_uuid(),
            attempt_number(attempt),
        )
        .fetch_all(&self.pool)
        .await?;
        let logs = rows.into_iter().map(|row| RunLog {
            attempt,
            name: row.name,
            bytes: to_u64(row.bytes),
            complete: row.complete,
        });
        Ok(logs.collect())
    }

    /// One log of an attempt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_run_log(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
    ) -> Result<Option<RunLog>, StorageError> {
        let row = sqlx::query!(
            "SELECT bytes, complete FROM run_logs WHERE run_id = $1 AND attempt = $2 AND name = $3",
            run.as_uuid(),
            attempt_number(attempt),
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| RunLog {
            attempt,
            name: name.to_owned(),
            bytes: to_u64(row.bytes),
            complete: row.complete,
        }))
    }

    /// The outputs of an attempt, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_run_outputs(&self, run: RunId, attempt: u32) -> Result<Vec<RunOutput>, StorageError> {
        let rows = sqlx::query!(
            "SELECT name, bytes, sha256 FROM run_outputs WHERE run_id = $1 AND attempt = $2 ORDER BY name",
            run.as_uuid(),
            attempt_number(attempt),
        )
        .fetch_all(&self.pool)
        .await?;
        let outputs = rows.into_iter().map(|row| RunOutput {
            attempt,
            name: row.name,
            bytes: to_u64(row.bytes),
            sha256: row.sha256,
        });
        Ok(outputs.collect())
    }

    /// One output of an attempt.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_run_output(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
    ) -> Result<Option<RunOutput>, StorageError> {
        let row = sqlx::query!(
            "SELECT bytes, sha256 FROM run_outputs WHERE run_id = $1 AND attempt = $2 AND name = $3",
            run.as_uuid(),
            attempt_number(attempt),
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| RunOutput {
            attempt,
            name: name.to_owned(),
            bytes: to_u64(row.bytes),
            sha256: row.sha256,
        }))
    }
}
