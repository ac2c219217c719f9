//! The API under test.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request, StatusCode},
};
use chrono::{DateTime, Duration, Utc};
use estimatord::{
    api::{AccessSettings, Api, ApiSettings, FileTokens},
    artifacts::{Artifacts, Limits},
    clock::Clock,
    domain::{
        compute_target::ComputeTargetName,
        run::{Cause, Ending, LOG_SEGMENT_BYTES, Move, Status},
    },
    figures::RunFigures,
    storage::{
        Storage,
        admission::Order,
        leases::{Claimant, Claimed},
        transitions::Written,
    },
    telemetry::LogFilter,
    vault::Vault,
};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// A clock that stands still until it is moved.
pub struct FixedClock(Mutex<DateTime<Utc>>);

impl FixedClock {
    fn new() -> Self {
        Self(Mutex::new("2026-11-23T12:00:00Z".parse().expect("a time")))
    }

    pub fn advance(&self, seconds: i64) {
        *self.0.lock().expect("nobody panicked") += Duration::seconds(seconds);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().expect("nobody panicked")
    }
}

/// The API, and what stands behind it.
pub struct TestApp {
    pub router: Router,
    pub probes: Router,
    pub figures: RunFigures,
    pub storage: Storage,
    pub artifacts: Artifacts,
    pub clock: Arc<FixedClock>,
    pub wakeup: Arc<Notify>,
    pub draining: CancellationToken,
    pub shutdown: CancellationToken,
    pub pool: PgPool,
    _directory: tempfile::TempDir,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("a text"))
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.text()))
    }

    #[track_caller]
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        self.json()
    }

    /// The problem, after everything that holds for all of them was checked.
    #[track_caller]
    pub fn problem(&self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
        assert_eq!(problem["status"].to_string(), status.to_string());
        assert_eq!(problem["instance"], self.header("x-request-id"));
        assert!(!problem["title"].as_str().expect("a title").is_empty());
        assert!(!problem["detail"].as_str().expect("a detail").is_empty());
        problem
    }

    /// Rule and pointer of every error among the findings.
    #[track_caller]
    pub fn errors(&self) -> Vec<(String, String)> {
        errors_of(&self.json())
    }
}

/// Rule and pointer of every error among the findings.
pub fn errors_of(value: &Value) -> Vec<(String, String)> {
    let text = |finding: &Value, name: &str| finding[name].as_str().expect("a text").to_owned();
    let findings = value["findings"].as_array().expect("findings");
    let errors = findings.iter().filter(|finding| finding["severity"] == "error");
    errors.map(|finding| (text(finding, "rule"), text(finding, "pointer"))).collect()
}

async fn answered(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.expect("the router never fails");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a whole body").to_bytes().to_vec();
    Answer { status: parts.status, headers: parts.headers, body }
}

/// Callers who are known by a file of tokens, and nobody else.
pub fn callers(file: &str) -> AccessSettings {
    let file = FileTokens::parse(file).expect("tokens");
    AccessSettings { is_required: true, file: Some(file), oidc: None }
}

/// A filter that can be changed: whoever asks it is there for as long as the tests are.
fn log_filter() -> LogFilter {
    let (filter, layer) = LogFilter::new("info,sqlx=warn").expect("a filter");
    Box::leak(Box::new(layer));
    filter
}

impl TestApp {
    pub fn new(pool: PgPool) -> Self {
        Self::with(pool, None, Limits::default())
    }

    pub fn with(pool: PgPool, token: Option<&str>, limits: Limits) -> Self {
        Self::build(pool, token, limits, Some(Vault::new([7; 32])), None)
    }

    /// One that makes targets for one run on the cluster of a target.
    pub fn with_one_off_target(pool: PgPool, name: &str) -> Self {
        let name = name.parse().expect("a name");
        Self::build(pool, None, Limits::default(), Some(Vault::new([7; 32])), Some(name))
    }

    /// One that has no key to keep secrets with.
    pub fn without_vault(pool: PgPool) -> Self {
        Self::build(pool, None, Limits::default(), None, None)
    }

    fn build(
        pool: PgPool,
        token: Option<&str>,
        limits: Limits,
        vault: Option<Vault>,
        one_off_target: Option<ComputeTargetName>,
    ) -> Self {
        let access = token.map_or_else(AccessSettings::default, callers);
        Self::changed(pool, |settings| ApiSettings { access, limits, vault, one_off_target, ..settings })
    }

    /// One with other settings.
    pub fn changed(pool: PgPool, change: impl FnOnce(ApiSettings) -> ApiSettings) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (store, scratch) = (directory.path().join("store"), directory.path().join("scratch"));
        let artifacts = Artifacts::open(&store, &scratch).expect("a store");
        let storage = Storage::from_pool(pool.clone());
        let clock = Arc::new(FixedClock::new());
        let wakeup = Arc::new(Notify::new());
        let shutdown = CancellationToken::new();
        let figures = RunFigures::default();
        let draining = CancellationToken::new();
        let api = Api::new(change(ApiSettings {
            vault: Some(Vault::new([7; 32])),
            storage: storage.clone(),
            artifacts: artifacts.clone(),
            limits: Limits::default(),
            one_off_target: None,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            wakeup: Arc::clone(&wakeup),
            access: AccessSettings::default(),
            max_queued_runs: 10_000,
            caller_limit: None,
            max_requests_per_minute: NonZeroU32::MAX,
            webhook_receivers: Default::default(),
            datastore_places: Default::default(),
            cors_origins: Vec::new(),
            trusted_proxies: Default::default(),
            draining: draining.clone(),
            figures: figures.clone(),
            log_filter: log_filter(),
            shutdown: shutdown.clone(),
        }));
        Self {
            router: api.router(),
            probes: api.probes(),
            figures,
            storage,
            artifacts,
            clock,
            wakeup,
            draining,
            shutdown,
            pool,
            _directory: directory,
        }
    }

    /// Sends any request.
    pub async fn send(&self, request: Request<Body>) -> Answer {
        answered(&self.router, request).await
    }

    /// Asks the listener for probes.
    pub async fn probe(&self, path: &str) -> Answer {
        answered(&self.probes, Request::get(path).body(Body::empty()).expect("a request")).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.with_headers("GET", path, &[], Body::empty()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.with_headers("DELETE", path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_text(path, &body.to_string()).await
    }

    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        self.with_headers("POST", path, &headers, Body::from(body.to_owned())).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        let headers = [("content-type", "application/json")];
        self.with_headers("PUT", path, &headers, Body::from(body.to_string())).await
    }

    pub async fn with_headers(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body).expect("a request")).await
    }

    /// Uploads a source directory with these files; answers its id.
    pub async fn upload(&self, files: &[(&str, &str)]) -> String {
        let headers = [("content-type", "application/x-tar")];
        let answer = self.with_headers("POST", "/v1/snapshots", &headers, Body::from(tar(files))).await;
        assert!(answer.status.is_success(), "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// A definition that is accepted.
    pub async fn definition(&self) -> Value {
        let snapshot = self.upload(&[("train.py", "print('hello')\n")]).await;
        json!({
            "source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
            "framework_version": "7.0.0", "use_docker": false
        })
    }

    /// Starts a run; answers its JSON.
    pub async fn run(&self, experiment: &str) -> Value {
        let definition = self.definition().await;
        let body = json!({"experiment_name": experiment, "estimator": definition});
        self.post("/v1/runs", &body).await.ok(201)
    }

    /// Does what a worker does first: takes the one queued run.
    pub async fn admit(&self) -> Claimed {
        let claimant = Claimant {
            node: "node-1".to_owned(),
            host: "box-1".to_owned(),
            ttl: std::time::Duration::from_secs(60),
            default_target_limit: 4,
            caller_limit: None,
        };
        let claimed =
            self.storage.admit_runs(&claimant, Order::Priority, 4, self.clock.now()).await.expect("admitted");
        claimed.into_iter().next().expect("a queued run")
    }

    /// Moves a run on, as a worker does.
    pub async fn move_to(&self, claimed: &Claimed, from: Status, to: Status) {
        let now = self.clock.now();
        let step = if to.is_terminal() {
            let cause = (to == Status::Failed).then_some(Cause::ScriptFailed);
            Move::End { status: to, ending: Ending { cause, exit_code: Some(0), ..Ending::default() } }
        } else {
            Move::To { status: to, detail: None, started_at: None, actual_environment: None }
        };
        let written = self.storage.move_run(&claimed.lease, from, &step, now).await.expect("moved");
        assert_eq!(written, Written::Done);
    }

    /// From `Preparing` to `Running`.
    pub async fn start(&self, claimed: &Claimed) {
        self.move_to(claimed, Status::Preparing, Status::Starting).await;
        self.move_to(claimed, Status::Starting, Status::Running).await;
    }

    /// From `Running` to `Completed`.
    pub async fn complete(&self, claimed: &Claimed) {
        self.move_to(claimed, Status::Running, Status::Finalizing).await;
        self.move_to(claimed, Status::Finalizing, Status::Completed).await;
    }

    /// Stores the whole content of a log so far, as a worker does.
    pub async fn write_log(&self, claimed: &Claimed, name: &str, content: &[u8], complete: bool) {
        let size = usize::try_from(LOG_SEGMENT_BYTES).expect("small");
        for (at, segment) in content.chunks(size).enumerate() {
            let start = u64::try_from(at * size).expect("small");
            let bytes = segment.to_vec().into();
            self.artifacts.put_log_segment(claimed.run.id, 1, name, start, bytes).await.expect("stored");
        }
        let bytes = u64::try_from(content.len()).expect("small");
        let written =
            self.storage.record_log(&claimed.lease, 1, name, bytes, complete).await.expect("recorded");
        assert_eq!(written, Written::Done);
    }
}

/// A tar with these files.
pub fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(path, content)| (*path, content.as_bytes())).collect();
    tar_of(&files)
}

/// A tar with these files, which need not be texts.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).expect("small"));
        header.set_mode(0o644);
        header.set_cksum();
        builder.append_data(&mut header, path, *content).expect("appended");
    }
    builder.into_inner().expect("a tar")
}
