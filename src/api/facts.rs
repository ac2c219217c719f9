//! Looks up what the rules need to know.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::{error::ApiError, scoped::Scoped};
use crate::{
    artifacts::ArtifactsError,
    domain::{
        facts::{Facts, SnapshotFacts, SourceLimits, Wanted},
        judge,
    },
};

/// What the rules read of one file: far more than any script or requirements file has.
const MAX_CONTENT_BYTES: u64 = 1 << 20;

/// The facts about everything that a body refers to.
///
/// # Errors
/// When the database or the artifact store fails.
pub async fn look_up(state: &Scoped, body: &Map<String, Value>) -> Result<Facts, ApiError> {
    let wanted = judge::wanted(body);
    let targets = state.storage.list_compute_targets().await?;
    let targets = targets.into_iter().map(|stored| stored.target).collect();
    let snapshot = snapshot(state, &wanted).await?;
    let datastores = if wanted.datastores { state.storage.datastore_names().await? } else { BTreeSet::new() };
    let limits =
        SourceLimits { max_bytes: state.limits.max_unpacked_bytes, max_files: state.limits.max_files };
    let one_off_target = state.one_off_target.clone();
    Ok(Facts { limits, snapshot, targets, one_off_target, datastores })
}

async fn snapshot(state: &Scoped, wanted: &Wanted) -> Result<Option<SnapshotFacts>, ApiError> {
    let Some(id) = &wanted.snapshot else { return Ok(None) };
    let Some(files) = state.storage.snapshot_sizes(id).await? else { return Ok(None) };
    let present: BTreeSet<String> =
        wanted.contents.iter().filter(|path| files.contains_key(*path)).cloned().collect();
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
    Ok(Some(SnapshotFacts { files, contents }))
}
