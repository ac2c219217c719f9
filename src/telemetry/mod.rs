//! Log lines on standard error, and spans for a collector. `docs/logging.md` says what a line has.

mod log_filter;
mod otlp;

use std::io::IsTerminal as _;

use opentelemetry::trace::TracerProvider as _;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    Layer, Registry, filter::FilterExt as _, filter::filter_fn, layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use self::otlp::Traces;
pub use self::{
    log_filter::{LogFilter, LogFilterError, LogFilterState},
    otlp::OtlpError,
};
use crate::{
    config::{LogFormat, Serve},
    traces,
};

/// What was started, for as long as the service runs.
#[derive(Debug)]
pub struct Telemetry {
    /// What is logged, and how that is changed.
    pub log_filter: LogFilter,
    traces: Option<Traces>,
}

/// Why nothing is logged or traced.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// Of `--log`.
    #[error("--log: {0}")]
    Filter(#[from] LogFilterError),
    /// Of `--otlp-endpoint`.
    #[error("--otlp-endpoint: {0}")]
    Otlp(#[from] OtlpError),
}

/// Starts logging, and tracing where a collector is configured. Called within the runtime that spans are sent by.
///
/// # Errors
/// When the filter cannot be understood, or nothing can be sent to the collector.
pub fn start(settings: &Serve) -> Result<Telemetry, TelemetryError> {
    let (log_filter, filter) = LogFilter::new(&settings.log)?;
    let traces = settings.otlp_endpoint.as_ref().map(Traces::start).transpose()?;
    let lines = match settings.log_format {
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .boxed(),
        // What the spans around a line say stands on the line itself.
        LogFormat::Json => json_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .flatten_event(true)
            .with_current_span(false)
            .flatten_span_list_on_top_level(true)
            .boxed(),
    };
    let spans = traces.as_ref().map(|traces| {
        tracing_opentelemetry::layer()
            .with_tracer(traces.provider().tracer("estimatord"))
            .with_location(false)
            .with_threads(false)
            .with_level(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == traces::TARGET))
    });
    Registry::default().with(lines.with_filter(filter.and(filter_fn(may_be_logged)))).with(spans).init();
    Ok(Telemetry { log_filter, traces })
}

/// Whatever the filter says: spans of traces are no part of lines, and of libraries nothing is written that goes over the wire, as
/// their finest level does.
fn may_be_logged(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    if target.starts_with("estimatord") {
        target != traces::TARGET
    } else {
        *metadata.level() <= Level::DEBUG
    }
}

impl Telemetry {
    /// Sends what was not sent yet, within a short while.
    pub async fn finish(self) {
        if let Some(traces) = self.traces {
            traces.finish().await;
        }
    }
}
