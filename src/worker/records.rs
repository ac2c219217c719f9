//! Taking over what scripts record: each part of a file together with how far it was read, so that a worker that dies
//! neither loses a value nor has it twice.

use std::{collections::HashMap, io};

use chrono::{DateTime, Utc};
use tokio::task::spawn_blocking;

use super::{
    Context,
    collect::{CollectError, read_range},
};
use crate::{
    backend::{Attempt, AttemptFile, Backend},
    domain::record::{self, Batch, MAX_ATTEMPT_BYTES, MAX_FILES, MAX_LINE_BYTES},
    storage::{
        StorageError,
        leases::Lease,
        run_metrics::{RecordFile, RecordPart},
        transitions::Written,
    },
};

/// How much of a file is taken over in one transaction: the longest line and a good many short ones.
const PART_BYTES: u64 = 4 * MAX_LINE_BYTES;

/// How far one file has been taken over.
#[derive(Debug, Default)]
struct Place {
    file: RecordFile,
    /// The latest time in it.
    last: DateTime<Utc>,
}

/// How far the records of one attempt have been taken over.
#[derive(Debug, Default)]
pub(in crate::worker) struct RecordProgress {
    places: HashMap<String, Place>,
}

impl RecordProgress {
    /// What an earlier worker has taken over already.
    pub(in crate::worker) async fn resume<B>(
        context: &Context<B>,
        attempt: &Attempt,
    ) -> Result<Self, StorageError> {
        let files = context.storage.list_record_files(attempt.run_id, attempt.number).await?;
        let place = |file: RecordFile| (file.name.clone(), Place { file, last: DateTime::UNIX_EPOCH });
        Ok(Self { places: files.into_iter().map(place).collect() })
    }

    /// Whether there is a file of which anything was taken over.
    pub(in crate::worker) fn has_any(&self) -> bool {
        !self.places.is_empty()
    }

    /// Takes over what was added. With `finally`, also a last line without an end.
    pub(in crate::worker) async fn advance<B: Backend>(
        &mut self,
        context: &Context<B>,
        lease: &Lease,
        attempt: &Attempt,
        finally: bool,
    ) -> Result<(), CollectError> {
        let files = context
            .backend
            .record_files(attempt)
            .await
            .map_err(|source| CollectError::Read { name: "the list of records".to_owned(), source })?;
        for file in files {
            // What the script put there itself is nothing that the module wrote.
            let Some(rank) = record::rank_of(&file.name) else { continue };
            if !self.places.contains_key(&file.name) && self.places.len() >= MAX_FILES {
                continue;
            }
            self.advance_file(context, lease, attempt, &file, rank, finally).await?;
        }
        Ok(())
    }

    async fn advance_file<B>(
        &mut self,
        context: &Context<B>,
        lease: &Lease,
        attempt: &Attempt,
        file: &AttemptFile,
        rank: i32,
        finally: bool,
    ) -> Result<(), CollectError> {
        loop {
            let taken: u64 = self.places.values().map(|place| place.file.bytes).sum();
            let place = self.places.entry(file.name.clone()).or_default();
            let at = place.file.bytes;
            if place.file.fault.is_some() || at >= file.bytes {
                return Ok(());
            }
            let (source, length) = (file.clone(), PART_BYTES.min(file.bytes - at));
            let bytes = spawn_blocking(move || read_range(&source, at, length))
                .await
                .map_err(io::Error::other)
                .and_then(|read| read)
                .map_err(|source| CollectError::Read { name: file.name.clone(), source })?;
            let is_last = finally && at + length >= file.bytes;
            let mut batch = record::read_batch(&bytes, at, is_last, &mut place.last);
            if taken + batch.bytes > MAX_ATTEMPT_BYTES {
                let fault = format!("the records of an attempt may have {MAX_ATTEMPT_BYTES} bytes");
                batch = Batch { fault: Some(fault), ..Batch::default() };
            }
            if batch.bytes == 0 && batch.fault.is_none() {
                // A line that is not whole yet.
                return Ok(());
            }
            let after = RecordFile { name: file.name.clone(), bytes: at + batch.bytes, fault: batch.fault };
            let part = RecordPart { attempt: attempt.number, file: &after, rank, records: &batch.records };
            let written = context.storage.take_records(lease, &part, context.clock.now()).await?;
            if written != Written::Done {
                return Err(CollectError::LeaseLost);
            }
            place.file = after;
        }
    }
}
