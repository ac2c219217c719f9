//! Spans that are sent to a collector, where one is configured (`--otlp-endpoint`). They are apart from the spans of log lines: a
//! line says where it belongs whatever is traced, and a trace shows the steps that matter and nothing else.
//!
//! Without a collector nobody wants them: making one costs a look at a flag then.

use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt as _, TraceState},
};
use tracing::{Level, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::domain::{ids::RunId, trace_parent::TraceParent};

/// What the spans of traces are called by, so that they can be told from all others.
pub const TARGET: &str = "estimatord::traces";

/// Whether anybody wants spans.
#[must_use]
pub fn are_wanted() -> bool {
    tracing::span_enabled!(target: TARGET, Level::INFO)
}

/// A request that is being answered.
#[must_use]
pub fn of_request(method: &str, route: &str, request_id: &str, parent: Option<&TraceParent>) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "request",
        otel.name = format!("{method} {route}"), otel.kind = "server", otel.status_code = tracing::field::Empty,
        http.request.method = method, http.route = route, http.response.status_code = tracing::field::Empty, request_id,
    );
    continued(&span, parent);
    span
}

/// A step of a run's life, taken by a worker.
#[must_use]
pub fn of_step(
    step: &'static str,
    run: RunId,
    attempt: u32,
    target: &str,
    parent: Option<&TraceParent>,
) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "step",
        otel.name = format!("run {step}"), otel.kind = "consumer", otel.status_code = tracing::field::Empty,
        run.id = %run, run.attempt = attempt, run.target = target, outcome = tracing::field::Empty,
    );
    continued(&span, parent);
    span
}

/// A call of a backend, within the span that is current.
#[must_use]
pub fn of_backend_call(call: &'static str, backend: &'static str) -> Span {
    tracing::info_span!(
        target: TARGET, "backend",
        otel.name = format!("{backend} {call}"), otel.kind = "client", backend, call,
    )
}

/// A message to a webhook.
#[must_use]
pub fn of_delivery(webhook: &str, delivery: &str, run: RunId, parent: Option<&TraceParent>) -> Span {
    let span = tracing::info_span!(
        target: TARGET, parent: None, "delivery",
        otel.name = "webhook delivery", otel.kind = "client", otel.status_code = tracing::field::Empty,
        webhook, delivery, run.id = %run, http.response.status_code = tracing::field::Empty,
    );
    continued(&span, parent);
    span
}

fn continued(span: &Span, parent: Option<&TraceParent>) {
    let Some(parent) = parent.filter(|_| !span.is_disabled()) else { return };
    let context = SpanContext::new(
        TraceId::from(parent.trace_id),
        SpanId::from(parent.span_id),
        TraceFlags::new(parent.flags),
        true,
        TraceState::default(),
    );
    if let Err(error) = span.set_parent(Context::new().with_remote_span_context(context)) {
        tracing::debug!("a span stands alone: {error}");
    }
}

/// Where in its trace a span is; none when nobody wants it.
#[must_use]
pub fn place_of(span: &Span) -> Option<TraceParent> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let span = context.span();
    let place = span.span_context();
    place.is_valid().then(|| TraceParent {
        trace_id: u128::from_be_bytes(place.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(place.span_id().to_bytes()),
        flags: place.trace_flags().to_u8(),
    })
}
