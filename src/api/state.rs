//! What every operation may reach.

use std::sync::Arc;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{ApiSettings, auth::Token, error::ApiError, metrics::HttpMetrics};
use crate::{
    artifacts::{Artifacts, Limits},
    clock::Clock,
    domain::compute_target::ComputeTargetName,
    figures::RunFigures,
    storage::Storage,
    vault::Vault,
};

/// Requests that are being answered at once. Beyond it a caller is told to come back: a queue would only hide it.
const MAX_REQUESTS: usize = 1024;

/// Answers that stay open (follows, event streams). Each asks the database four times a second.
const MAX_STREAMS: usize = 256;

/// What every operation may reach.
pub struct ApiState {
    pub(in crate::api) storage: Storage,
    pub(in crate::api) artifacts: Artifacts,
    pub(in crate::api) limits: Limits,
    pub(in crate::api) one_off_target: Option<ComputeTargetName>,
    pub(in crate::api) clock: Arc<dyn Clock>,
    pub(in crate::api) wakeup: Arc<Notify>,
    pub(in crate::api) token: Option<Token>,
    pub(in crate::api) vault: Option<Vault>,
    pub(in crate::api) shutdown: CancellationToken,
    pub(in crate::api) metrics: HttpMetrics,
    pub(in crate::api) figures: RunFigures,
    pub(in crate::api) requests: Semaphore,
    streams: Arc<Semaphore>,
}

/// The state as handlers get it.
pub type Shared = Arc<ApiState>;

impl ApiState {
    pub(in crate::api) fn new(settings: ApiSettings) -> Self {
        Self {
            storage: settings.storage,
            artifacts: settings.artifacts,
            limits: settings.limits,
            one_off_target: settings.one_off_target,
            clock: settings.clock,
            wakeup: settings.wakeup,
            token: settings.token.as_deref().map(Token::new),
            vault: settings.vault,
            shutdown: settings.shutdown,
            metrics: HttpMetrics::new(),
            figures: settings.figures,
            requests: Semaphore::new(MAX_REQUESTS),
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        }
    }

    /// A place for an answer that stays open; it is given back when the permit is dropped.
    pub(in crate::api) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| ApiError::Busy)
    }
}
