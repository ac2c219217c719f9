//! What every operation may reach.

use std::sync::Arc;

use axum::http::HeaderValue;
use chrono::{DateTime, Utc};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    ApiSettings,
    audit::AuditTrail,
    auth::{Access, Operations},
    crowd::Crowd,
    error::ApiError,
    feed::Feeds,
    metrics::HttpMetrics,
    rate::Rates,
    referents::Search,
    runs::{acceptance::Acceptance, readings::Readings},
    snapshot_cache::SnapshotCache,
};
use crate::{
    artifacts::{Artifacts, Limits},
    clock::Clock,
    domain::{
        compute_target::ComputeTargetName, datastore_places::Places, forwarded::TrustedProxies,
        webhook::allow_list::AllowList,
    },
    figures::RunFigures,
    storage::Storage,
    telemetry::LogFilter,
    together::Together,
    vault::Vault,
};

/// Requests that are being answered at once. Beyond it a caller is told to come back: a queue would only hide it.
const MAX_REQUESTS: usize = 1024;

/// Answers that stay open (follows, event streams): each needs a connection and some 30 KiB.
const MAX_STREAMS: usize = 8192;

/// Large pieces of logs that are being sent at once: 256 KiB each, and as much that is read meanwhile. Whoever gets none is sent small ones.
const MAX_LARGE_PIECES: usize = 32;

/// Runs that one transaction accepts: some hundred kilobytes, and a few milliseconds.
const MAX_ACCEPTED_TOGETHER: usize = 64;

/// Such transactions at once: while one is written to the disk another is made.
const ACCEPTING_AT_ONCE: usize = 2;

/// Runs that one question reads: some hundred kilobytes.
const MAX_READ_TOGETHER: usize = 64;

/// Such questions at once.
const READING_AT_ONCE: usize = 2;

/// What every operation may reach.
pub struct ApiState {
    /// The whole database: what is nobody's in particular. What is a project's is reached by [`super::scoped::Scoped`].
    pub(in crate::api) installation: Storage,
    pub(in crate::api) artifacts: Artifacts,
    pub(in crate::api) limits: Limits,
    pub(in crate::api) one_off_target: Option<ComputeTargetName>,
    pub(in crate::api) clock: Arc<dyn Clock>,
    pub(in crate::api) wakeup: Arc<Notify>,
    pub(in crate::api) access: Access,
    pub(in crate::api) operations: Operations,
    pub(in crate::api) audit: AuditTrail,
    pub(in crate::api) acceptance: Together<Acceptance>,
    pub(in crate::api) referents: Together<Search>,
    pub(in crate::api) readings: Together<Readings>,
    pub(in crate::api) snapshot_cache: SnapshotCache,
    pub(in crate::api) max_queued_runs: u32,
    pub(in crate::api) caller_limit: Option<u32>,
    pub(in crate::api) webhook_receivers: AllowList,
    pub(in crate::api) datastore_places: Places,
    pub(in crate::api) cors_origins: Vec<HeaderValue>,
    pub(in crate::api) vault: Option<Vault>,
    pub(in crate::api) draining: CancellationToken,
    pub(in crate::api) shutdown: CancellationToken,
    pub(in crate::api) metrics: HttpMetrics,
    pub(in crate::api) figures: RunFigures,
    pub(in crate::api) log_filter: LogFilter,
    pub(in crate::api) feeds: Feeds,
    pub(in crate::api) rates: Rates,
    pub(in crate::api) crowd: Crowd,
    pub(in crate::api) trusted_proxies: TrustedProxies,
    /// When the process started.
    pub(in crate::api) started_at: DateTime<Utc>,
    streams: Arc<Semaphore>,
    large_pieces: Arc<Semaphore>,
}

/// The state as handlers get it.
pub type Shared = Arc<ApiState>;

impl ApiState {
    pub(in crate::api) fn new(settings: ApiSettings) -> Self {
        let acceptance = Acceptance::new(
            settings.storage.clone(),
            Arc::clone(&settings.clock),
            settings.max_queued_runs,
            settings.caller_limit,
        );
        Self {
            acceptance: Together::new(acceptance, MAX_ACCEPTED_TOGETHER, ACCEPTING_AT_ONCE),
            referents: Together::new(Search(settings.storage.clone()), MAX_REQUESTS, 1),
            readings: Together::new(Readings(settings.storage.clone()), MAX_READ_TOGETHER, READING_AT_ONCE),
            snapshot_cache: SnapshotCache::default(),
            access: Access::new(settings.access, settings.storage.clone()),
            operations: Operations::of(&super::operations().1),
            audit: AuditTrail::new(settings.storage.clone()),
            installation: settings.storage,
            artifacts: settings.artifacts,
            limits: settings.limits,
            one_off_target: settings.one_off_target,
            started_at: settings.clock.now(),
            clock: settings.clock,
            wakeup: settings.wakeup,
            max_queued_runs: settings.max_queued_runs,
            caller_limit: settings.caller_limit,
            webhook_receivers: settings.webhook_receivers,
            datastore_places: settings.datastore_places,
            cors_origins: settings.cors_origins,
            vault: settings.vault,
            draining: settings.draining,
            shutdown: settings.shutdown,
            metrics: HttpMetrics::new(),
            figures: settings.figures,
            log_filter: settings.log_filter,
            feeds: Feeds::default(),
            rates: Rates::new(settings.max_requests_per_minute),
            crowd: Crowd::new(MAX_REQUESTS),
            trusted_proxies: settings.trusted_proxies,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            large_pieces: Arc::new(Semaphore::new(MAX_LARGE_PIECES)),
        }
    }

    /// How many answers are open that stay open.
    pub(in crate::api) fn open_streams(&self) -> usize {
        MAX_STREAMS - self.streams.available_permits()
    }

    /// A place for an answer that stays open; it is given back when the permit is dropped.
    pub(in crate::api) fn stream_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| ApiError::Busy)
    }

    /// A place for a large piece of a log, where there is one; it is given back when the permit is dropped.
    pub(in crate::api) fn large_piece_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.large_pieces).try_acquire_owned().ok()
    }
}
