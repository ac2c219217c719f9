//! Runs: accepted, looked at, cancelled, followed.

pub(in crate::api) mod acceptance;
pub mod batch;
mod body;
pub mod cancel;
pub mod create;
pub mod events;
mod follow;
pub mod get;
pub mod list;
pub mod log_files;
mod log_reader;
pub mod logs;
pub mod metrics;
mod outlook;
pub mod outputs;
pub mod patch;
pub(in crate::api) mod placed;
pub mod put;
pub(in crate::api) mod readings;
pub mod rerun;
mod view;

pub use body::RunBody;
pub use view::{Cancellation, Run, RunAttempt, RunEnvironment};

use super::{error::ApiError, scoped::Scoped};
use crate::{domain::ids::RunId, storage::run_views::Progress};

/// Where a run is, or 404.
pub(in crate::api) async fn progress(state: &Scoped, id: RunId) -> Result<Progress, ApiError> {
    state.storage.run_progress(id).await?.ok_or_else(|| ApiError::not_found("run", id))
}
