//! Copies of remote data that several runs read: kept on this machine under what they were made of.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use sha2::{Digest as _, Sha256};

use super::{
    download::{Downloaded, download, hex, link_tree},
    error::DataError,
    find::Found,
    open::Store,
};

/// The copy within an entry.
const CONTENT: &str = "content";
/// No copy takes so long.
const STALE_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Written last: an entry without it was never finished.
const MARKER: &str = "complete.json";

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
        loop {
            if !entry.join(MARKER).is_file() {
                downloaded = Some(self.fill(store, found, &entry).await?);
            }
            match link(&entry.join(CONTENT), target) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound && !entry.join(MARKER).is_file() => {}
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

    async fn fill(&self, store: &Store, found: &Found, entry: &Path) -> Result<Downloaded, DataError> {
        let partial = tempfile::Builder::new()
            .prefix("partial-")
            .tempdir_in(&self.root)
            .map_err(DataError::io(&self.root))?;
        let downloaded = download(store, found, &partial.path().join(CONTENT)).await?;
        protect(&partial.path().join(CONTENT)).map_err(DataError::io(entry))?;
        fs::write(partial.path().join(MARKER), found.bytes().to_string()).map_err(DataError::io(entry))?;
        match fs::rename(partial.path(), entry) {
            Ok(()) => drop(partial.keep()),
            // Another run was faster.
            Err(_) if entry.join(MARKER).is_file() => {}
            Err(error) => return Err(DataError::io(entry)(error)),
        }
        Ok(downloaded)
    }

    /// Removes the least recently used entries but this one, until the rest fits; and what a crash left long ago.
    fn evict(&self, but: &Path) -> io::Result<()> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let Ok(marker) = fs::metadata(path.join(MARKER)) else {
                remove_if_stale(&path)?;
                continue;
            };
            let bytes: u64 = fs::read_to_string(path.join(MARKER))?.trim().parse().unwrap_or(u64::MAX);
            entries.push((marker.modified()?, bytes, path));
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

/// Whoever makes an entry renames it when it is whole. What nobody has touched for long was left by a crash.
fn remove_if_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
    if age > STALE_AFTER { fs::remove_dir_all(path) } else { Ok(()) }
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
