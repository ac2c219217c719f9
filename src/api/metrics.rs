//! Figures for Prometheus: those of this process, and those of the whole service, read from the database when asked.

use std::time::Duration;

use axum::{
    extract::State,
    http::{Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{error::ApiError, problem::Problem, state::Shared};
use crate::{domain::run::Status, figures as run_figures};

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
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
    status: &'static str,
}

/// Figures of the requests that this process answered.
#[derive(Debug)]
pub struct HttpMetrics {
    requests: Family<RequestLabels, Counter>,
    durations: Family<RouteLabels, Histogram>,
}

fn duration_histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
}

impl HttpMetrics {
    pub(in crate::api) fn new() -> Self {
        Self { requests: Family::default(), durations: Family::new_with_constructor(duration_histogram) }
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
/// In the OpenMetrics text format. Figures whose name begins with `estimatord_http`, `estimatord_run_dispatch` or
/// `estimatord_runs_ended` are of this process; the others are of the whole service, so take them from one instance only.
#[utoipa::path(
    get, path = "/metrics", tag = "service",
    responses(
        (status = 200, description = "The figures", body = String, content_type = "application/openmetrics-text"),
        (status = 503, description = "The database cannot be reached", body = Problem),
    ),
)]
pub async fn get_metrics(State(state): State<Shared>) -> Result<Response, ApiError> {
    let figures = state.storage.service_figures().await?;
    let mut registry = Registry::with_prefix("estimatord");
    let http = &state.metrics;
    registry.register("http_requests", "Answered requests", http.requests.clone());
    registry.register_with_unit(
        "http_request_duration",
        "Until the answer's head was ready",
        Unit::Seconds,
        http.durations.clone(),
    );
    let runs = Family::<StatusLabels, Gauge>::default();
    // Also those that no run has: a series that vanishes at zero cannot be alerted on.
    for status in Status::ALL.into_iter().filter(|status| *status != Status::NotStarted) {
        let count = figures.runs.iter().find(|(of, _)| *of == status).map_or(0, |(_, count)| *count);
        let labels = StatusLabels { status: status.as_str() };
        runs.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("runs", "Runs by status", runs);
    let oldest = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    oldest.set(figures.oldest_queued_seconds);
    registry.register_with_unit(
        "oldest_queued_run_age",
        "How long the oldest queued run has waited",
        Unit::Seconds,
        oldest,
    );
    let live = Family::<TargetLabels, Gauge>::default();
    let ages = Family::<TargetLabels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
    for of in &figures.live {
        let target = run_figures::label(of.target.as_deref().unwrap_or_default(), of.target.is_none());
        let labels = TargetLabels { target, status: of.status.as_str() };
        live.get_or_create(&labels).set(i64::try_from(of.runs).unwrap_or(i64::MAX));
        ages.get_or_create(&labels).set(of.oldest_seconds);
    }
    registry.register("live_runs", "Runs that have not ended, by target and status", live);
    registry.register_with_unit(
        "oldest_live_run_age",
        "How long ago the oldest run of a target that is in this status was accepted",
        Unit::Seconds,
        ages,
    );
    state.figures.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
        .into_response())
}
