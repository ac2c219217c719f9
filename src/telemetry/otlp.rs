//! Sends spans to a collector, by OTLP over HTTP (`http/protobuf`).
//!
//! It must never be felt: spans wait in a queue of fixed size that a thread of its own empties; when the collector is away they are
//! dropped, and that is said once.

use std::{
    fmt,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter as Export},
};
use tokio::runtime::Handle;
use tracing::{info, warn};

use crate::domain::otlp_endpoint::OtlpEndpoint;

/// How long the collector may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long sending the rest may take when the service stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing can be sent to a collector.
#[derive(Debug, thiserror::Error)]
#[error("nothing can be sent: {0}")]
pub struct OtlpError(String);

/// What sends spans.
#[derive(Debug)]
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// Within a runtime, by which requests are sent.
    pub(super) fn start(endpoint: &OtlpEndpoint) -> Result<Self, OtlpError> {
        let failed = |error: &dyn fmt::Display| OtlpError(error.to_string());
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(endpoint).map_err(|error| failed(&error))?)
            .with_endpoint(endpoint.of_traces())
            .with_timeout(PATIENCE)
            .build()
            .map_err(|error| failed(&error))?;
        let resource = Resource::builder()
            .with_service_name("estimatord")
            .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let exporter = Patient { exporter, is_failing: AtomicBool::new(false) };
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build()))
    }

    pub(super) const fn provider(&self) -> &SdkTracerProvider {
        &self.0
    }

    /// Sends the rest.
    pub(super) async fn finish(self) {
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(STOP_PATIENCE)).await;
        if !matches!(ended, Ok(Ok(()))) {
            info!("the last spans were not sent: the collector does not answer");
        }
    }
}

/// Says once when spans are dropped, and once when they are not any more.
#[derive(Debug)]
struct Patient {
    exporter: SpanExporter,
    is_failing: AtomicBool,
}

impl Export for Patient {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let sent = self.exporter.export(batch).await;
        match (&sent, self.is_failing.swap(sent.is_err(), Ordering::Relaxed)) {
            (Err(error), false) => {
                warn!(
                    otlp.spans = spans,
                    "spans cannot be sent and are dropped until the collector answers: {error}"
                );
            }
            (Ok(()), true) => info!("spans are sent again"),
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// Sends requests in the service's runtime: the thread that exports has none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

impl Client {
    fn new(endpoint: &OtlpEndpoint) -> Result<Self, reqwest::Error> {
        // Another part of the process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut client = reqwest::Client::builder()
            .user_agent(concat!("estimatord/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(PATIENCE);
        if !endpoint.needs_tls() {
            // No certificate is looked at, so that none need to be installed.
            client = client.tls_certs_only([]);
        }
        Ok(Self { client: client.build()?, runtime: Handle::current() })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let answer = client.execute(request).await.map_err(reqwest::Error::without_url)?;
            let status = answer.status();
            let mut response = Response::new(answer.bytes().await.map_err(reqwest::Error::without_url)?);
            *response.status_mut() = status;
            Ok::<_, reqwest::Error>(response)
        });
        Ok(sent.await??)
    }
}
