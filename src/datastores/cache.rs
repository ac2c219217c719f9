//! Copies of remote data that several runs read: kept on this machine under what they were made of.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    download::{Downloaded, download, hex, link_tree},
    error::DataError,
    find::Found,
    open::Store,
};

/// The copy within an entry.
const CONTENT: &str = "content";
/// What entries are called while they are made.
const PARTIAL: &str = "partial-";
/// How long whoever makes an entry may take from its directory to the lock on it.
const UNLOCKED_FOR: Duration = Duration::from_secs(60);
/// How often an entry is made anew that others remove meanwhile.
const TRIES: u32 = 5;
/// Written last: an entry without it was never finished.
const MARKER: &str = "complete.json";

/// A file as it was when it was copied: a script that may write what it should only read writes into the copy.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Untouched {
    bytes: u64,
    modified_seconds: i64,
    modified_nanoseconds: i64,
}

/// What the marker says.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    bytes: u64,
    /// By the path from the copy.
    files: BTreeMap<PathBuf, Untouched>,
}

/// A directory of copies.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    max_bytes: u64,
}

impl Cache {
    /// Over a directory, which need not exist; the least recently used copies above `max_bytes` are removed.
    #[must_use]
    pub const fn new(root: PathBuf, max_bytes: u64) -> Self {
        Self { root, max_bytes }
    }

    /// Puts what was found at `target` by way of the cache: by links to its files, which cost nothing and outlive the
    /// entry. Answers what was copied for it now; nothing where it was there.
    ///
    /// # Errors
    /// As [`download`].
    pub async fn place(
        &self,
        store: &Store,
        found: &Found,
        target: &Path,
    ) -> Result<Option<Downloaded>, DataError> {
        fs::create_dir_all(&self.root).map_err(DataError::io(&self.root))?;
        let entry = self.root.join(key(store, found));
        let mut downloaded = None;
        // An entry that another run's copying pushes out between the two steps is copied again.
        for more in (0..TRIES).rev() {
            if !is_sound(&entry) {
                self.discard(&entry).map_err(DataError::io(&entry))?;
                downloaded = Some(self.fill(store, found, &entry).await?);
            }
            match link(&entry.join(CONTENT), target) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound && more > 0 => {}
                Err(error) => return Err(DataError::io(target)(error)),
            }
        }
        // The time of its marker is when it was last used.
        let used = fs::File::open(entry.join(MARKER)).and_then(|file| file.set_modified(SystemTime::now()));
        if let Err(error) = used {
            tracing::debug!("{}: its use could not be noted: {error}", entry.display());
        }
        self.evict(&entry).map_err(DataError::io(&self.root))?;
        Ok(downloaded)
    }

    /// A new directory beside the entries, and the lock by which others see that somebody still needs it.
    fn partial(&self) -> io::Result<(tempfile::TempDir, fs::File)> {
        let partial = tempfile::Builder::new().prefix(PARTIAL).tempdir_in(&self.root)?;
        let lock = fs::File::open(partial.path())?;
        lock.lock()?;
        Ok((partial, lock))
    }

    /// Removes what is no sound entry, if anything is there.
    fn discard(&self, entry: &Path) -> io::Result<()> {
        let (partial, _lock) = self.partial()?;
        match fs::rename(entry, partial.path().join(CONTENT)) {
            Ok(()) => {
                tracing::warn!("{}: was changed since it was copied, and is copied anew", entry.display());
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn fill(&self, store: &Store, found: &Found, entry: &Path) -> Result<Downloaded, DataError> {
        let (partial, _lock) = self.partial().map_err(DataError::io(&self.root))?;
        let content = partial.path().join(CONTENT);
        let downloaded = download(store, found, &content).await?;
        let mut files = BTreeMap::new();
        protect(&content)
            .and_then(|()| look(&content, Path::new(""), &mut files))
            .and_then(|()| Ok(serde_json::to_vec(&Entry { bytes: found.bytes(), files })?))
            .and_then(|marker| fs::write(partial.path().join(MARKER), marker))
            .map_err(DataError::io(entry))?;
        match fs::rename(partial.path(), entry) {
            Ok(()) => drop(partial.keep()),
            // Another run was faster.
            Err(_) if entry.join(MARKER).is_file() => {}
            Err(error) => return Err(DataError::io(entry)(error)),
        }
        Ok(downloaded)
    }

    /// Removes the least recently used entries but this one, until the rest fits; and what a crash left.
    fn evict(&self, but: &Path) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let is_partial =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(PARTIAL.as_bytes()));
            let Some(entry) = read(&path).filter(|_| !is_partial) else {
                remove_if_left(&path)?;
                continue;
            };
            entries.push((fs::metadata(path.join(MARKER))?.modified()?, entry.bytes, path));
        }
        entries.sort();
        let mut total: u64 = entries.iter().fold(0, |sum, (_, bytes, _)| sum.saturating_add(*bytes));
        for (_, bytes, path) in entries {
            if total <= self.max_bytes {
                break;
            }
            if path != but {
                // The marker first: what is half removed is no entry.
                fs::remove_file(path.join(MARKER))?;
                fs::remove_dir_all(&path)?;
                total = total.saturating_sub(bytes);
            }
        }
        Ok(())
    }
}

/// What is no entry and locked by nobody was left by a crash.
fn remove_if_left(path: &Path) -> io::Result<()> {
    let Ok(directory) = fs::File::open(path) else { return Ok(()) };
    let age = SystemTime::now().duration_since(directory.metadata()?.modified()?).unwrap_or_default();
    if age < UNLOCKED_FOR || directory.try_lock().is_err() {
        return Ok(());
    }
    fs::remove_dir_all(path)
}

/// What is known of an entry; nothing where there is none.
fn read(entry: &Path) -> Option<Entry> {
    serde_json::from_slice(&fs::read(entry.join(MARKER)).ok()?).ok()
}

/// Whether an entry is there and what it was when it was made.
fn is_sound(entry: &Path) -> bool {
    let Some(known) = read(entry) else { return false };
    let mut files = BTreeMap::new();
    look(&entry.join(CONTENT), Path::new(""), &mut files).is_ok() && files == known.files
}

/// Every file at a path, below which `name` is its own.
fn look(path: &Path, name: &Path, files: &mut BTreeMap<PathBuf, Untouched>) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        let untouched = Untouched {
            bytes: metadata.len(),
            modified_seconds: metadata.mtime(),
            modified_nanoseconds: metadata.mtime_nsec(),
        };
        files.insert(name.to_owned(), untouched);
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        look(&entry.path(), &name.join(entry.file_name()), files)?;
    }
    Ok(())
}

/// What makes one copy differ from another: the place, and every file with its version.
fn key(store: &Store, found: &Found) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("{}\n{}\n", store.identity, found.is_file));
    for file in &found.files {
        let version = file.meta.e_tag.clone().unwrap_or_else(|| file.meta.last_modified.to_rfc3339());
        hash.update(format!("{} {} {version}\n", file.meta.location, file.meta.size));
    }
    hex(&hash.finalize())
}

/// Links the copy to a place, whole or not at all.
fn link(content: &Path, target: &Path) -> io::Result<()> {
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent)?;
    let linked = partial.path().join(CONTENT);
    link_tree(content, &linked)?;
    match fs::rename(linked, target) {
        // Another worker prepares the same attempt and was faster.
        Err(_) if target.symlink_metadata().is_ok() => Ok(()),
        renamed => renamed,
    }
}

/// Scripts are to read it only.
fn protect(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            protect(&entry?.path())?;
        }
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o444))
}
