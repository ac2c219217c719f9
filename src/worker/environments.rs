//! The list of built environments follows what is on the disk of this node.

use std::{collections::HashSet, io};

use tracing::{info, warn};

use super::Context;
use crate::{
    backend::{ActualEnvironment, Backend},
    domain::built_environment::EnvironmentKey,
    storage::StorageError,
};

#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error("{0}")]
    Storage(#[from] StorageError),
    #[error("the environments cannot be looked at: {0}")]
    Disk(#[from] io::Error),
}

/// Counts that a run uses its environment. Should this fail, or the worker be killed before it, the run is none the worse
/// and the count lacks one.
pub(super) async fn count_use<B: Backend>(context: &Context<B>, actual: &ActualEnvironment) {
    let Some(key) = actual.build_key.as_deref().and_then(|key| key.parse().ok()) else { return };
    if let Err(error) = try_to_count(context, &key, actual.reused).await {
        warn!(environment.key = %key, "the use of environment {key} was not counted: {error}");
    }
}

async fn try_to_count<B: Backend>(
    context: &Context<B>,
    key: &EnvironmentKey,
    reused: bool,
) -> Result<(), RecordError> {
    let count = async || {
        let (storage, node) = (&context.storage, &context.settings.node);
        storage.count_environment_use(key, node, reused, context.clock.now()).await
    };
    // What was just built is not recorded yet, and may have to make room for itself.
    if !reused || !count().await? {
        try_to_record(context).await?;
        count().await?;
    }
    Ok(())
}

/// Removes what is over the limit, and brings the list up to date.
pub(super) async fn record<B: Backend>(context: &Context<B>) {
    if let Err(error) = try_to_record(context).await {
        warn!("the list of environments was not brought up to date: {error}");
    }
}

async fn try_to_record<B: Backend>(context: &Context<B>) -> Result<(), RecordError> {
    let node = &context.settings.node;
    // In this order: what is built between the two questions is in the second answer, and not taken for gone.
    let recorded = context.storage.environment_keys_of(node).await?;
    let kept = context.backend.tidy_environments().await?;
    let there: HashSet<&str> = kept.iter().map(|environment| environment.key.as_str()).collect();
    let gone: Vec<String> = recorded.into_iter().filter(|key| !there.contains(key.as_str())).collect();
    if !gone.is_empty() {
        info!("these environments are gone from this node: {}", gone.join(", "));
    }
    Ok(context.storage.record_environments(node, &gone, &kept, context.clock.now()).await?)
}
