//! What workers and the pods of an attempt hand each other, and what workers note of it for each other: below the run's own
//! objects, so that it goes with them.

use std::{fmt::Display, fs::File};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use object_store::{
    GetResultPayload, ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode, PutOptions, PutPayload,
    path::Path as Key,
};
use serde::{Serialize, de::DeserializeOwned};

use super::{Artifacts, ArtifactsError, keys, objects::Upload, snapshots::blocking};
use crate::domain::{exchange::PartName, ids::RunId};

/// What a pod has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// Which pod.
    pub part: PartName,
    /// Whether it is all that there will be of it.
    pub is_final: bool,
    /// Its size.
    pub bytes: u64,
    /// Another one whenever its content is another one.
    pub version: String,
}

/// Why something that a pod sends is not kept.
#[derive(Debug, thiserror::Error)]
pub enum ReturnedError {
    /// It breaks off.
    #[error("the upload breaks off: {0}")]
    Body(String),
    /// It is too large.
    #[error("the upload has more than {limit} bytes")]
    TooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] ArtifactsError),
}

const FINAL: &str = ".final.tar";
const PARTIAL: &str = ".partial.tar";

fn version(meta: &ObjectMeta) -> String {
    format!(
        "{} {} {}",
        meta.size,
        meta.last_modified.timestamp_micros(),
        meta.e_tag.as_deref().unwrap_or_default()
    )
}

impl Artifacts {
    /// Stores what the pods of an attempt begin with: one tar.
    ///
    /// # Errors
    /// When it cannot be read or stored.
    pub async fn put_bundle(&self, run: RunId, attempt: u32, file: File) -> Result<(), ArtifactsError> {
        let key = keys::bundle(run, attempt);
        self.remove_interrupted(&key).await?;
        let mut file = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(file), 1 << 20);
        let mut upload = Upload::begin(self, key);
        while let Some(piece) = file.next().await {
            upload
                .put(piece.map_err(ArtifactsError::io("cannot read the bundle for", run.to_string()))?)
                .await?;
        }
        upload.finish().await
    }

    /// Whether there is a bundle for an attempt.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_bundle(&self, run: RunId, attempt: u32) -> Result<bool, ArtifactsError> {
        let key = keys::bundle(run, attempt);
        match self.store.head(&key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(ArtifactsError::store("cannot look up", &key)(error)),
        }
    }

    /// The bundle of an attempt: its size and its bytes.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn read_bundle(
        &self,
        run: RunId,
        attempt: u32,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, ArtifactsError>> + Send + Unpin + use<>), ArtifactsError>
    {
        let key = keys::bundle(run, attempt);
        let found = self.store.get(&key).await.map_err(ArtifactsError::store("cannot read", &key))?;
        let bytes = found.meta.size;
        let failed = move |error| ArtifactsError::store("cannot read", &key)(error);
        Ok((bytes, found.into_stream().map_err(failed)))
    }

    /// Takes what a pod sends in place of what it sent before: whole, or not at all. What is final stays, whatever comes later.
    ///
    /// # Errors
    /// When it breaks off, has more than `limit` bytes, or cannot be stored. What was there stays then.
    pub async fn put_returned<S, E>(
        &self,
        run: RunId,
        attempt: u32,
        part: &PartName,
        is_final: bool,
        mut body: S,
        limit: u64,
    ) -> Result<(), ReturnedError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send + Unpin,
        E: Display,
    {
        let key = keys::returned(run, attempt).join(name(part, is_final));
        self.remove_interrupted(&key).await?;
        let mut upload = Upload::begin(self, key);
        let mut total = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|error| ReturnedError::Body(error.to_string()))?;
            total += piece.len() as u64;
            if total > limit {
                return Err(ReturnedError::TooLarge { limit });
            }
            upload.put(piece).await?;
        }
        Ok(upload.finish().await?)
    }

    /// What the pods of an attempt have sent: of each what is final, or what there is until then.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn list_returned(&self, run: RunId, attempt: u32) -> Result<Vec<Returned>, ArtifactsError> {
        let prefix = keys::returned(run, attempt);
        let objects: Vec<ObjectMeta> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(ArtifactsError::store("cannot list", &prefix))?;
        let mut found: Vec<Returned> = objects.iter().filter_map(read).collect();
        // Of the same part the final one comes first.
        found.sort_by(|a, b| a.part.cmp(&b.part).then(b.is_final.cmp(&a.is_final)));
        found.dedup_by(|later, first| later.part == first.part);
        Ok(found)
    }

    /// What a pod has sent, open at its beginning.
    ///
    /// # Errors
    /// When there is none, or the store fails.
    pub async fn open_returned(
        &self,
        run: RunId,
        attempt: u32,
        part: &PartName,
        is_final: bool,
    ) -> Result<File, ArtifactsError> {
        let key = keys::returned(run, attempt).join(name(part, is_final));
        self.open_object(&key).await
    }

    /// An object as a file, open at its beginning; one from a remote store is fetched to a scratch file first.
    pub(super) async fn open_object(&self, key: &Key) -> Result<File, ArtifactsError> {
        use std::io::{Seek as _, SeekFrom, Write as _};
        let found = self.store.get(key).await.map_err(ArtifactsError::store("cannot read", key))?;
        let mut stream = match found.payload {
            GetResultPayload::File(file, _) => return Ok(file),
            GetResultPayload::Stream(stream) => stream,
        };
        let mut file = self.scratch_file().await?;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(ArtifactsError::store("cannot read", key))?;
            let scratch = self.scratch.clone();
            file = blocking(move || {
                let written = file.write_all(&piece);
                written
                    .map_err(ArtifactsError::io("cannot write a scratch file in", &*scratch))
                    .map(|()| file)
            })
            .await?;
        }
        file.seek(SeekFrom::Start(0))
            .map_err(ArtifactsError::io("cannot read a scratch file in", &*self.scratch))?;
        Ok(file)
    }

    /// Notes something of an attempt, in place of what was noted under this name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put_note<T: Serialize + Sync>(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
        note: &T,
    ) -> Result<(), ArtifactsError> {
        let key = keys::note(run, attempt, name);
        let put = self.store.put(&key, payload(&key, note)?).await;
        put.map(drop).map_err(ArtifactsError::store("cannot write", &key))
    }

    /// Notes something of an attempt unless something is noted under this name; whether it was.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_note<T: Serialize + Sync>(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
        note: &T,
    ) -> Result<bool, ArtifactsError> {
        let key = keys::note(run, attempt, name);
        let options = PutOptions::from(PutMode::Create);
        match self.store.put_opts(&key, payload(&key, note)?, options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(ArtifactsError::store("cannot write", &key)(error)),
        }
    }

    /// What was noted of an attempt under a name.
    ///
    /// # Errors
    /// When the store fails, or it cannot be read back.
    pub async fn get_note<T: DeserializeOwned>(
        &self,
        run: RunId,
        attempt: u32,
        name: &str,
    ) -> Result<Option<T>, ArtifactsError> {
        let key = keys::note(run, attempt, name);
        let failed = || ArtifactsError::store("cannot read", &key);
        let bytes = match self.store.get(&key).await {
            Ok(found) => found.bytes().await.map_err(failed())?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed()(error)),
        };
        let note = serde_json::from_slice(&bytes);
        note.map(Some)
            .map_err(|error| ArtifactsError::Damaged { key: key.to_string(), detail: error.to_string() })
    }

    /// Removes everything that workers and pods handed each other; nothing there is fine.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_exchange(&self, run: RunId, attempt: u32) -> Result<(), ArtifactsError> {
        self.delete_below(&keys::exchange(run, attempt)).await
    }
}

impl Artifacts {
    /// The same for all attempts of a run.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_exchanges(&self, run: RunId) -> Result<(), ArtifactsError> {
        let prefix = keys::run(run);
        let attempts = self.store.list_with_delimiter(Some(&prefix)).await;
        for attempt in attempts.map_err(ArtifactsError::store("cannot list", &prefix))?.common_prefixes {
            if let Some(number) = attempt.filename().and_then(|name| name.parse().ok()) {
                self.delete_exchange(run, number).await?;
            }
        }
        Ok(())
    }
}

fn name(part: &PartName, is_final: bool) -> String {
    format!("{}{}", part.as_str(), if is_final { FINAL } else { PARTIAL })
}

fn read(object: &ObjectMeta) -> Option<Returned> {
    let name = object.location.filename()?;
    let (part, is_final) = match name.strip_suffix(FINAL) {
        Some(part) => (part, true),
        None => (name.strip_suffix(PARTIAL)?, false),
    };
    Some(Returned { part: part.parse().ok()?, is_final, bytes: object.size, version: version(object) })
}

fn payload<T: Serialize>(key: &Key, note: &T) -> Result<PutPayload, ArtifactsError> {
    let bytes = serde_json::to_vec(note)
        .map_err(|error| ArtifactsError::Damaged { key: key.to_string(), detail: error.to_string() })?;
    Ok(PutPayload::from(bytes))
}
