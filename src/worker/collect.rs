//! Bringing logs and outputs from the compute into the artifact store: logs while they grow, outputs at the end.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read as _, Seek as _, SeekFrom},
};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{Context, records::RecordProgress, staging};
use crate::{
    backend::{Attempt, AttemptFile, Backend, Observation},
    domain::{collection, run::LOG_SEGMENT_BYTES},
    storage::{StorageError, leases::Lease, transitions::Written},
};

/// Why something could not be collected.
#[derive(Debug, thiserror::Error)]
pub(in crate::worker) enum CollectError {
    /// The compute's side.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The artifact store's side.
    #[error("cannot store {name}: {detail}")]
    Store {
        /// The file.
        name: String,
        /// Why.
        detail: String,
    },
    /// The database's side.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Somebody else has the run.
    #[error("the lease was lost")]
    LeaseLost,
}

/// How far everything that grows while an attempt runs has been brought over.
#[derive(Debug, Default)]
pub(in crate::worker) struct Progress {
    logs: LogProgress,
    records: RecordProgress,
}

impl Progress {
    /// What an earlier worker has brought over already.
    pub(in crate::worker) async fn resume<B>(
        context: &Context<B>,
        attempt: &Attempt,
    ) -> Result<Self, StorageError> {
        let logs = LogProgress::resume(context, attempt).await?;
        Ok(Self { logs, records: RecordProgress::resume(context, attempt).await? })
    }

    /// Whether anything was taken over that the script recorded.
    pub(in crate::worker) fn has_records(&self) -> bool {
        self.records.has_any()
    }

    /// Brings over what was added; with `finally`, all of it and for good.
    pub(in crate::worker) async fn advance<B: Backend>(
        &mut self,
        context: &Context<B>,
        lease: &Lease,
        attempt: &Attempt,
        finally: bool,
    ) -> Result<(), CollectError> {
        self.records.advance(context, lease, attempt, finally).await?;
        self.logs.advance(context, lease, attempt, finally).await
    }
}

/// How far each log of one attempt has been brought over.
#[derive(Debug, Default)]
struct LogProgress {
    stored: HashMap<String, u64>,
}

impl LogProgress {
    async fn resume<B>(context: &Context<B>, attempt: &Attempt) -> Result<Self, StorageError> {
        let logs = context.storage.list_run_logs(attempt.run_id, attempt.number).await?;
        Ok(Self { stored: logs.into_iter().map(|log| (log.name, log.bytes)).collect() })
    }

    /// Brings over what was added to the logs. With `finally`, everything that is there, marked as complete: files that
    /// the script may have rewritten are brought over whole.
    async fn advance<B: Backend>(
        &mut self,
        context: &Context<B>,
        lease: &Lease,
        attempt: &Attempt,
        finally: bool,
    ) -> Result<(), CollectError> {
        let files = context
            .backend
            .log_files(attempt)
            .await
            .map_err(|source| CollectError::Read { name: "the list of logs".to_owned(), source })?;
        let there: HashSet<&str> = files.iter().map(|file| file.name.as_str()).collect();
        let kept = collection::logs(names_and_sizes(&files), &context.settings.limits);
        for (place, bytes) in kept.files {
            let file = &AttemptFile { bytes, ..files[place].clone() };
            let stored = self.stored.get(&file.name).copied();
            let rewritable = !file.name.starts_with("user_logs/") && !file.name.starts_with("azureml-logs/");
            let from = if finally && rewritable { 0 } else { stored.unwrap_or(0) };
            if !finally && stored.is_some_and(|stored| file.bytes <= stored) {
                continue;
            }
            store_segments(context, attempt, file, from).await?;
            let written =
                context.storage.record_log(lease, attempt.number, &file.name, file.bytes, finally).await?;
            if written != Written::Done {
                return Err(CollectError::LeaseLost);
            }
            self.stored.insert(file.name.clone(), file.bytes);
        }
        if finally {
            // A log that the script removed keeps what had been brought over; it is complete all the same.
            for (name, bytes) in self.stored.iter().filter(|(name, _)| !there.contains(name.as_str())) {
                context.storage.record_log(lease, attempt.number, name, *bytes, true).await?;
            }
            note(context, lease, "collection", kept.note).await?;
        }
        Ok(())
    }
}

fn names_and_sizes(files: &[AttemptFile]) -> impl Iterator<Item = (&str, u64)> {
    files.iter().map(|file| (file.name.as_str(), file.bytes))
}

/// Says in the run's history what was not kept.
async fn note<B>(
    context: &Context<B>,
    lease: &Lease,
    kind: &'static str,
    note: Option<String>,
) -> Result<(), CollectError> {
    let Some(note) = note else { return Ok(()) };
    match context.storage.note_run_event(lease, kind, &note, context.clock.now()).await? {
        Written::LeaseLost => Err(CollectError::LeaseLost),
        Written::Done | Written::StatusIs(_) => Ok(()),
    }
}

/// Puts the segments of a file from the one that holds byte `from` on.
async fn store_segments<B>(
    context: &Context<B>,
    attempt: &Attempt,
    file: &AttemptFile,
    from: u64,
) -> Result<(), CollectError> {
    let mut start = from - from % LOG_SEGMENT_BYTES;
    while start < file.bytes {
        let length = LOG_SEGMENT_BYTES.min(file.bytes - start);
        let source = file.clone();
        let bytes = spawn_blocking(move || read_range(&source, start, length))
            .await
            .map_err(io::Error::other)
            .and_then(|read| read)
            .map_err(|source| CollectError::Read { name: file.name.clone(), source })?;
        context
            .artifacts
            .put_log_segment(attempt.run_id, attempt.number, &file.name, start, bytes)
            .await
            .map_err(|error| CollectError::Store { name: file.name.clone(), detail: error.to_string() })?;
        start += length;
    }
    Ok(())
}

/// Exactly `length` bytes from `start` on; a file that has shrunk meanwhile is padded with nothing and read shorter.
pub(in crate::worker) fn read_range(file: &AttemptFile, start: u64, length: u64) -> io::Result<Bytes> {
    let mut file = file.open()?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Brings over the outputs of an attempt that has ended.
pub(in crate::worker) async fn collect_outputs<B: Backend>(
    context: &Context<B>,
    lease: &Lease,
    attempt: &Attempt,
) -> Result<(), CollectError> {
    let files = context
        .backend
        .output_files(attempt)
        .await
        .map_err(|source| CollectError::Read { name: "the list of outputs".to_owned(), source })?;
    let kept = collection::outputs(names_and_sizes(&files), &context.settings.limits);
    for (place, bytes) in kept.files {
        let file = &files[place];
        let failed = |source| CollectError::Read { name: file.name.clone(), source };
        let content = spawn_blocking({
            let file = file.clone();
            move || file.open()
        });
        // Nothing of it runs any more: what it has grown by since it was listed was written by something else.
        let content = content.await.map_err(io::Error::other).and_then(|opened| opened).map_err(failed)?;
        let object = context
            .artifacts
            .put_output(attempt.run_id, attempt.number, &file.name, content, bytes)
            .await
            .map_err(|error| CollectError::Store { name: file.name.clone(), detail: error.to_string() })?;
        let written = context
            .storage
            .record_output(lease, attempt.number, &file.name, object.bytes, &object.sha256)
            .await?;
        if written != Written::Done {
            return Err(CollectError::LeaseLost);
        }
    }
    note(context, lease, "collection", kept.note).await?;
    let missing = context.backend.missing_files(attempt).await;
    let missing = missing
        .map_err(|source| CollectError::Read { name: "the list of outputs".to_owned(), source })?
        .map(|why| format!("not everything could be collected: {why}"));
    note(context, lease, "collection", missing).await?;
    note_places_that_are_gone(context, lease, attempt).await
}

/// Says of which inputs nothing is sent, because the script took away what it was to write into.
async fn note_places_that_are_gone<B: Backend>(
    context: &Context<B>,
    lease: &Lease,
    attempt: &Attempt,
) -> Result<(), CollectError> {
    let gone = staging::uploads_that_are_gone(&context.backend.staging(attempt), &attempt.plan);
    if gone.is_empty() {
        return Ok(());
    }
    // What never began took nothing away.
    match context.backend.observe(attempt).await {
        Ok(Observation::Exited(exit)) if exit.started_at.is_some() => {}
        _ => return Ok(()),
    }
    for input in gone {
        let why = "nothing is sent, because the script removed its directory or put something else there";
        note(context, lease, "data", Some(format!("the input `{input}`: {why}"))).await?;
    }
    Ok(())
}
