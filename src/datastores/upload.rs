//! Sending what a script wrote to a datastore.

use std::{
    collections::HashSet,
    fmt,
    fs::File,
    io::{self, Read as _},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream};
use object_store::{
    ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    buffered::BufWriter,
    path::{Path, PathPart},
};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::{
    error::{DataError, of_store},
    open::Store,
};

/// Files that are sent at once.
const CONCURRENCY: usize = 4;
/// Files up to this size are sent in one call, larger ones in parts of it.
const PART_BYTES: usize = 8 << 20;

/// How often a store may fail before the rest is not tried: each time its client has tried for long.
const GIVE_UP_AFTER: usize = 8;

/// A file to send.
pub struct LocalFile {
    /// Its path below the folder that it is sent to, with `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Opens it: not before its turn, since a process may have so many files open and no more.
    pub open: Box<dyn FnOnce() -> io::Result<File> + Send>,
}

impl fmt::Debug for LocalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalFile")
            .field("path", &self.path)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

/// Sends files below a folder of a datastore. Without `overwrite` a file that is there already must be the same: then it
/// was sent before, by a worker that did not get to say so.
///
/// # Errors
/// When a file cannot be sent; all the others are sent nevertheless, except to a store that fails again and again.
pub async fn upload(
    store: &Store,
    folder: &str,
    files: Vec<LocalFile>,
    overwrite: bool,
) -> Result<(), DataError> {
    let names: HashSet<String> = files.iter().map(|file| file.path.clone()).collect();
    let mut sends: Vec<BoxFuture<'_, Result<(), DataError>>> = Vec::with_capacity(files.len());
    for file in files {
        let name = sendable(&file.path, &names);
        let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
        sends.push(send(store, path, file, overwrite).boxed());
    }
    let count = sends.len();
    let mut sent = stream::iter(sends).buffered(CONCURRENCY);
    let (mut errors, mut failures, mut done) = (Vec::new(), 0, 0);
    while let Some(result) = sent.next().await {
        done += 1;
        if let Err(error) = result {
            failures += usize::from(matches!(error, DataError::Failed { .. }));
            errors.push(error);
        }
        if failures == GIVE_UP_AFTER {
            break;
        }
    }
    DataError::unsent(errors, count - done)
}

/// The path of a file as a key of a store, as it is where a store takes it; other bytes percent-encoded, and once more where
/// that is the path of another file.
fn sendable(path: &str, taken: &HashSet<String>) -> String {
    let part = |part| match PathPart::parse(part) {
        Ok(_) => part.to_owned(),
        Err(_) => PathPart::from(part).as_ref().to_owned(),
    };
    let mut text = path.split('/').map(part).collect::<Vec<_>>().join("/");
    while text != path && taken.contains(&text) {
        text = text.replace('%', "%25");
    }
    text
}

async fn send(store: &Store, path: String, file: LocalFile, overwrite: bool) -> Result<(), DataError> {
    let key = store.key(&path)?;
    let failed = |error| of_store(&store.name, &path, &error);
    let is_small = file.bytes <= PART_BYTES as u64;
    let file = (file.open)().map_err(DataError::io(&path))?;
    let mode = if overwrite { PutMode::Overwrite } else { PutMode::Create };
    if is_small {
        let content = read_all(&file, &path)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        let sent = store.inner.put_opts(&key, PutPayload::from_bytes(content.clone()), options).await;
        return match sent {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. }) => {
                is_the_same(store, &key, &path, &Sha256::digest(&content)).await
            }
            Err(error) => Err(failed(error)),
        };
    }
    if !overwrite {
        match store.inner.head(&key).await {
            Ok(_) => return is_the_same(store, &key, &path, &digest(&file, &path)?).await,
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let unreadable = DataError::io(&path);
    let mut reader = tokio::io::BufReader::with_capacity(1 << 20, tokio::fs::File::from_std(file));
    let mut writer =
        BufWriter::with_capacity(Arc::clone(&store.inner), key.clone(), PART_BYTES).with_max_concurrency(2);
    tokio::io::copy_buf(&mut reader, &mut writer).await.map_err(unreadable)?;
    writer.shutdown().await.map_err(|error| match error.downcast::<object_store::Error>() {
        Ok(error) => failed(error),
        Err(error) => DataError::io(&path)(error),
    })
}

fn read_all(file: &File, path: &str) -> Result<Bytes, DataError> {
    let mut content = Vec::new();
    file.take(PART_BYTES as u64).read_to_end(&mut content).map_err(DataError::io(path))?;
    Ok(content.into())
}

fn digest(file: &File, path: &str) -> Result<[u8; 32], DataError> {
    use std::io::Seek as _;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut content = file;
    loop {
        match content.read(&mut buffer).map_err(DataError::io(path))? {
            0 => break,
            count => hash.update(&buffer[..count]),
        }
    }
    content.rewind().map_err(DataError::io(path))?;
    Ok(hash.finalize().into())
}

/// Whether what is there already has this digest.
async fn is_the_same(store: &Store, key: &Path, path: &str, digest: &[u8]) -> Result<(), DataError> {
    let failed = |error| of_store(&store.name, path, &error);
    let mut content = store.inner.get(key).await.map_err(failed)?.into_stream();
    let mut hash = Sha256::new();
    while let Some(piece) = content.next().await {
        hash.update(&piece.map_err(failed)?);
    }
    if hash.finalize()[..] == *digest {
        Ok(())
    } else {
        Err(DataError::Exists { datastore: store.name.clone(), path: path.to_owned() })
    }
}
