//! Snapshots, logs and outputs in an object store.
//!
//! Uploads are written by strangers: [`Artifacts::receive_snapshot`] reads them under limits, refuses what could
//! reach outside the tree or mean different things to different readers, and keeps nothing of a refused one.

mod archive;
mod collect;
mod error;
mod exchange;
mod keys;
mod names;
mod objects;
mod snapshots;
#[cfg(test)]
mod tests;
mod tree;

use std::{
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use nix::sys::statvfs::statvfs;
use object_store::{ObjectStore, local::LocalFileSystem};

pub use self::{
    error::{ArtifactsError, SnapshotError, SnapshotErrorKind},
    exchange::{Returned, ReturnedError},
    objects::StoredObject,
    snapshots::{ReceivedSnapshot, SnapshotFile, SnapshotUpload},
};

/// What an upload may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files together, unpacked.
    pub max_unpacked_bytes: u64,
    /// Files.
    pub max_files: u64,
    /// Bytes of the upload itself.
    pub max_upload_bytes: u64,
}

impl Default for Limits {
    /// The SDK's documented limits: 300 MiB and 2000 files. An upload of so much, even stored without compression,
    /// needs a little more for its headers.
    fn default() -> Self {
        Self { max_unpacked_bytes: 300 << 20, max_files: 2000, max_upload_bytes: 320 << 20 }
    }
}

impl Limits {
    /// Members of any kind: directories are not kept, but they cost time and memory.
    const fn max_members(&self) -> u64 {
        self.max_files.saturating_mul(10).saturating_add(1000)
    }
}

/// The archive formats that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArchiveFormat {
    /// A tar in gzip.
    TarGz,
    /// A plain tar.
    Tar,
    /// A zip.
    Zip,
}

impl ArchiveFormat {
    /// Every format.
    pub const ALL: [Self; 3] = [Self::TarGz, Self::Tar, Self::Zip];

    /// Its media type.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::TarGz => "application/gzip",
            Self::Tar => "application/x-tar",
            Self::Zip => "application/zip",
        }
    }

    /// The format of a `Content-Type`, whose parameters and letter case do not count.
    #[must_use]
    pub fn from_media_type(text: &str) -> Option<Self> {
        let essence = text.split(';').next().unwrap_or_default().trim();
        Self::ALL.into_iter().find(|format| format.media_type().eq_ignore_ascii_case(essence))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::TarGz => "tar.gz",
            Self::Tar => "tar",
            Self::Zip => "zip",
        }
    }
}

/// A file that nobody wrote to for so long belongs to a process that is gone.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// The store of everything that is too large for the database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Artifacts {
    store: Arc<dyn ObjectStore>,
    /// The store's directory: parts of interrupted writes lie in it under names that the store itself hides.
    root: Arc<Path>,
    scratch: Arc<Path>,
}

impl Artifacts {
    /// Opens the store below the directory `location`; uploads in progress are written to `scratch`. Both are made
    /// if they are missing, and left-overs of a predecessor that crashed are removed.
    ///
    /// # Errors
    /// When one of the two cannot be made or read.
    pub fn open(location: &Path, scratch: &Path) -> Result<Self, ArtifactsError> {
        for directory in [location, scratch] {
            fs::create_dir_all(directory)
                .map_err(ArtifactsError::io("cannot make the directory", directory))?;
        }
        let root =
            location.canonicalize().map_err(ArtifactsError::io("cannot read the directory", location))?;
        // Every answer given to a caller must survive a power cut, as one from the database does.
        let store = LocalFileSystem::new_with_prefix(&root)
            .map_err(ArtifactsError::store("cannot open", &object_store::path::Path::default()))?
            .with_fsync(true)
            .with_automatic_cleanup(false);
        remove_stale(scratch, |_| true)?;
        remove_stale(&root.join(keys::SNAPSHOTS), |name| name.contains('#'))?;
        Ok(Self { store: Arc::new(store), root: root.into(), scratch: scratch.into() })
    }
}

/// The disk that the store is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub size: u64,
}

impl Artifacts {
    /// The disk that the store is on.
    ///
    /// # Errors
    /// When the machine does not say.
    pub fn disk(&self) -> Result<Disk, ArtifactsError> {
        let found = statvfs(&*self.root)
            .map_err(|error| ArtifactsError::io("cannot look at the disk of", &*self.root)(error.into()))?;
        let block = found.fragment_size();
        Ok(Disk { free: found.blocks_available() * block, size: found.blocks() * block })
    }
}

/// Removes the files of a directory that a crashed process left. Several processes may share it, so only
/// what has not been written to for long is taken.
fn remove_stale(directory: &Path, is_scratch: impl Fn(&str) -> bool) -> Result<(), ArtifactsError> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(ArtifactsError::io("cannot read the directory", directory))?,
    };
    for entry in entries.filter_map(Result::ok) {
        if is_scratch(&entry.file_name().to_string_lossy()) {
            remove_if_stale(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes a file that nobody has written to for long, and says whether there is (or was) such a file.
fn remove_if_stale(path: &Path) -> Result<bool, ArtifactsError> {
    let Ok(metadata) = path.symlink_metadata() else { return Ok(false) };
    let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
    if metadata.is_file() && age.is_some_and(|age| age > STALE_AFTER) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(ArtifactsError::io("cannot remove", path)(error));
            }
            _ => tracing::info!(path = %path.display(), "removed what an interrupted upload left"),
        }
    }
    Ok(true)
}
