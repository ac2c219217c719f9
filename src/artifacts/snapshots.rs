//! Snapshots: uploaded source trees under their content address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    fs::File,
    io::{self, BufWriter, Seek as _, SeekFrom, Write as _},
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{ObjectMeta, ObjectStore as _, ObjectStoreExt as _};
use tokio::{sync::mpsc, task::spawn_blocking};

use super::{
    ArchiveFormat, Artifacts, ArtifactsError, Limits, SnapshotError, archive, keys,
    objects::Upload,
    tree::{self, StoredTreeError, Tree},
};
use crate::domain::ids::SnapshotId;

/// How much is handed on at once of an upload: it is in memory a few times.
const PIECE: usize = 1 << 18;

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its path below the source directory, parts joined by `/`.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Whether its owner may execute it: all that is kept of its mode.
    pub executable: bool,
}

/// An upload that was read, and is not stored yet.
pub struct SnapshotUpload {
    /// Its content address.
    pub id: SnapshotId,
    tree: Tree,
}

/// What an upload has become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedSnapshot {
    /// Its content address.
    pub id: SnapshotId,
    /// Its files, sorted by path.
    pub files: Vec<SnapshotFile>,
    /// Their bytes together.
    pub bytes: u64,
    /// Whether it was stored before.
    pub existed: bool,
}

impl Artifacts {
    /// Reads an upload and stores it as a snapshot. The same tree has the same id, whatever archive it
    /// came in.
    ///
    /// # Errors
    /// When the upload is refused, or cannot be stored. Nothing of it is kept then.
    pub async fn receive_snapshot<S, E>(
        &self,
        format: ArchiveFormat,
        body: S,
        limits: &Limits,
    ) -> Result<ReceivedSnapshot, SnapshotError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: Display,
    {
        let upload = self.read_snapshot(format, body, limits).await?;
        Ok(self.keep_snapshot(upload).await?)
    }

    /// Reads an upload, and stores nothing yet.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn read_snapshot<S, E>(
        &self,
        format: ArchiveFormat,
        body: S,
        limits: &Limits,
    ) -> Result<SnapshotUpload, SnapshotError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: Display,
    {
        let upload = self.spool(body, limits.max_upload_bytes).await?;
        let (limits, scratch) = (*limits, Arc::clone(&self.scratch));
        blocking(move || {
            let tree = archive::read(upload, format, &limits, &scratch)?;
            let id = tree.id();
            Ok(SnapshotUpload { id, tree })
        })
        .await
    }

    /// Stores what was read, unless it is there already.
    ///
    /// # Errors
    /// When it cannot be stored. Nothing of it is kept then.
    pub async fn keep_snapshot(&self, upload: SnapshotUpload) -> Result<ReceivedSnapshot, ArtifactsError> {
        let SnapshotUpload { id, tree } = upload;
        let files = tree.files.iter().map(|file| SnapshotFile {
            path: file.path.clone(),
            bytes: file.content.bytes,
            executable: file.executable,
        });
        let files = files.collect();
        let bytes = tree.files.iter().map(|file| file.content.bytes).sum();
        let existed = self.has_snapshot(&id).await?;
        if !existed {
            self.store_snapshot(tree, &id).await?;
        }
        Ok(ReceivedSnapshot { id, files, bytes, existed })
    }

    /// The snapshots that were stored before `before`, by the store's clock.
    ///
    /// # Errors
    /// When the store cannot be listed.
    pub async fn list_snapshots(&self, before: DateTime<Utc>) -> Result<Vec<SnapshotId>, ArtifactsError> {
        let prefix = keys::snapshots();
        let stored: Vec<ObjectMeta> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(ArtifactsError::store("cannot list", &prefix))?;
        let old = stored.iter().filter(|object| object.last_modified < before);
        Ok(old.filter_map(|object| keys::snapshot_of(&object.location)).collect())
    }

    /// Writes the body to a nameless scratch file: zip is read from its end, and a slow sender must not hold
    /// a thread.
    async fn spool<S, E>(&self, mut body: S, limit: u64) -> Result<File, SnapshotError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: Display,
    {
        // Many connections send small pieces; writing each by a thread of its own would be slow.
        let scratch = Arc::clone(&self.scratch);
        let mut file = self.scratch_file().await?;
        let mut total = 0_u64;
        let mut buffer: Vec<u8> = Vec::with_capacity(PIECE);
        loop {
            let piece = body.next().await.transpose();
            let piece = piece.map_err(|error| SnapshotError::Body { detail: error.to_string() })?;
            let at_end = piece.is_none();
            let piece = piece.unwrap_or_default();
            total += piece.len() as u64;
            if total > limit {
                return Err(SnapshotError::UploadTooLarge { limit });
            }
            buffer.extend_from_slice(&piece);
            if at_end || buffer.len() >= PIECE {
                let scratch = Arc::clone(&scratch);
                (file, buffer) = blocking(move || {
                    file.write_all(&buffer)
                        .and_then(|()| if at_end { file.seek(SeekFrom::Start(0)).map(drop) } else { Ok(()) })
                        .map_err(ArtifactsError::io("cannot write a scratch file in", &*scratch))?;
                    buffer.clear();
                    Ok::<_, ArtifactsError>((file, buffer))
                })
                .await?;
            }
            if at_end {
                return Ok(file);
            }
        }
    }

    pub(super) async fn scratch_file(&self) -> Result<File, ArtifactsError> {
        let scratch = Arc::clone(&self.scratch);
        blocking(move || {
            tempfile::tempfile_in(&scratch)
                .map_err(ArtifactsError::io("cannot create a scratch file in", &*scratch))
        })
        .await
    }

    async fn store_snapshot(&self, tree: Tree, id: &SnapshotId) -> Result<(), ArtifactsError> {
        let (sender, mut pieces) = mpsc::channel(1);
        let scratch = Arc::clone(&self.scratch);
        let writing = blocking(move || {
            let written = tree.write_tar(BufWriter::with_capacity(PIECE, Pieces(sender)));
            written.map_err(ArtifactsError::io("cannot read a scratch file in", &*scratch))
        });
        let uploading = async move {
            let mut upload = Upload::begin(self, keys::snapshot(id));
            while let Some(piece) = pieces.recv().await {
                upload.put(piece).await?;
            }
            Ok::<_, ArtifactsError>(upload)
        };
        let (written, upload) = tokio::join!(writing, uploading);
        // Where it cannot be stored, nobody takes what is written either.
        let upload = upload?;
        written?;
        upload.finish().await
    }

    /// Whether a snapshot is stored.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub async fn has_snapshot(&self, id: &SnapshotId) -> Result<bool, ArtifactsError> {
        let key = keys::snapshot(id);
        match self.store.head(&key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ArtifactsError::store("cannot look up", &key)(error)),
        }
    }

    /// Unpacks a snapshot into `into`, which exists and is empty.
    ///
    /// # Errors
    /// When there is no such snapshot (`NotFound`), it is damaged (`InvalidData`), or the machine fails. The directory may hold
    /// a part of it then.
    pub async fn unpack_snapshot(&self, id: &SnapshotId, into: &Path) -> io::Result<()> {
        self.unpack_tar(self.open_snapshot(id).await?, id, into).await
    }

    /// Unpacks a snapshot's tar that was kept elsewhere; checked like one from this store.
    ///
    /// # Errors
    /// As [`Self::unpack_snapshot`].
    pub async fn unpack_tar(&self, tar: File, id: &SnapshotId, into: &Path) -> io::Result<()> {
        let (id, into) = (id.clone(), into.to_owned());
        blocking(move || {
            tree::unpack(tar, &id, &into).map_err(|error| match error {
                StoredTreeError::Io(error) => error,
                StoredTreeError::Damaged(detail) => damaged(&id, detail).into(),
            })
        })
        .await
    }

    /// The contents of some files of a snapshot. A path that is missing in the answer is no file of it, or one
    /// larger than `max_bytes_each`.
    ///
    /// # Errors
    /// When there is no such snapshot, or it cannot be read.
    pub async fn snapshot_contents(
        &self,
        id: &SnapshotId,
        paths: &BTreeSet<String>,
        max_bytes_each: u64,
    ) -> Result<BTreeMap<String, Vec<u8>>, ArtifactsError> {
        let tar = self.open_snapshot(id).await?;
        let (id, paths) = (id.clone(), paths.clone());
        blocking(move || {
            let found = tree::contents(tar, |path| paths.contains(path), max_bytes_each);
            found.map(BTreeMap::from_iter).map_err(|error| damaged(&id, error.to_string()))
        })
        .await
    }

    /// Removes a snapshot; one that is not there is fine.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_snapshot(&self, id: &SnapshotId) -> Result<(), ArtifactsError> {
        let key = keys::snapshot(id);
        match self.store.delete(&key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(ArtifactsError::store("cannot delete", &key)(error)),
        }
    }

    /// The stored tar as a file, open at its beginning; one from a remote store is fetched to a scratch file first.
    ///
    /// # Errors
    /// When there is no such snapshot, or it cannot be read.
    pub async fn open_snapshot(&self, id: &SnapshotId) -> Result<File, ArtifactsError> {
        self.open_object(&keys::snapshot(id)).await
    }
}

fn damaged(id: &SnapshotId, detail: String) -> ArtifactsError {
    ArtifactsError::Damaged { key: keys::snapshot(id).to_string(), detail }
}

/// Hands on what is written to it; whoever does not take it any more breaks the pipe.
struct Pieces(mpsc::Sender<Bytes>);

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Bytes::copy_from_slice(bytes));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs blocking work on its own thread; a panic in it goes on in the caller.
pub(super) async fn blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // Blocking work is only dropped before its start, when the runtime ends: nobody waits for the answer then.
        Err(_) => std::future::pending().await,
    }
}
