//! Copying what was found to this machine: whole or not at all.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, future::BoxFuture, stream};
use object_store::{GetOptions, ObjectStore as _};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{
    error::{DataError, of_store},
    find::{Found, FoundFile},
    open::Store,
};

/// Files that are copied at once.
const CONCURRENCY: usize = 8;
/// How often a file is tried, beyond what the store's client itself tries.
const TRIES: u32 = 3;
/// Before another try; doubled each time.
const PAUSE: Duration = Duration::from_millis(500);

/// What was copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Downloaded {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// SHA-256 over the lines `<digest>  <path>` of all files in order, as `sha256sum` prints them; in hexadecimal digits.
    pub sha256: String,
}

/// Copies what was found to `target`, which is made: a folder, or the file itself. Nothing is at `target` before all of it
/// is there. A file that changes meanwhile fails the copy.
///
/// # Errors
/// When the store fails for good, or this machine does.
pub async fn download(store: &Store, found: &Found, target: &Path) -> Result<Downloaded, DataError> {
    let parent = target.parent().unwrap_or(target);
    fs::create_dir_all(parent).map_err(DataError::io(parent))?;
    let partial =
        tempfile::Builder::new().prefix(".partial-").tempdir_in(parent).map_err(DataError::io(parent))?;
    let folder = partial.path().join("content");
    fs::create_dir(&folder).map_err(DataError::io(&folder))?;
    let mut copies: Vec<BoxFuture<'_, Result<String, DataError>>> = Vec::with_capacity(found.files.len());
    for file in &found.files {
        copies.push(copy(store, file, folder.join(&file.path)).boxed());
    }
    let digests: Vec<String> = stream::iter(copies).buffered(CONCURRENCY).try_collect().await?;
    let mut lines = String::new();
    for (file, digest) in found.files.iter().zip(&digests) {
        // Writing to a text cannot fail.
        let _ = writeln!(lines, "{digest}  {}", file.path);
    }
    let whole = match &found.files[..] {
        [file] if found.is_file => folder.join(&file.path),
        _ => folder,
    };
    match fs::rename(&whole, target) {
        Ok(()) => {}
        // Another worker prepares the same attempt and was faster; what it put there is as whole as this.
        Err(_) if target.symlink_metadata().is_ok() => {}
        Err(error) => return Err(DataError::io(target)(error)),
    }
    Ok(Downloaded { files: digests.len(), bytes: found.bytes(), sha256: hex(&Sha256::digest(lines)) })
}

/// Copies one file; its digest.
async fn copy(store: &Store, file: &FoundFile, place: PathBuf) -> Result<String, DataError> {
    let mut pause = PAUSE;
    for _ in 1..TRIES {
        match try_to_copy(store, file, &place).await {
            Err(error) if !error.is_permanent() => {
                tracing::warn!("{error}; trying again");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
    try_to_copy(store, file, &place).await
}

async fn try_to_copy(store: &Store, file: &FoundFile, place: &Path) -> Result<String, DataError> {
    let path = store.path_of(&file.meta.location).unwrap_or_default();
    let failed = |error| match error {
        object_store::Error::Precondition { .. } => changed(store, &path),
        error => of_store(&store.name, &path, &error),
    };
    // What is copied must be what was found.
    let options = GetOptions { if_match: file.meta.e_tag.clone(), ..GetOptions::default() };
    let found = store.inner.get_opts(&file.meta.location, options).await.map_err(failed)?;
    let mut content = found.into_stream();
    let parent = place.parent().unwrap_or(place);
    tokio::fs::create_dir_all(parent).await.map_err(DataError::io(parent))?;
    let mut copy = tokio::fs::File::create(place).await.map_err(DataError::io(place))?;
    let (mut hash, mut bytes) = (Sha256::new(), 0_u64);
    while let Some(piece) = content.next().await {
        let piece = piece.map_err(failed)?;
        hash.update(&piece);
        bytes += piece.len() as u64;
        copy.write_all(&piece).await.map_err(DataError::io(place))?;
    }
    copy.flush().await.map_err(DataError::io(place))?;
    if bytes != file.meta.size {
        return Err(changed(store, &path));
    }
    Ok(hex(&hash.finalize()))
}

fn changed(store: &Store, path: &str) -> DataError {
    let detail = "it was changed while it was copied".to_owned();
    DataError::Failed { datastore: store.name.clone(), path: path.to_owned(), detail }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes the copy of a tree by hard links, all of it or nothing; a single file likewise.
pub(super) fn link_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    if from.is_file() {
        return fs::hard_link(from, to);
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let place: PathBuf = to.join(entry.file_name());
        link_tree(&entry.path(), &place)?;
    }
    Ok(())
}
