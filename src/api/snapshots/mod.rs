//! Source trees, addressed by their content.

pub mod create;
pub mod get;
mod lingering;
pub mod list_files;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{domain::ids::SnapshotId, storage::snapshots as stored};

/// A snapshot.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Snapshot {
    /// Its content address: the same tree gives the same id, however it was packed.
    pub id: SnapshotId,
    /// How many files it has.
    #[schema(minimum = 0, example = 3)]
    pub files: u64,
    /// Their bytes in all, unpacked.
    #[schema(minimum = 0, example = 4711)]
    pub bytes: u64,
    /// When it was first received.
    pub created_at: DateTime<Utc>,
}

impl From<stored::Snapshot> for Snapshot {
    fn from(snapshot: stored::Snapshot) -> Self {
        Self {
            id: snapshot.id,
            files: snapshot.files,
            bytes: snapshot.bytes,
            created_at: snapshot.created_at,
        }
    }
}

/// A file of a snapshot.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SnapshotFile {
    /// Relative to the source directory, with `/`.
    #[schema(example = "train.py")]
    pub path: String,
    /// Its size.
    #[schema(minimum = 0, example = 1204)]
    pub bytes: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

impl From<stored::SnapshotFile> for SnapshotFile {
    fn from(file: stored::SnapshotFile) -> Self {
        Self { path: file.path, bytes: file.bytes, executable: file.executable }
    }
}
