//! What is old goes: runs, then what only they needed. Rows go first, together with a note of the files that are to follow
//! ([`ArtifactDeletion`]), in one transaction.
//!
//! In this order a run is there as a whole or not at all, from one moment to the next, and nobody is served one whose files are
//! missing. What remains to be done stands in the database: whoever dies half-way leaves a note, never a file that nobody knows of.
//!
//! Each transaction is short and touches rows that nobody else waits for. Rows that somebody holds are left for the next time.

use std::time::Duration;

use sqlx::{Postgres, Transaction};
use uuid::Uuid;

use super::{Storage, StorageError, snapshots::to_u64};
use crate::domain::ids::{RunId, SnapshotId};

/// How long a snapshot is kept after its last upload, whoever refers to it: it is uploaded before it is used.
pub const SNAPSHOT_GRACE: Duration = Duration::from_secs(24 * 3600);

/// How long an archived estimator is kept although nothing refers to it: somebody who named it just before is let through.
const ESTIMATOR_GRACE: Duration = Duration::from_secs(24 * 3600);

/// When the files of a run are looked for once more: a pod may have been sending when the run was deleted.
const SECOND_LOOK: Duration = Duration::from_secs(3600);

/// What is deleted of the artifact store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArtifactDeletion {
    /// Logs, outputs and everything else of a run.
    Run(RunId),
    /// The bytes of a snapshot.
    Snapshot(SnapshotId),
}

/// What a look at some of the rows has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept<T> {
    /// The last row that was looked at; none when there are no more behind it.
    pub last: Option<T>,
    /// How many were deleted.
    pub deleted: u64,
}

impl Storage {
    /// Deletes the run that ended first, if that was more than `keep` ago by the database's clock: all of its rows, at once. A run
    /// of which a webhook is still to be told is left until it was.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_old_run(&self, keep: Duration) -> Result<Option<RunId>, StorageError> {
        let deleted = sqlx::query_scalar!(
            r#"WITH old AS (
                   SELECT id FROM runs
                   WHERE finished_at < now() - make_interval(secs => $1) AND finished_at IS NOT NULL AND NOT EXISTS (
                       SELECT FROM webhook_deliveries AS d JOIN webhooks ON webhooks.name = d.webhook
                       WHERE d.run_id = runs.id AND d.status = 'pending' AND webhooks.enabled)
                   ORDER BY finished_at, id LIMIT 1 FOR UPDATE SKIP LOCKED
               ), deleted AS (
                   DELETE FROM runs USING old WHERE runs.id = old.id RETURNING runs.id
               ), noted AS (
                   INSERT INTO artifact_deletions (kind, id, due_at, last)
                   SELECT 'run', id::text, now(), false FROM deleted
               )
               SELECT id AS "id!" FROM deleted"#,
            keep.as_secs_f64(),
        )
        .fetch_optional(&self.pool)
        .await?;
        Ok(deleted.map(RunId::from_uuid))
    }

    /// Looks at estimators behind `after`, `limit` at most, and deletes those that no run is made of and that were archived, or
    /// that came with a run.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_unused_estimators(
        &self,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Swept<Uuid>, StorageError> {
        let mut tx = self.pool.begin().await?;
        let page = sqlx::query_scalar!(
            "SELECT id FROM estimators
             WHERE ($1::uuid IS NULL OR id > $1)
               AND (came_with_run OR archived_at < now() - make_interval(secs => $2))
             ORDER BY id LIMIT $3",
            after,
            ESTIMATOR_GRACE.as_secs_f64(),
            i64::from(limit),
        )
        .fetch_all(&mut *tx)
        .await?;
        let unused = sqlx::query_scalar!(
            "SELECT id FROM estimators
             WHERE id = ANY ($1) AND NOT EXISTS (SELECT FROM runs WHERE estimator_id = estimators.id)
             ORDER BY id FOR UPDATE SKIP LOCKED",
            &page,
        )
        .fetch_all(&mut *tx)
        .await?;
        // Asked once more under the lock: a run may have been accepted while it was waited for.
        let deleted = sqlx::query!(
            "DELETE FROM estimators
             WHERE id = ANY ($1) AND NOT EXISTS (SELECT FROM runs WHERE estimator_id = estimators.id)",
            &unused,
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Swept { last: last_of_full(page, limit), deleted: deleted.rows_affected() })
    }

    /// Looks at snapshots behind `after`, `limit` at most, and deletes those that no run and no estimator refers to and that nobody
    /// has uploaded for [`SNAPSHOT_GRACE`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_unused_snapshots(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Swept<String>, StorageError> {
        let mut tx = self.pool.begin().await?;
        let page = sqlx::query_scalar!(
            "SELECT id FROM snapshots
             WHERE ($1::text IS NULL OR id > $1) AND uploaded_at < now() - make_interval(secs => $2)
             ORDER BY id LIMIT $3",
            after,
            SNAPSHOT_GRACE.as_secs_f64(),
            i64::from(limit),
        )
        .fetch_all(&mut *tx)
        .await?;
        let unused = sqlx::query_scalar!(
            "SELECT id FROM snapshots
             WHERE id = ANY ($1)
               AND NOT EXISTS (SELECT FROM runs WHERE snapshot_id = snapshots.digest AND project = snapshots.project)
               -- Runs from before that column.
               AND NOT EXISTS (SELECT FROM runs WHERE snapshot_id IS NULL AND plan ->> 'snapshot_id' = snapshots.digest AND project = snapshots.project)
               AND NOT EXISTS (SELECT FROM estimators WHERE definition ->> 'source_directory' = snapshots.digest AND project = snapshots.project)
             ORDER BY id FOR UPDATE SKIP LOCKED",
            &page,
        )
        .fetch_all(&mut *tx)
        .await?;
        // Whoever refers to one holds it (trigger `hold_snapshot`) until that can be seen, here, where it is locked.
        let deleted = sqlx::query_scalar!(
            r#"WITH deleted AS (
                   DELETE FROM snapshots
                   WHERE id = ANY ($1)
                     AND uploaded_at < now() - make_interval(secs => $2)
                     AND NOT EXISTS (SELECT FROM runs WHERE snapshot_id = snapshots.digest AND project = snapshots.project)
                     -- Runs from before that column.
                     AND NOT EXISTS (SELECT FROM runs WHERE snapshot_id IS NULL AND plan ->> 'snapshot_id' = snapshots.digest AND project = snapshots.project)
                     AND NOT EXISTS (SELECT FROM estimators WHERE definition ->> 'source_directory' = snapshots.digest AND project = snapshots.project)
                   RETURNING digest
               ), noted AS (
                   -- Of other projects the same may be there; then the bytes stay.
                   INSERT INTO artifact_deletions (kind, id, due_at, last) SELECT DISTINCT 'snapshot', digest, now(), true FROM deleted
                   ON CONFLICT (kind, id) DO UPDATE SET due_at = excluded.due_at
               )
               SELECT count(*) AS "deleted!" FROM deleted"#,
            &unused,
            SNAPSHOT_GRACE.as_secs_f64(),
        )
        .fetch_one(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(Swept { last: last_of_full(page, limit), deleted: to_u64(deleted) })
    }

    /// Notes bytes of snapshots that no row knows, as an upload leaves them that is cut off: they are deleted after
    /// [`SNAPSHOT_GRACE`], unless they are uploaded by then. Answers how many are new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_unknown_snapshots(&self, stored: &[SnapshotId]) -> Result<u64, StorageError> {
        let ids: Vec<String> = stored.iter().map(|id| id.as_str().to_owned()).collect();
        let noted = sqlx::query!(
            "INSERT INTO artifact_deletions (kind, id, due_at, last)
             SELECT 'snapshot', id, now() + make_interval(secs => $2), true FROM unnest($1::text[]) AS stored (id)
             WHERE NOT EXISTS (SELECT FROM snapshots WHERE digest = stored.id)
             ON CONFLICT DO NOTHING",
            &ids,
            SNAPSHOT_GRACE.as_secs_f64(),
        );
        Ok(noted.execute(&self.pool).await?.rows_affected())
    }

    /// Says that a snapshot is about to be stored, or found stored, and used: nobody deletes its bytes from now on until
    /// [`SNAPSHOT_GRACE`] has passed, whichever project's they are. Waits for whoever is deleting them at this moment.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expect_snapshot(&self, id: &SnapshotId) -> Result<(), StorageError> {
        let known = sqlx::query!("UPDATE snapshots SET uploaded_at = now() WHERE digest = $1", id.as_str());
        if known.execute(&self.pool).await?.rows_affected() == 0 {
            sqlx::query!("DELETE FROM artifact_deletions WHERE kind = 'snapshot' AND id = $1", id.as_str())
                .execute(&self.pool)
                .await?;
        }
        Ok(())
    }

    /// Takes files that are due. Nobody else takes the same meanwhile; whoever dies lets go of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_artifacts(&self) -> Result<Option<TakenArtifacts>, StorageError> {
        let mut tx = self.pool.begin().await?;
        let due = sqlx::query!(
            r#"SELECT kind, id,
                      kind = 'snapshot' AND EXISTS (SELECT FROM snapshots WHERE digest = artifact_deletions.id) AS "in_use!"
               FROM artifact_deletions WHERE due_at <= now() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED"#
        )
        .fetch_optional(&mut *tx)
        .await?;
        let Some(due) = due else { return Ok(None) };
        let deletion = deletion(&due.kind, &due.id)?;
        Ok(Some(TakenArtifacts { deletion, is_in_use: due.in_use, kind: due.kind, id: due.id, tx }))
    }
}

/// Files that this process is to delete, and nobody else while this exists.
#[derive(Debug)]
pub struct TakenArtifacts {
    /// Which.
    pub deletion: ArtifactDeletion,
    /// Whether somebody needs them again: they stay then.
    pub is_in_use: bool,
    kind: String,
    id: String,
    tx: Transaction<'static, Postgres>,
}

impl TakenArtifacts {
    /// Says that the files are gone.
    ///
    /// # Errors
    /// When the database fails: they are due still.
    pub async fn are_gone(mut self) -> Result<(), StorageError> {
        sqlx::query!(
            "WITH done AS (DELETE FROM artifact_deletions WHERE kind = $1 AND id = $2 AND last)
             UPDATE artifact_deletions SET last = true, due_at = now() + make_interval(secs => $3)
             WHERE kind = $1 AND id = $2 AND NOT last",
            self.kind,
            self.id,
            SECOND_LOOK.as_secs_f64(),
        )
        .execute(&mut *self.tx)
        .await?;
        Ok(self.tx.commit().await?)
    }

    /// Says that they cannot be deleted now, so that others get their turn.
    ///
    /// # Errors
    /// When the database fails: they are due still.
    pub async fn put_off(mut self, pause: Duration) -> Result<(), StorageError> {
        sqlx::query!(
            "UPDATE artifact_deletions SET due_at = now() + make_interval(secs => $3) WHERE kind = $1 AND id = $2",
            self.kind,
            self.id,
            pause.as_secs_f64(),
        )
        .execute(&mut *self.tx)
        .await?;
        Ok(self.tx.commit().await?)
    }
}

/// The last of a page that was full: behind it there may be more.
fn last_of_full<T>(mut page: Vec<T>, limit: u32) -> Option<T> {
    if page.len() < limit as usize { None } else { page.pop() }
}

fn deletion(kind: &str, id: &str) -> Result<ArtifactDeletion, StorageError> {
    let unreadable = |detail: String| StorageError::inconsistent("artifact_deletions", "id", id, detail);
    match kind {
        "run" => {
            let id = Uuid::parse_str(id).map_err(|error| unreadable(error.to_string()))?;
            Ok(ArtifactDeletion::Run(RunId::from_uuid(id)))
        }
        "snapshot" => {
            let id = id.parse().map_err(|_| unreadable("no id of a snapshot".to_owned()))?;
            Ok(ArtifactDeletion::Snapshot(id))
        }
        other => Err(unreadable(format!("the kind `{other}` is unknown"))),
    }
}
