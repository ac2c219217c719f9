//! Looks up what the rules need to know.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{error::ApiError, referents::Referents, scoped::Scoped};
use crate::{
    artifacts::ArtifactsError,
    domain::{
        facts::{Facts, SnapshotFacts, SourceLimits, Wanted},
        ids::SnapshotId,
    },
    storage::ACQUIRE_TIMEOUT,
};

/// What the rules read of one file: far more than any script or requirements file has.
const MAX_CONTENT_BYTES: u64 = 1 << 20;

/// The facts about everything that a body refers to, by what is [`Wanted`] of it.
///
/// # Errors
/// When the database or the artifact store fails.
pub async fn look_up(state: &Scoped, wanted: Wanted) -> Result<Facts, ApiError> {
    let referents = Referents { project: state.principal.project.clone(), snapshot: wanted.snapshot.clone() };
    let found = state.referents.done_in_time(referents, ACQUIRE_TIMEOUT).await??;
    let snapshot = match &wanted.snapshot {
        Some(id) if found.has_snapshot => snapshot(state, id, &wanted.contents).await?,
        _ => None,
    };
    let datastores = if wanted.datastores { state.storage.datastore_names().await? } else { BTreeSet::new() };
    let limits =
        SourceLimits { max_bytes: state.limits.max_unpacked_bytes, max_files: state.limits.max_files };
    let one_off_target = state.one_off_target.clone();
    Ok(Facts { limits, snapshot, targets: found.targets, one_off_target, datastores })
}

/// What the rules read of a snapshot that was there a moment ago.
async fn snapshot(
    state: &Scoped,
    id: &SnapshotId,
    wanted: &BTreeSet<String>,
) -> Result<Option<Arc<SnapshotFacts>>, ApiError> {
    if let Some(facts) = state.snapshot_cache.get(id, wanted) {
        return Ok(Some(facts));
    }
    let Some(files) = state.storage.snapshot_sizes(id).await? else { return Ok(None) };
    let present: BTreeSet<String> = wanted.iter().filter(|path| files.contains_key(*path)).cloned().collect();
    let contents = if present.is_empty() {
        BTreeMap::new()
    } else {
        match state.artifacts.snapshot_contents(id, &present, MAX_CONTENT_BYTES).await {
            // Deleted since its row was read: to whoever asks it is not there.
            Err(ArtifactsError::NotFound { .. }) if state.storage.get_snapshot(id).await?.is_none() => {
                return Ok(None);
            }
            contents => contents?,
        }
    };
    Ok(Some(state.snapshot_cache.put(id, SnapshotFacts { files, contents })))
}
