//! Snapshots: what is known of them. Their bytes lie in the artifact store.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{
    ProjectStorage, StorageError,
    idempotency::{self, Begun, Idempotency, Keyed, Recorded},
};
use crate::domain::{ids::SnapshotId, project::Project};

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Its content address.
    pub id: SnapshotId,
    /// How many files it has.
    pub files: u64,
    /// Their bytes in all.
    pub bytes: u64,
    /// When it was first received.
    pub created_at: DateTime<Utc>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Relative, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// Which of these snapshots the projects have.
pub(in crate::storage) async fn which_are_there<'a>(
    connection: &mut PgConnection,
    wanted: &HashSet<(&'a Project, &'a SnapshotId)>,
) -> Result<HashSet<(&'a Project, &'a SnapshotId)>, StorageError> {
    if wanted.is_empty() {
        return Ok(HashSet::new());
    }
    let name = |(project, id): &(&Project, &SnapshotId)| project.qualified(id.as_str()).into_string();
    let names: Vec<String> = wanted.iter().map(name).collect();
    let rows = sqlx::query_scalar!("SELECT id FROM snapshots WHERE id = ANY ($1)", &names);
    let there: HashSet<String> = rows.fetch_all(connection).await?.into_iter().collect();
    Ok(wanted.iter().copied().filter(|one| there.contains(&name(one))).collect())
}

impl ProjectStorage {
    /// Records a snapshot whose bytes are in the artifact store already, and the answer to an idempotent request, in one
    /// transaction. `answer` renders what the client gets of it, and of whether it is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_snapshot(
        &self,
        id: &SnapshotId,
        files: &[SnapshotFile],
        idempotency: Option<&Idempotency>,
        now: DateTime<Utc>,
        answer: impl FnOnce(Snapshot, bool) -> Recorded,
    ) -> Result<Keyed, StorageError> {
        let bytes: u64 = files.iter().map(|f| f.bytes).sum();
        let mut tx = match idempotency::open(&self.pool, idempotency).await? {
            Begun::Answered(earlier) => return Ok(earlier),
            Begun::Open(tx) => tx,
        };
        let kept = self.project.qualified(id.as_str());
        let inserted = sqlx::query!(
            "INSERT INTO snapshots (id, file_count, bytes, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT DO NOTHING",
            kept.as_str(),
            to_i64(files.len() as u64),
            to_i64(bytes),
            now,
        )
        .execute(&mut *tx)
        .await?
        .rows_affected()
            == 1;
        if inserted {
            let paths: Vec<String> = files.iter().map(|f| f.path.clone()).collect();
            let sizes: Vec<i64> = files.iter().map(|f| to_i64(f.bytes)).collect();
            let executables: Vec<bool> = files.iter().map(|f| f.executable).collect();
            sqlx::query!(
                "INSERT INTO snapshot_files (snapshot_id, path, bytes, executable)
                 SELECT $1, * FROM unnest($2::text[], $3::bigint[], $4::boolean[])",
                kept.as_str(),
                &paths,
                &sizes,
                &executables,
            )
            .execute(&mut *tx)
            .await?;
        }
        // Somebody else may have recorded it, at another time.
        let row =
            sqlx::query!("SELECT file_count, bytes, created_at FROM snapshots WHERE id = $1", kept.as_str())
                .fetch_one(&mut *tx)
                .await?;
        let snapshot = Snapshot {
            id: id.clone(),
            files: to_u64(row.file_count),
            bytes: to_u64(row.bytes),
            created_at: row.created_at,
        };
        idempotency::finish(tx, idempotency, answer(snapshot, inserted)).await
    }

    /// A snapshot by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_snapshot(&self, id: &SnapshotId) -> Result<Option<Snapshot>, StorageError> {
        let kept = self.project.qualified(id.as_str());
        let row =
            sqlx::query!("SELECT file_count, bytes, created_at FROM snapshots WHERE id = $1", kept.as_str())
                .fetch_optional(&self.pool)
                .await?;
        Ok(row.map(|row| Snapshot {
            id: id.clone(),
            files: to_u64(row.file_count),
            bytes: to_u64(row.bytes),
            created_at: row.created_at,
        }))
    }

    /// The files of a snapshot in the order of their paths, those after `after` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_snapshot_files(
        &self,
        id: &SnapshotId,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<SnapshotFile>, StorageError> {
        let rows = sqlx::query!(
            "SELECT path, bytes, executable FROM snapshot_files
             WHERE snapshot_id = $1 AND path > $2 ORDER BY path LIMIT $3",
            self.project.qualified(id.as_str()).into_string(),
            after.unwrap_or(""),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let files = rows.into_iter().map(|row| SnapshotFile {
            path: row.path,
            bytes: to_u64(row.bytes),
            executable: row.executable,
        });
        Ok(files.collect())
    }

    /// Path and size of every file of a snapshot; `None` when there is no such snapshot.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn snapshot_sizes(
        &self,
        id: &SnapshotId,
    ) -> Result<Option<BTreeMap<String, u64>>, StorageError> {
        if self.get_snapshot(id).await?.is_none() {
            return Ok(None);
        }
        let kept = self.project.qualified(id.as_str());
        let rows =
            sqlx::query!("SELECT path, bytes FROM snapshot_files WHERE snapshot_id = $1", kept.as_str())
                .fetch_all(&self.pool)
                .await?;
        Ok(Some(rows.into_iter().map(|row| (row.path, to_u64(row.bytes))).collect()))
    }
}

/// A size for a `bigint` column. No size here comes near 2^63.
pub(in crate::storage) fn to_i64(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A size from a `bigint` column that a CHECK keeps from being negative.
pub(in crate::storage) fn to_u64(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
