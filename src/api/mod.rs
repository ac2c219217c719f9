//! The HTTP API: one operation per file, its wire types beside it. What holds for all of them is in the files of this directory.
//!
//! Errors: [`error::ApiError`] is the only error type of a handler; `pipeline` turns it into `application/problem+json`.

pub mod audit;
mod auth;
pub mod caller;
pub mod compute_targets;
mod cors;
mod crowd;
pub mod datastores;
mod deadlines;
mod docs;
pub mod environments;
pub mod error;
pub mod estimators;
mod etag;
pub mod experiments;
pub mod extract;
mod facts;
mod feed;
mod findings;
pub mod frameworks;
pub mod health;
mod idempotency;
pub mod log_filter;
pub mod metrics;
mod openapi;
mod pace;
pub mod paging;
mod pipeline;
pub mod pods;
pub mod problem;
mod range;
mod rate;
mod referents;
mod request_id;
pub mod rules;
pub mod runs;
mod scoped;
mod secrets;
mod snapshot_cache;
pub mod snapshots;
mod sse;
mod state;
pub mod tokens;
pub mod webhooks;

use std::{num::NonZeroU32, sync::Arc};

use axum::{Router, extract::DefaultBodyLimit, http::HeaderValue, middleware, routing::get};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::util::option_layer;
use utoipa_axum::{router::OpenApiRouter, routes};

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
    vault::Vault,
};

pub use auth::{AccessSettings, FileTokens, oidc};
pub use state::{ApiState, Shared};

/// What the API needs.
#[derive(Clone)]
pub struct ApiSettings {
    /// The database.
    pub storage: Storage,
    /// Snapshots, logs and outputs.
    pub artifacts: Artifacts,
    /// What an uploaded snapshot may be.
    pub limits: Limits,
    /// The target whose backend is that of targets which are made for one run; the worker's machine when absent.
    pub one_off_target: Option<ComputeTargetName>,
    /// Where the time comes from.
    pub clock: Arc<dyn Clock>,
    /// Told when there may be work: a run was accepted or cancelled, a target changed.
    pub wakeup: Arc<Notify>,
    /// By what callers are known.
    pub access: AccessSettings,
    /// How many runs may be queued.
    pub max_queued_runs: u32,
    /// How many active runs one caller may have; any number when none.
    pub caller_limit: Option<u32>,
    /// How many requests a caller may send a minute.
    pub max_requests_per_minute: NonZeroU32,
    /// Where messages of webhooks may be sent.
    pub webhook_receivers: AllowList,
    /// Where datastores may lead.
    pub datastore_places: Places,
    /// The origins whose pages may ask.
    pub cors_origins: Vec<HeaderValue>,
    /// Whose word is taken for where a request came from.
    pub trusted_proxies: TrustedProxies,
    /// Encrypts what callers send and nobody may read; without it secrets are refused.
    pub vault: Option<Vault>,
    /// What a worker in the same process counts.
    pub figures: RunFigures,
    /// What is logged, and how that is changed.
    pub log_filter: LogFilter,
    /// When it is cancelled, `/readyz` answers 503 and connections are closed after their answers; requests are taken still.
    pub draining: CancellationToken,
    /// When it is cancelled, follows and long polls end too.
    pub shutdown: CancellationToken,
}

/// Operations that answer at once, or are told that it took too long.
fn prompt_operations() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(frameworks::list_frameworks))
        .routes(routes!(frameworks::get_framework))
        .routes(routes!(rules::list_rules))
        .routes(routes!(rules::get_rule))
        .routes(routes!(snapshots::get::get_snapshot))
        .routes(routes!(snapshots::list_files::list_snapshot_files))
        .routes(routes!(compute_targets::list::list_compute_targets))
        .routes(routes!(
            compute_targets::get::get_compute_target,
            compute_targets::put::put_compute_target,
            compute_targets::delete::delete_compute_target
        ))
        .routes(routes!(datastores::list::list_datastores))
        .routes(routes!(
            datastores::get::get_datastore,
            datastores::put::put_datastore,
            datastores::delete::delete_datastore
        ))
        .routes(routes!(environments::list::list_environments))
        .routes(routes!(environments::get::get_environment))
        .routes(routes!(estimators::list::list_estimators, estimators::create::create_estimator))
        .routes(routes!(estimators::validate::validate_estimator))
        .routes(routes!(estimators::parse::parse_estimator))
        .routes(routes!(estimators::render::inline::render_definition))
        .routes(routes!(estimators::render::stored::render_estimator))
        .routes(routes!(estimators::revalidate::revalidate_estimator))
        .routes(routes!(estimators::migration::get_estimator_migration))
        .routes(routes!(estimators::get::get_estimator, estimators::archive::delete_estimator))
        .routes(routes!(runs::list::list_runs, runs::create::create_run))
        .routes(routes!(runs::cancel::cancel_run))
        .routes(routes!(runs::rerun::rerun_run))
        .routes(routes!(runs::batch::create_runs))
        .routes(routes!(runs::put::put_run, runs::patch::patch_run))
        .routes(routes!(experiments::list_experiments))
        .routes(routes!(caller::get_caller))
        .routes(routes!(tokens::list::list_tokens, tokens::create::create_token))
        .routes(routes!(tokens::get::get_token, tokens::revoke::delete_token))
        .routes(routes!(audit::list::list_audit_events))
        .routes(routes!(webhooks::list::list_webhooks))
        .routes(routes!(
            webhooks::get::get_webhook,
            webhooks::put::put_webhook,
            webhooks::delete::delete_webhook
        ))
        .routes(routes!(webhooks::rotate_secret::rotate_webhook_secret))
        .routes(routes!(webhooks::deliveries::list_webhook_deliveries))
        .routes(routes!(webhooks::replay::replay_webhook_delivery))
        .routes(routes!(runs::log_files::list_run_logs))
        .routes(routes!(runs::outputs::list_run_outputs))
        .routes(routes!(runs::metrics::list_run_metrics))
        .routes(routes!(health::get_liveness))
        .routes(routes!(health::get_readiness))
        .routes(routes!(metrics::get_metrics))
        .routes(routes!(log_filter::get::get_log_filter, log_filter::put::put_log_filter))
        .routes(routes!(docs::get_openapi))
        .routes(routes!(problem::get_problem_type))
        .layer(DefaultBodyLimit::max(extract::MAX_JSON_BYTES))
        .layer(middleware::from_fn(pipeline::timed))
}

/// Operations that take as long as the caller wants: uploads, long polls, streams.
fn lasting_operations() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(snapshots::create::create_snapshot))
        .routes(routes!(runs::get::get_run))
        .routes(routes!(runs::logs::get_run_log))
        .routes(routes!(runs::outputs::get_run_output))
        .routes(routes!(runs::events::list_run_events))
        .routes(routes!(pods::bundle::get_attempt_bundle))
        .routes(routes!(pods::returned::put_attempt_returned))
        .layer(DefaultBodyLimit::disable())
        .layer(middleware::from_fn(pace::paced))
        .layer(pipeline::talkative())
}

fn operations() -> (Router<Shared>, utoipa::openapi::OpenApi) {
    OpenApiRouter::with_openapi(openapi::base())
        .merge(prompt_operations())
        .merge(lasting_operations())
        .split_for_parts()
}

/// The OpenAPI document.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    openapi::finished(operations().1)
}

/// The API, for as many listeners as are needed.
#[derive(Clone)]
pub struct Api(Shared);

impl Api {
    /// The API, with what it needs.
    #[must_use]
    pub fn new(settings: ApiSettings) -> Self {
        Self(Arc::new(ApiState::new(settings)))
    }

    /// Probes and figures alone, for everybody who can reach them: kubelets and Prometheus show no token.
    pub fn probes(&self) -> Router {
        let state = Arc::clone(&self.0);
        Router::new()
            .route("/healthz", get(health::get_liveness))
            .route("/readyz", get(health::get_readiness))
            .route("/metrics", get(metrics::get_metrics))
            .fallback(pipeline::unknown_route)
            .method_not_allowed_fallback(pipeline::method_not_allowed)
            .layer(middleware::from_fn(pipeline::timed))
            .layer(middleware::from_fn_with_state(Arc::clone(&state), pipeline::around))
            .with_state(state)
    }

    /// Ends runs that waited longer than they may, until it is told to stop: workers do that too, where there are any.
    pub fn keep_deadlines(&self, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        deadlines::keep(Arc::clone(&self.0), stop)
    }

    /// The whole API.
    pub fn router(&self) -> Router {
        whole(Arc::clone(&self.0))
    }
}

fn whole(state: Shared) -> Router {
    operations()
        .0
        .route("/", get(docs::root))
        .route("/docs", get(docs::without_slash))
        .route("/docs/", get(docs::index))
        .route("/docs/{*path}", get(docs::asset))
        .fallback(pipeline::unknown_route)
        .method_not_allowed_fallback(pipeline::method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&state), pipeline::guard))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), pipeline::around))
        // What browsers ask beforehand carries no token, and they read no answer without these headers, refusals included.
        .layer(option_layer(cors::layer(&state.cors_origins)))
        .with_state(state)
}
