//! Figures for Prometheus: those of this process, and those of the whole service, read from the database when asked.

mod service;

use std::time::Duration;

use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::ConstGauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use tracing::warn;

use super::{
    error::ApiError,
    state::{ApiState, Shared},
};
use crate::figures::register_process;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    method: String,
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BuildLabels {
    version: &'static str,
}

/// Figures of the requests that this process answered.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
    rate_limited: Counter,
}

fn duration_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
}

impl HttpMetrics {
    pub(in crate::api) fn new() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(duration_histogram),
            rate_limited: Counter::default(),
        }
    }

    /// Counts a request that was one too many of its caller's.
    pub(in crate::api) fn rate_limited(&self) {
        self.rate_limited.inc();
    }

    /// Counts an answer. `route` is the template, so that ids do not become labels.
    pub(in crate::api) fn observe(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        elapsed: Duration,
    ) {
        // A caller may invent methods; each would be a label for ever.
        let method = match *method {
            Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS => method.as_str(),
            _ => "other",
        };
        let (method, route) = (method.to_owned(), route.to_owned());
        let labels = RequestLabels { method: method.clone(), route: route.clone(), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&RouteLabels { method, route }).observe(elapsed.as_secs_f64());
    }
}

/// Get the figures
///
/// In the OpenMetrics text format. `docs/metrics.md` lists them all, and says which are of the process that answers and which of
/// the whole service. When the database cannot be reached, `estimatord_database_up` is 0 and the latter are left out.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses(
        (status = 200, description = "The figures", body = String, content_type = "application/openmetrics-text"),
    ),
)]
pub async fn get_metrics(State(state): State<Shared>) -> Result<Response, ApiError> {
    let mut registry = Registry::with_prefix("estimatord");
    register_own(&state, &mut registry);
    let up = match service::register(&state, &mut registry).await {
        Ok(()) => 1,
        Err(error) => {
            warn!("figures are shown without those of the database: {error}");
            0
        }
    };
    registry.register("database_up", "Whether the database answers this process", ConstGauge::<i64>::new(up));
    let mut of_process = Registry::default();
    register_process(&mut of_process, state.started_at);
    let mut text = String::new();
    encode_registry(&mut text, &registry)
        .and_then(|()| encode_registry(&mut text, &of_process))
        .and_then(|()| encode_eof(&mut text))
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response())
}

/// Figures of the process that answers.
fn register_own(state: &ApiState, registry: &mut Registry) {
    let http = &state.metrics;
    registry.register(
        "build",
        "What is running",
        Info::new(BuildLabels { version: env!("CARGO_PKG_VERSION") }),
    );
    registry.register("http_requests", "Answered requests", http.requests.clone());
    registry.register_with_unit(
        "http_request_duration",
        "Until the answer's head was ready",
        Unit::Seconds,
        http.durations.clone(),
    );
    registry.register(
        "http_rate_limited",
        "Requests that were refused because their caller had sent too many",
        http.rate_limited.clone(),
    );
    let streams = i64::try_from(state.open_streams()).unwrap_or(i64::MAX);
    registry.register(
        "http_open_streams",
        "Answers that are open: follows, event streams",
        ConstGauge::<i64>::new(streams),
    );
    let pool = state.installation.pool_figures();
    registry.register(
        "database_connections_open",
        "Connections to the database",
        ConstGauge::<i64>::new(i64::from(pool.open)),
    );
    registry.register(
        "database_connections_idle",
        "Connections to the database that nobody uses",
        ConstGauge::<i64>::new(i64::from(pool.idle)),
    );
    registry.register(
        "database_connections_max",
        "How many connections to the database there may be",
        ConstGauge::<i64>::new(i64::from(pool.max)),
    );
    if let Ok(disk) = state.artifacts.disk() {
        for (name, help, bytes) in [
            ("artifacts_disk_free", "Free on the disk of the artifact store", disk.free),
            ("artifacts_disk_size", "Size of the disk of the artifact store", disk.size),
        ] {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            registry.register_with_unit(name, help, Unit::Bytes, ConstGauge::<i64>::new(bytes));
        }
    }
    state.figures.register(registry);
}
