//! The fake API server's HTTP: what `kube` and the backend ask of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{Method, Response, StatusCode, header},
};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    logs::Logs,
    store::{Propagation, Refusal, Store, has_fields, has_labels, name_of, refusal},
};

/// Something that goes wrong, once for each time that it was asked for.
#[derive(Clone, Debug)]
pub struct Fault {
    pub method: Method,
    /// A part of the path.
    pub path: &'static str,
    pub what: FaultKind,
}

#[derive(Clone, Debug)]
pub enum FaultKind {
    /// It is refused with this status.
    Status(u16),
    /// It is done, and nobody hears of it.
    DoneButTimedOut,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: Method,
    pub path: String,
    pub query: HashMap<String, String>,
    pub body: Value,
}

/// What the server knows beside its objects.
pub struct Server {
    pub store: Arc<Store>,
    pub logs: Arc<Logs>,
    pub faults: Mutex<Vec<Fault>>,
    pub seen: Mutex<Vec<Seen>>,
    /// `rules` of a Role; everything is allowed without.
    pub rules: Option<Value>,
    pub has_mpi: AtomicBool,
    /// Whether the namespace enforces the Pod Security standard `restricted`: for warnings at the creation of a Job.
    pub restricted: bool,
    /// Watches of an earlier epoch end.
    pub epoch: watch::Sender<u64>,
}

pub fn router(server: Arc<Server>) -> Router {
    Router::new().fallback(answer).with_state(server)
}

fn respond(code: u16, body: &Value) -> Response<Body> {
    Response::builder()
        .status(StatusCode::from_u16(code).unwrap())
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .unwrap()
}

/// Group, plural, name and subresource of a path.
fn parse(path: &str) -> Option<(&'static str, String, Option<String>, Option<String>)> {
    let (group, rest) = [
        ("batch", "/apis/batch/v1/namespaces/runs/"),
        ("kubeflow.org", "/apis/kubeflow.org/v2beta1/namespaces/runs/"),
        ("", "/api/v1/namespaces/runs/"),
    ]
    .into_iter()
    .find_map(|(group, prefix)| Some((group, path.strip_prefix(prefix)?)))?;
    let mut parts = rest.split('/').map(ToOwned::to_owned);
    Some((group, parts.next()?, parts.next(), parts.next()))
}

fn query_of(request: &Request) -> HashMap<String, String> {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response<Body> {
    let (method, path, query) =
        (request.method().clone(), request.uri().path().to_owned(), query_of(&request));
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let seen = Seen { method: method.clone(), path: path.clone(), query: query.clone(), body: body.clone() };
    server.seen.lock().unwrap().push(seen);
    let fault = {
        let mut faults = server.faults.lock().unwrap();
        let at = faults.iter().position(|fault| fault.method == method && path.contains(fault.path));
        at.map(|at| faults.remove(at))
    };
    match fault.map(|fault| fault.what) {
        Some(FaultKind::Status(code)) => {
            let mut response =
                respond(code, &refusal(code, "InternalError", "a fault that a test asked for").body());
            response.headers_mut().insert(header::RETRY_AFTER, "1".parse().unwrap());
            response
        }
        Some(FaultKind::DoneButTimedOut) => {
            drop(handle(&server, &method, &path, &query, body).await);
            respond(504, &refusal(504, "Timeout", "request did not complete within requested timeout").body())
        }
        None => match handle(&server, &method, &path, &query, body).await {
            Ok(response) => response,
            Err(refused) => respond(refused.code, &refused.body()),
        },
    }
}

fn allowed(server: &Server, group: &str, resource: &str, verb: &str) -> Result<(), Refusal> {
    let Some(rules) = server.rules.as_ref().and_then(Value::as_array) else { return Ok(()) };
    let has =
        |list: &Value, word: &str| list.as_array().is_some_and(|list| list.iter().any(|one| one == word));
    let fits = |rule: &Value| {
        has(&rule["apiGroups"], group) && has(&rule["resources"], resource) && has(&rule["verbs"], verb)
    };
    if rules.iter().any(fits) {
        return Ok(());
    }
    let message = format!(
        "{resource} is forbidden: User \"system:serviceaccount:estimatord:estimatord\" cannot {verb} resource \"{resource}\" in API \
         group \"{group}\" in the namespace \"runs\""
    );
    Err(refusal(403, "Forbidden", message))
}

async fn handle(
    server: &Arc<Server>,
    method: &Method,
    path: &str,
    query: &HashMap<String, String>,
    body: Value,
) -> Result<Response<Body>, Refusal> {
    if path == "/version" {
        return Ok(respond(200, &json!({"major": "1", "minor": "36", "gitVersion": "v1.36.2-fake"})));
    }
    let not_found = || refusal(404, "NotFound", "the server could not find the requested resource");
    let (group, plural, name, subresource) = parse(path).ok_or_else(not_found)?;
    if plural == "mpijobs" && !server.has_mpi.load(Ordering::Relaxed) {
        return Err(not_found());
    }
    let resource = subresource.as_ref().map_or_else(|| plural.clone(), |sub| format!("{plural}/{sub}"));
    let is_watch = query.get("watch").is_some_and(|watch| watch == "true" || watch == "1");
    let verb = match (method, &name) {
        (&Method::GET, None) if is_watch => "watch",
        (&Method::GET, None) => "list",
        (&Method::GET, Some(_)) => "get",
        (&Method::POST, _) => "create",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, _) => "delete",
        _ => {
            return Err(refusal(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource",
            ));
        }
    };
    allowed(server, group, &resource, verb)?;
    match (verb, name, subresource.as_deref()) {
        ("get", Some(pod), Some("log")) => server.logs.answer(&server.store, &pod, query),
        ("watch", ..) => watch_stream(server, &plural, query),
        ("list", ..) => {
            let fits = |object: &Value| selected(object, query);
            let items: Vec<Value> = server.store.list(&plural).into_iter().filter(fits).collect();
            let version = server.store.version().to_string();
            Ok(respond(
                200,
                &json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": items}),
            ))
        }
        ("get", Some(name), None) => match server.store.get(&plural, &name) {
            Some(object) => Ok(respond(200, &object)),
            None => Err(refusal(404, "NotFound", format!("{plural} \"{name}\" not found"))),
        },
        ("create", ..) => create(server, &plural, body),
        ("patch", Some(name), None) => {
            let patched = server.store.update(&plural, &name, |object| merge(object, &body));
            let gone = || refusal(404, "NotFound", format!("{plural} \"{name}\" not found"));
            patched.map(|object| respond(200, &object)).ok_or_else(gone)
        }
        ("delete", Some(name), None) => {
            let asked =
                body["propagationPolicy"].as_str().or(query.get("propagationPolicy").map(String::as_str));
            let how = match asked {
                Some("Foreground") => Propagation::Foreground,
                Some("Background") => Propagation::Background,
                // Fact 3.1: without a word a Job's pods are left running.
                None if plural != "jobs" => Propagation::Background,
                _ => Propagation::Orphan,
            };
            let object = server.store.delete(&plural, &name, how, body["preconditions"]["uid"].as_str())?;
            Ok(respond(200, &object))
        }
        _ => Err(not_found()),
    }
}

fn selected(object: &Value, query: &HashMap<String, String>) -> bool {
    has_labels(object, query.get("labelSelector").map_or("", String::as_str))
        && has_fields(object, query.get("fieldSelector").map_or("", String::as_str))
}

fn create(server: &Server, plural: &str, object: Value) -> Result<Response<Body>, Refusal> {
    let name = name_of(&object);
    // Fact 3.11; of an MPIJob nobody looks at the name (fact 4.1).
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if plural == "jobs" && (name.len() > 63 || !name.chars().all(is_label)) {
        let message = format!("Job.batch \"{name}\" is invalid: metadata.name: Invalid value: \"{name}\"");
        return Err(refusal(422, "Invalid", message));
    }
    let created = server.store.create(plural, object)?;
    let mut response = respond(201, &created);
    if server.restricted
        && plural == "jobs"
        && super::controllers::violation(&created["spec"]["template"]["spec"]).is_some()
    {
        let warning = "299 - \"would violate PodSecurity \\\"restricted:latest\\\"\"";
        response.headers_mut().insert(header::WARNING, warning.parse().unwrap());
    }
    Ok(response)
}

fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    object.remove(key);
                } else {
                    merge(object.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (object, patch) => *object = patch.clone(),
    }
}

fn watch_stream(
    server: &Arc<Server>,
    plural: &str,
    query: &HashMap<String, String>,
) -> Result<Response<Body>, Refusal> {
    let version: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    server.store.since(plural, version)?;
    let seconds: u64 = query.get("timeoutSeconds").and_then(|text| text.parse().ok()).unwrap_or(300);
    let state = Watching {
        server: Arc::clone(server),
        plural: plural.to_owned(),
        query: query.clone(),
        version,
        changes: server.store.changes(),
        epoch: server.epoch.subscribe(),
        until: tokio::time::Instant::now() + Duration::from_secs(seconds),
        ended: false,
    };
    let lines = stream::unfold(state, |mut watching| async move {
        let bytes = watching.next().await?;
        Some((Ok::<Bytes, std::io::Error>(bytes), watching))
    });
    Ok(Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from_stream(lines))
        .unwrap())
}

struct Watching {
    server: Arc<Server>,
    plural: String,
    query: HashMap<String, String>,
    version: u64,
    changes: watch::Receiver<u64>,
    epoch: watch::Receiver<u64>,
    until: tokio::time::Instant,
    ended: bool,
}

impl Watching {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            self.changes.mark_unchanged();
            match self.server.store.since(&self.plural, self.version) {
                Err(gone) => {
                    self.ended = true;
                    return Some(line("ERROR", &gone.body()));
                }
                Ok(changes) => {
                    self.version = changes.last().map_or(self.version, |change| change.version);
                    let fitting = changes.iter().filter(|change| selected(&change.object, &self.query));
                    let lines: Vec<u8> =
                        fitting.flat_map(|change| line(change.kind, &change.object)).collect();
                    if !lines.is_empty() {
                        return Some(lines.into());
                    }
                }
            }
            tokio::select! {
                _ = self.changes.changed() => {}
                _ = self.epoch.changed() => self.ended = true,
                () = tokio::time::sleep_until(self.until) => self.ended = true,
            }
        }
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    format!("{}\n", json!({"type": kind, "object": object})).into()
}
