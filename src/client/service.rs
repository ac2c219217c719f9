//! Talking to the service: one place that knows what may be tried again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder, Response, StatusCode, Url, header::RETRY_AFTER};
use serde_json::Value;

use super::{Connection, definition::DefinitionError, pack::PackError, problem::Problem, screen::Screen};
use crate::domain::secret::Secret;

/// How long a service is waited for that never answered: more likely than a restart is a wrong address.
const FIRST_CONTACT: Duration = Duration::from_secs(10);
/// How long one that answered before is waited for: a restart.
const RESTART: Duration = Duration::from_secs(60);

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("`{url}` is no address of a service: {detail}")]
    Address { url: String, detail: String },
    #[error("the service at {url} cannot be reached: {detail}")]
    Unreachable { url: String, detail: String },
    #[error("{}", .0.render())]
    Problem(Box<Problem>),
    #[error("the service's answer makes no sense: {0}")]
    Answer(String),
    #[error(transparent)]
    Definition(#[from] DefinitionError),
    #[error(transparent)]
    Pack(#[from] PackError),
    #[error("run {run} has no output `{path}`")]
    NoOutput { run: String, path: String },
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
}

/// The service, as one command uses it.
#[derive(Clone)]
pub(super) struct Service {
    client: Client,
    base: Url,
    token: Option<Secret>,
    retry_for: Option<Duration>,
    answered: Arc<AtomicBool>,
    /// Whether it was said that the service is away; several requests wait for it at a time.
    said_away: Arc<AtomicBool>,
    screen: Screen,
}

impl Service {
    pub(super) fn new(connection: &Connection, screen: Screen) -> Result<Self, ClientError> {
        // Another part of the process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bad = |detail: String| ClientError::Address { url: connection.url.clone(), detail };
        let base = Url::parse(&connection.url).map_err(|error| bad(error.to_string()))?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(bad("it must begin with http:// or https://".to_owned()));
        }
        let mut client = Client::builder()
            .user_agent(concat!("estimatord/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .tcp_keepalive(Duration::from_secs(20));
        let is_loopback = base.host_str().is_some_and(|host| {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        });
        if is_loopback {
            client = client.no_proxy();
        }
        if base.scheme() == "http" {
            // No certificate is looked at, so that none need to be installed.
            client = client.tls_certs_only([]);
        }
        Ok(Self {
            client: client.build().map_err(|error| bad(cause(&error)))?,
            base,
            token: connection.token.clone().filter(|token| !token.expose().is_empty()),
            retry_for: connection.retry_for.map(Duration::from_secs),
            answered: Arc::default(),
            said_away: Arc::default(),
            screen,
        })
    }

    /// An address below the service; parts are escaped.
    pub(super) fn url<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().push("v1").extend(parts);
        }
        url
    }

    pub(super) fn get(&self, url: Url) -> RequestBuilder {
        self.authorised(self.client.get(url))
    }

    pub(super) fn post(&self, url: Url) -> RequestBuilder {
        self.authorised(self.client.post(url))
    }

    pub(super) fn delete(&self, url: Url) -> RequestBuilder {
        self.authorised(self.client.delete(url))
    }

    fn authorised(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    /// How long the service may be away before a command gives up.
    fn patience(&self) -> Duration {
        let has_answered = self.answered.load(Ordering::Relaxed);
        self.retry_for.unwrap_or(if has_answered { RESTART } else { FIRST_CONTACT })
    }

    /// Sends what `request` makes, again and again while the service is away or busy, and gives back its answer if
    /// that is a good one. What is sent must therefore be harmless when it arrives twice.
    pub(super) async fn send(
        &self,
        mut request: impl FnMut() -> RequestBuilder,
    ) -> Result<Response, ClientError> {
        let mut waiting = Waiting::new(self);
        loop {
            match request().send().await {
                Ok(response) if response.status().is_success() => {
                    self.answered.store(true, Ordering::Relaxed);
                    self.said_away.store(false, Ordering::Relaxed);
                    return Ok(response);
                }
                Ok(response) => {
                    let status = response.status();
                    let seconds = response
                        .headers()
                        .get(RETRY_AFTER)
                        .and_then(|value| value.to_str().ok()?.parse().ok());
                    // 409 with Retry-After: the same request is still being worked on.
                    let is_passing = matches!(
                        status,
                        StatusCode::TOO_MANY_REQUESTS
                            | StatusCode::BAD_GATEWAY
                            | StatusCode::SERVICE_UNAVAILABLE
                            | StatusCode::GATEWAY_TIMEOUT
                    ) || (status == StatusCode::CONFLICT && seconds.is_some());
                    let reason = status.canonical_reason().unwrap_or_default();
                    let body = response.bytes().await.unwrap_or_default();
                    let problem = Problem::read(status.as_u16(), reason, &body);
                    let words = format!("answers {} {}", problem.status, problem.title);
                    if !is_passing || !waiting.pause(&words, seconds.map(Duration::from_secs)).await {
                        return Err(ClientError::Problem(Box::new(problem)));
                    }
                }
                Err(error) if error.is_builder() || error.is_redirect() => {
                    return Err(ClientError::Address { url: self.base.to_string(), detail: cause(&error) });
                }
                Err(error) => {
                    let detail = cause(&error);
                    if !waiting.pause(&format!("cannot be reached ({detail})"), None).await {
                        return Err(ClientError::Unreachable { url: self.base.to_string(), detail });
                    }
                }
            }
        }
    }

    /// The JSON of a `GET`.
    pub(super) async fn get_json(&self, url: &Url) -> Result<Value, ClientError> {
        self.get_json_with(url, |request| request).await
    }

    /// The same, with something added to the request.
    pub(super) async fn get_json_with(
        &self,
        url: &Url,
        with: impl Fn(RequestBuilder) -> RequestBuilder,
    ) -> Result<Value, ClientError> {
        let mut waiting = Waiting::new(self);
        loop {
            // Not even a held answer takes longer than this.
            let request = || with(self.get(url.clone())).timeout(Duration::from_secs(60));
            let response = self.send(request).await?;
            match response.bytes().await {
                Ok(body) => {
                    return serde_json::from_slice(&body)
                        .map_err(|error| ClientError::Answer(error.to_string()));
                }
                Err(error) => {
                    let detail = cause(&error);
                    if !waiting.pause(&format!("broke off ({detail})"), None).await {
                        return Err(ClientError::Unreachable { url: self.base.to_string(), detail });
                    }
                }
            }
        }
    }
}

/// Waiting for a service that is away: longer and longer, and not for ever.
pub(super) struct Waiting<'a> {
    service: &'a Service,
    since: Instant,
    pauses: u32,
}

impl<'a> Waiting<'a> {
    pub(super) fn new(service: &'a Service) -> Self {
        Self { service, since: Instant::now(), pauses: 0 }
    }

    /// Waits before the next try, or says that there should be none.
    pub(super) async fn pause(&mut self, what: &str, at_least: Option<Duration>) -> bool {
        let patience = self.service.patience();
        let left = patience.saturating_sub(self.since.elapsed());
        if left.is_zero() {
            return false;
        }
        if self.pauses == 0 && !self.service.said_away.swap(true, Ordering::Relaxed) {
            let (url, seconds) = (&self.service.base, patience.as_secs());
            self.service
                .screen
                .say(format!("The service at {url} {what}; trying again for up to {seconds} s."));
        }
        // Not all clients of a service that comes back should arrive at once.
        let pause = Duration::from_millis(200 << self.pauses.min(4)).mul_f64(rand::random_range(0.7..1.3));
        self.pauses += 1;
        tokio::time::sleep(pause.max(at_least.unwrap_or_default()).min(left)).await;
        true
    }
}

/// The innermost reason of an error: the outer ones say that a request failed, which is known.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
