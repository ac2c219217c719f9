//! Logs and outputs of runs.

use std::{fs::File, io, ops::Range, path::Path, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{
    GetOptions, GetRange, ObjectStore as _, ObjectStoreExt as _, PutPayload, buffered::BufWriter,
    path::Path as Key,
};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Artifacts, ArtifactsError, keys, remove_if_stale, snapshots::blocking};
use crate::domain::ids::RunId;

/// Objects up to this size are put in one call, larger ones in parts of it, of which a few are in memory at a time.
const PART_BYTES: usize = 1 << 20;

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredObject {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of its content, in lower-case hexadecimal digits.
    pub sha256: String,
}

impl Artifacts {
    /// Stores a segment of a log: one object, named by the offset at which it starts in the log. While it grows it
    /// may be put again, longer; readers see the old or the new one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_log_segment(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
        start: u64,
        bytes: Bytes,
    ) -> Result<(), ArtifactsError> {
        let key = keys::log_segment(run, attempt, name, start);
        let put = self.store.put(&key, PutPayload::from_bytes(bytes)).await;
        put.map(drop).map_err(ArtifactsError::store("cannot write", &key))
    }

    /// Reads from a segment. `range` counts from the segment's start; what lies behind its end is left out.
    ///
    /// # Errors
    /// When there is no such segment, or the store fails.
    pub async fn read_log_segment(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
        start: u64,
        range: Range<u64>,
    ) -> Result<Bytes, ArtifactsError> {
        let key = keys::log_segment(run, attempt, name, start);
        let failed = || ArtifactsError::store("cannot read", &key);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let error = match self.store.get_ranges(&key, std::slice::from_ref(&range)).await {
            Ok(parts) => return Ok(parts.into_iter().next().unwrap_or_default()),
            Err(error) => error,
        };
        // What reaches behind the end is an error like any other to the store; few ask for that.
        let length = self.store.head(&key).await.map_err(failed())?.size;
        let cut = range.start..range.end.min(length);
        if cut.is_empty() {
            return Ok(Bytes::new());
        }
        if cut == range {
            return Err(failed()(error));
        }
        self.store.get_range(&key, cut).await.map_err(failed())
    }

    /// Stores an output file under `name`, its first `length` bytes at most, whatever their number in the same memory.
    ///
    /// # Errors
    /// When it cannot be read or stored.
    pub async fn put_output(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
        file: File,
        length: u64,
    ) -> Result<StoredObject, ArtifactsError> {
        let key = keys::output(run, attempt, name);
        self.remove_interrupted(&key).await?;
        let mut source = tokio::fs::File::from_std(file).take(length);
        let mut upload = Upload::begin(self, key);
        let mut hash = Sha256::new();
        let mut bytes = 0;
        loop {
            let mut piece = BytesMut::with_capacity(1 << 20);
            let read = source.read_buf(&mut piece).await;
            let count = read.map_err(ArtifactsError::io("cannot read", Path::new(name)))?;
            if count == 0 {
                upload.finish().await?;
                return Ok(StoredObject { bytes, sha256: keys::hex(&hash.finalize()) });
            }
            hash.update(&piece);
            bytes += count as u64;
            upload.put(piece.freeze()).await?;
        }
    }

    /// Reads an output, or a part of it: its whole size and the bytes. A range that ends behind the end is cut.
    ///
    /// # Errors
    /// When there is none, the range begins behind its end ([`ArtifactsError::OutOfRange`]), or the store fails.
    pub async fn read_output(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
        range: Option<Range<u64>>,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, ArtifactsError>> + Send + Unpin + use<>), ArtifactsError>
    {
        let key = keys::output(run, attempt, name);
        let failed = || ArtifactsError::store("cannot read", &key);
        if let Some(range) = &range {
            let total = self.store.head(&key).await.map_err(failed())?.size;
            if range.start >= total || range.is_empty() {
                return Err(ArtifactsError::OutOfRange { key: key.to_string(), total });
            }
        }
        let options = GetOptions::new().with_range(range.map(GetRange::Bounded));
        let found = self.store.get_opts(&key, options).await.map_err(failed())?;
        let total = found.meta.size;
        let failed_later = move |error| ArtifactsError::store("cannot read", &key)(error);
        Ok((total, found.into_stream().map_err(failed_later)))
    }

    /// Removes all logs and outputs of a run; nothing there is fine.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_run(&self, run: RunId) -> Result<(), ArtifactsError> {
        self.delete_below(&keys::run(run)).await
    }

    /// Removes everything whose key begins with a prefix.
    pub(super) async fn delete_below(&self, prefix: &Key) -> Result<(), ArtifactsError> {
        let listed = self.store.list(Some(prefix)).map_ok(|object| object.location).boxed();
        let mut deleted = self.store.delete_stream(listed);
        while let Some(one) = deleted.next().await {
            match one {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(ArtifactsError::store("cannot delete", prefix)(error)),
            }
        }
        // The store lists neither directories nor the parts of interrupted writes.
        let directory = self.root.join(prefix.as_ref());
        match tokio::fs::remove_dir_all(&directory).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ArtifactsError::io("cannot remove", directory)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes what earlier, interrupted writes of this object left beside it: the store writes to `NAME#1`,
    /// or the next number that is free, and renames.
    pub(super) async fn remove_interrupted(&self, key: &Key) -> Result<(), ArtifactsError> {
        let place = self.root.join(key.as_ref());
        blocking(move || {
            for number in 1_u32.. {
                let mut staged = place.clone().into_os_string();
                staged.push(format!("#{number}"));
                if !remove_if_stale(staged.as_ref())? {
                    break;
                }
            }
            Ok(())
        })
        .await
    }
}

/// An object that is being written in parts and appears under its name when it is complete. Dropped before, it
/// leaves nothing.
pub(super) struct Upload {
    key: Key,
    writer: BufWriter,
}

impl Upload {
    pub(super) fn begin(artifacts: &Artifacts, key: Key) -> Self {
        let writer = BufWriter::with_capacity(Arc::clone(&artifacts.store), key.clone(), PART_BYTES)
            .with_max_concurrency(2);
        Self { key, writer }
    }

    pub(super) async fn put(&mut self, bytes: Bytes) -> Result<(), ArtifactsError> {
        self.writer.put(bytes).await.map_err(ArtifactsError::store("cannot write", &self.key))
    }

    pub(super) async fn finish(mut self) -> Result<(), ArtifactsError> {
        let (action, key) = ("cannot write", self.key.to_string());
        self.writer.shutdown().await.map_err(|error| match error.downcast::<object_store::Error>() {
            Ok(source) => ArtifactsError::Store { action, key, source },
            Err(error) => ArtifactsError::Store {
                action,
                key,
                source: object_store::Error::Generic { store: "buffered", source: Box::new(error) },
            },
        })
    }
}
