//! A service that plays a script, on a loopback port.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{Response, StatusCode},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub(super) const RUN: &str = "018f0000-0000-7000-8000-000000000001";
pub(super) const SNAPSHOT: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What the service will do, and what was asked of it.
#[derive(Default)]
pub(super) struct Script {
    /// The statuses that one look at the run after another finds; the last one stays.
    pub(super) statuses: Vec<&'static str>,
    /// Why the run waits, of one look after another; the last one stays while it is queued.
    pub(super) waits: Vec<&'static str>,
    /// Members of the run besides id and status.
    pub(super) run: Value,
    pub(super) logs: BTreeMap<&'static str, Vec<u8>>,
    /// The offsets at which a connection to a log breaks.
    pub(super) cuts: Vec<usize>,
    /// Answers to `POST /v1/runs` before the good one: status and body.
    pub(super) refusals: Vec<(u16, Value)>,
    /// Whether an upload is refused as too large before it was read.
    pub(super) full: bool,
    /// The answer to a cancel.
    pub(super) cancel: Option<(u16, Value)>,
    pub(super) uploads: Vec<Vec<u8>>,
    /// Bodies of `POST /v1/runs`, with their idempotency keys.
    pub(super) created: Vec<(String, Value)>,
    /// Method, path and query of every request.
    pub(super) requests: Vec<String>,
}

impl Script {
    fn is_over(&self) -> bool {
        self.statuses.len() <= 1
    }

    fn a_run(&self) -> Value {
        let mut run = json!({"id": RUN, "status": self.statuses.first(), "estimator_id": "an-estimator"});
        run["blocked_by"] = match (self.statuses.first(), self.waits.first()) {
            (Some(&"Queued"), Some(detail)) => json!([{"code": "behind_other_runs", "detail": detail}]),
            _ => json!([]),
        };
        for (member, value) in self.run.as_object().into_iter().flatten() {
            run[member] = value.clone();
        }
        run
    }
}

pub(super) type Shared = Arc<Mutex<Script>>;

/// Serves the script and says where.
pub(super) async fn serve(script: Script) -> (String, Shared) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    (url, serve_on(listener, script))
}

pub(super) fn serve_on(listener: TcpListener, script: Script) -> Shared {
    let shared: Shared = Arc::new(Mutex::new(script));
    let router = Router::new().fallback(answer).with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await });
    shared
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let header =
        |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let query = parts.uri.query().unwrap_or_default();
    let path = parts.uri.path().to_owned();
    if path == "/v1/snapshots" && shared.lock().expect("no panic").full {
        // Whoever closes the connection while somebody still writes may take the answer away from them.
        tokio::spawn(to_bytes(body, usize::MAX));
        return reply(413, &json!({"title": "Too large", "status": 413, "detail": "Send less."}));
    }
    let body = to_bytes(body, usize::MAX).await.expect("a body");
    let mut script = shared.lock().expect("no panic");
    script.requests.push(format!("{} {path} {query}", parts.method));
    let run = format!("/v1/runs/{RUN}");
    let below = path.strip_prefix(&run);
    match (parts.method.as_str(), path.as_str(), below) {
        ("POST", "/v1/snapshots", _) => {
            assert_eq!(header("content-type"), "application/gzip");
            assert_eq!(header("content-length"), body.len().to_string());
            script.uploads.push(body.to_vec());
            reply(201, &json!({"id": SNAPSHOT, "files": 1, "bytes": 1}))
        }
        ("POST", "/v1/runs", _) => {
            let value = serde_json::from_slice(&body).expect("JSON");
            script.created.push((header("idempotency-key"), value));
            if script.refusals.is_empty() {
                return reply(201, &script.a_run());
            }
            let (status, body) = script.refusals.remove(0);
            reply(status, &body)
        }
        ("GET", "/v1/estimators/an-estimator", _) => reply(
            200,
            &json!({"findings": [{"severity": "warning", "pointer": "/framework_version", "message": "5.1.0 is used."}]}),
        ),
        ("GET", _, Some("")) => {
            let run = script.a_run();
            if script.statuses.len() > 1 {
                script.statuses.remove(0);
            }
            if script.waits.len() > 1 {
                script.waits.remove(0);
            }
            reply(200, &run)
        }
        ("GET", _, Some("/logs")) => {
            let item = |(path, log): (&&str, &Vec<u8>)| json!({"path": path, "bytes": log.len(), "complete": false, "attempt": 1});
            let items: Vec<_> = script.logs.iter().map(item).collect();
            reply(200, &json!({"items": items, "run_status": script.statuses.first()}))
        }
        ("GET", _, Some("/outputs")) => {
            reply(200, &json!({"items": [{"path": "model.npz", "bytes": 2048, "sha256": "00"}]}))
        }
        ("POST", _, Some("/cancel")) => {
            let (status, body) = script.cancel.clone().unwrap_or_else(|| (202, script.a_run()));
            reply(status, &body)
        }
        ("GET", _, Some(rest))
            if rest.strip_prefix("/logs/").is_some_and(|log| script.logs.contains_key(log)) =>
        {
            let log = script.logs[&rest["/logs/".len()..]].clone();
            let offset = query.split('&').find_map(|pair| pair.strip_prefix("offset=")).expect("an offset");
            let cut = (!script.cuts.is_empty()).then(|| script.cuts.remove(0));
            drop(script);
            log_body(
                shared.clone(),
                log,
                offset.parse().expect("a number"),
                query.contains("follow=true"),
                cut,
            )
        }
        _ => reply(404, &json!({"type": "/problems/not-found", "title": "Not found", "status": 404})),
    }
}

fn reply(status: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(status).expect("a status"))
        .header("content-type", if status < 400 { "application/json" } else { "application/problem+json" })
        .body(Body::from(body.to_string()))
        .expect("an answer")
}

/// The log from an offset on, in small pieces; a followed one ends when the run is over, a cut one earlier.
fn log_body(shared: Shared, log: Vec<u8>, offset: usize, follow: bool, cut: Option<usize>) -> Response<Body> {
    let pieces = stream::unfold(offset, move |at| {
        let (shared, log) = (shared.clone(), log.clone());
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if cut.is_some_and(|cut| at >= cut) {
                return Some((Err(io::Error::other("cut")), at));
            }
            while at >= log.len() {
                if !follow || shared.lock().expect("no panic").is_over() {
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let end = (at + 7).min(log.len()).min(cut.unwrap_or(usize::MAX));
            Some((Ok(Bytes::copy_from_slice(&log[at..end])), end))
        }
    });
    Response::new(Body::from_stream(pieces))
}
