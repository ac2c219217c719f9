//! Changing what may be changed of a run: its name for people, its labels, its place in the queue.

use std::collections::BTreeMap;

use sqlx::types::Json;

use super::{ProjectStorage, StorageError};
use crate::domain::{ids::RunId, run::Status};

/// What may be changed of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changeable {
    /// A name for people.
    pub display_name: Option<String>,
    /// Labels.
    pub tags: BTreeMap<String, String>,
    /// Higher goes first.
    pub priority: i32,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patched {
    /// It is written.
    Done,
    /// There is no such run.
    NotFound,
    /// The run has ended, so its place in the queue means nothing any more.
    Ended(Status),
    /// The run is not what it was when it was read.
    Changed,
}

impl ProjectStorage {
    /// How often the row of a run was written.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn run_version(&self, id: RunId) -> Result<Option<i64>, StorageError> {
        let version = sqlx::query_scalar!(
            "SELECT version FROM runs WHERE id = $1 AND project = $2",
            id.as_uuid(),
            self.project.as_str(),
        );
        Ok(version.fetch_optional(&self.pool).await?)
    }

    /// Changes a run: `change` makes of what is there what is to be there, while the row is locked. With `version`, only when
    /// the row is of that version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn patch_run(
        &self,
        id: RunId,
        version: Option<i64>,
        change: impl FnOnce(Changeable) -> Changeable,
    ) -> Result<Patched, StorageError> {
        let mut tx = self.pool.begin().await?;
        let row = sqlx::query!(
            r#"SELECT version, status, display_name, tags AS "tags: Json<BTreeMap<String, String>>", priority
               FROM runs WHERE id = $1 AND project = $2 FOR UPDATE"#,
            id.as_uuid(),
            self.project.as_str(),
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(row) = row else {
            tx.rollback().await?;
            return Ok(Patched::NotFound);
        };
        if version.is_some_and(|version| version != row.version) {
            tx.rollback().await?;
            return Ok(Patched::Changed);
        }
        let status: Status =
            row.status.parse().map_err(|e| StorageError::inconsistent("runs", "status", id, e))?;
        let before = Changeable { display_name: row.display_name, tags: row.tags.0, priority: row.priority };
        let after = change(before.clone());
        if status.is_terminal() && after.priority != before.priority {
            tx.rollback().await?;
            return Ok(Patched::Ended(status));
        }
        if after != before {
            sqlx::query!(
                "UPDATE runs SET display_name = $2, tags = $3, priority = $4 WHERE id = $1",
                id.as_uuid(),
                after.display_name,
                Json(&after.tags) as _,
                after.priority,
            )
            .execute(&mut *tx)
            .await?;
            super::notifications::notify(&mut tx, super::notifications::Hint::Work).await?;
        }
        tx.commit().await?;
        Ok(Patched::Done)
    }
}
