//! What the API shows beside runs, for a whole page in one question each.

use sqlx::PgPool;

use super::{ProjectStorage, Storage, StorageError, leases::attempt_number, snapshots::to_u64};
use crate::domain::{ids::RunId, project::Project, run::Status};

/// Where a run is: all that somebody who follows it has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its status.
    pub status: Status,
    /// The number of its current attempt; 0 before the first.
    pub attempt: u32,
    /// How many events it has: the sequence number of the last.
    pub events: u64,
}

/// Where a run and one of its logs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogProgress {
    /// The run's status.
    pub status: Status,
    /// The number of its current attempt; 0 before the first.
    pub attempt: u32,
    /// How much of the log can be read; 0 when it is not there.
    pub bytes: u64,
}

/// Whose a run is, and how far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its project.
    pub project: Project,
    /// The number of its current attempt.
    pub attempt: u32,
    /// Whether it has ended.
    pub is_over: bool,
}

impl Storage {
    /// Whose a run is.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_owner(&self, id: RunId) -> Result<Option<Owner>, StorageError> {
        let row = sqlx::query!(
            r#"SELECT project, attempt, finished_at IS NOT NULL AS "is_over!" FROM runs WHERE id = $1"#,
            id.as_uuid()
        );
        let row = row.fetch_optional(&self.pool).await?;
        row.map(|row| {
            let project = row.project.parse();
            Ok(Owner {
                project: project.map_err(|e| StorageError::inconsistent("runs", "project", id, e))?,
                attempt: u32::try_from(row.attempt).unwrap_or(0),
                is_over: row.is_over,
            })
        })
        .transpose()
    }

    /// Where a run is, whosever it is; cheaper than the whole of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_progress(&self, id: RunId) -> Result<Option<Progress>, StorageError> {
        find_progress(&self.pool, id, None).await
    }

    /// Where a run and one of its logs are, at one and the same time: a size that is read with the end is the final one. Attempt
    /// 0 stands for the current one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn log_progress(
        &self,
        id: RunId,
        attempt: u32,
        name: &str,
    ) -> Result<Option<LogProgress>, StorageError> {
        let row = sqlx::query!(
            r#"SELECT runs.status, runs.attempt, coalesce(run_logs.bytes, 0) AS "bytes!"
               FROM runs LEFT JOIN run_logs ON run_logs.run_id = runs.id AND run_logs.name = $3
                   AND run_logs.attempt = CASE WHEN $2 = 0 THEN runs.attempt ELSE $2 END
               WHERE runs.id = $1"#,
            id.as_uuid(),
            attempt_number(attempt),
            name,
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| {
            let bad = |e| StorageError::inconsistent("runs", "status", id, e);
            Ok(LogProgress {
                status: row.status.parse().map_err(bad)?,
                attempt: u32::try_from(row.attempt).unwrap_or(0),
                bytes: to_u64(row.bytes),
            })
        })
        .transpose()
    }
}

impl ProjectStorage {
    /// Where a run of the project is; cheaper than the whole of it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_progress(&self, id: RunId) -> Result<Option<Progress>, StorageError> {
        find_progress(&self.pool, id, Some(&self.project)).await
    }
}

/// Where a run is; one of the given project only.
async fn find_progress(
    pool: &PgPool,
    id: RunId,
    project: Option<&Project>,
) -> Result<Option<Progress>, StorageError> {
    let row = sqlx::query!(
        "SELECT status, attempt, event_count FROM runs WHERE id = $1 AND ($2::text IS NULL OR project = $2)",
        id.as_uuid(),
        project.map(Project::as_str),
    )
    .fetch_optional(pool)
    .await?;
    row.map(|row| {
        let bad = |e| StorageError::inconsistent("runs", "status", id, e);
        let status = row.status.parse().map_err(bad)?;
        let attempt = u32::try_from(row.attempt).unwrap_or(0);
        Ok(Progress { status, attempt, events: to_u64(row.event_count) })
    })
    .transpose()
}
