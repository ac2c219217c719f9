//! Reaching the service from a pod: with the token of one attempt, and patience.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};

use crate::domain::ids::RunId;

/// Between two tries; it grows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// How a pod reaches the service.
#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// Address of the service
    #[arg(long, value_name = "URL")]
    pub service: String,
    /// The run
    #[arg(long)]
    pub run: RunId,
    /// The attempt's number
    #[arg(long)]
    pub attempt: u32,
    /// A file with the attempt's token
    #[arg(long, value_name = "FILE")]
    pub token_file: PathBuf,
    /// The script's working directory
    #[arg(long, value_name = "DIR")]
    pub work: PathBuf,
    /// The directory of the service's own files
    #[arg(long, value_name = "DIR")]
    pub home: PathBuf,
}

/// Why something could not be fetched or sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum PodError {
    /// What the pod was told makes no sense.
    #[error("{0}")]
    Told(String),
    /// The service says no, and would the next time.
    #[error("the service at {url} refuses: {said}")]
    Refused { url: String, said: String },
    /// The service was not reached in time.
    #[error(
        "the service at {url} was not reached for {seconds} s ({last}): look whether pods of this namespace can reach it, and \
         whether it runs"
    )]
    Unreachable { url: String, seconds: u64, last: String },
    /// The pod's disk would not do as told.
    #[error("{0}")]
    Disk(#[from] std::io::Error),
}

/// What one try came to that may be made again.
pub(super) enum Tried {
    /// Nobody answered, or the answer broke off.
    Passing(String),
    /// It will not be better another time.
    Final(PodError),
}

/// The service, as one pod sees it.
pub(super) struct Service {
    client: Client,
    base: Url,
    token: String,
}

impl Service {
    pub(super) fn new(connection: &Connection) -> Result<Self, PodError> {
        // Another part of the process may have installed it before.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let told = |detail: String| PodError::Told(format!("--service {}: {detail}", connection.service));
        let mut base = Url::parse(&connection.service).map_err(|error| told(error.to_string()))?;
        let (run, attempt) = (connection.run.to_string(), connection.attempt.to_string());
        base.path_segments_mut()
            .map_err(|()| told("it can have no path".to_owned()))?
            .pop_if_empty()
            .extend(["v1", "runs", &run, "attempts", &attempt]);
        let mut client = Client::builder()
            .user_agent(concat!("estimatord/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(10))
            .read_timeout(Duration::from_secs(60))
            .tcp_keepalive(Duration::from_secs(20));
        if base.scheme() == "http" {
            // No certificate is looked at, so that none need to be installed.
            client = client.tls_certs_only([]);
        }
        let token = std::fs::read_to_string(&connection.token_file).map_err(|error| {
            PodError::Told(format!("--token-file {}: {error}", connection.token_file.display()))
        })?;
        let client = client.build().map_err(|error| told(cause(&error)))?;
        Ok(Self { client, base, token: token.trim().to_owned() })
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(parts);
        }
        url
    }

    pub(super) fn get(&self, parts: &[&str]) -> RequestBuilder {
        self.client.get(self.url(parts)).bearer_auth(&self.token)
    }

    pub(super) fn put(&self, parts: &[&str]) -> RequestBuilder {
        self.client.put(self.url(parts)).bearer_auth(&self.token)
    }

    /// Sends a request once.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Tried> {
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) if error.is_builder() => {
                return Err(Tried::Final(PodError::Told(cause(&error))));
            }
            Err(error) => return Err(Tried::Passing(cause(&error))),
        };
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = response.text().await.unwrap_or_default();
        let said = match serde_json::from_str::<serde_json::Value>(&body) {
            Ok(problem) => {
                problem["detail"].as_str().or(problem["title"].as_str()).unwrap_or_default().to_owned()
            }
            Err(_) => String::new(),
        };
        let said = format!("{status} {said}").trim().to_owned();
        let is_passing = status.is_server_error()
            || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        Err(if is_passing {
            Tried::Passing(said)
        } else {
            Tried::Final(PodError::Refused { url: self.base.to_string(), said })
        })
    }

    /// Tries until it is done, it is final, or `patience` is over.
    pub(super) async fn insist<T>(
        &self,
        patience: Duration,
        mut attempt: impl AsyncFnMut() -> Result<T, Tried>,
    ) -> Result<T, PodError> {
        let since = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let last = match attempt().await {
                Ok(done) => return Ok(done),
                Err(Tried::Final(error)) => return Err(error),
                Err(Tried::Passing(last)) => last,
            };
            let left = patience.saturating_sub(since.elapsed());
            if left.is_zero() {
                let (url, seconds) = (self.base.to_string(), patience.as_secs());
                return Err(PodError::Unreachable { url, seconds, last });
            }
            println!("the service at {} does not answer ({last}); trying again", self.base);
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
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
