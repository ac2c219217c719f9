//! Runs: accepted, looked at, cancelled, followed.

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
pub mod outputs;
pub(in crate::api) mod placed;
mod view;

pub use body::RunBody;
pub use view::{BlockedBy, Run, RunAttempt, RunEnvironment};

use super::{error::ApiError, state::ApiState};
use crate::{domain::ids::RunId, storage::run_views::Progress};

/// Where a run is, or 404.
pub(in crate::api) async fn progress(state: &ApiState, id: RunId) -> Result<Progress, ApiError> {
    state.storage.run_progress(id).await?.ok_or_else(|| ApiError::not_found("run", id))
}
