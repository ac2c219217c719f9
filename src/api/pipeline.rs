//! What happens around every request: its id, its span, its figures, its problems, and the headers of its answer.

use std::{net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration, time::Instant};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::FutureExt as _;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::Instrument as _;

use super::{
    audit,
    auth::{self, Needs, run_tokens::run_token},
    docs,
    error::{ApiError, Pending},
    problem::PROBLEM_JSON,
    rate::{self, Party},
    request_id::{self, X_REQUEST_ID},
    state::{ApiState, Shared},
};
use crate::{
    domain::{
        access::{Credential, Principal},
        token_mask::without_tokens,
    },
    traces,
};

/// How long an ordinary request may take. Uploads, long polls and streams are not ordinary.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Several times what proxies add.
const MAX_HEADERS: usize = 100;

/// What browsers and proxies take.
const MAX_URI_BYTES: usize = 8192;

/// How long a body may stay silent before it counts as broken off.
const BODY_PATIENCE: Duration = Duration::from_secs(60);

/// The outermost layer. It alone turns errors into answers, because it alone knows the request id.
pub async fn around(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    let id = request_id::of(request.headers(), &*state.clock);
    let instance = id.to_str().unwrap_or_default().to_owned();
    // For everything that reads it further in: the caller's own header may have been missing or unfit.
    request.headers_mut().insert(&X_REQUEST_ID, id.clone());
    // Whoever mistakes a place for that of a token is not to find it in logs and traces.
    let shown_method = without_tokens(request.method().as_str()).into_owned();
    let shown_path = without_tokens(request.uri().path()).into_owned();
    let is_in_chunks = request.headers().contains_key(header::TRANSFER_ENCODING);
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let route = request.extensions().get::<MatchedPath>().map_or("unknown", MatchedPath::as_str).to_owned();
    let given = request_id::trace_parent(request.headers());
    let traced = if is_probe(&path) {
        tracing::Span::none()
    } else {
        traces::of_request(&shown_method, &route, &instance, given.as_ref())
    };
    let place = traces::place_of(&traced).or(given);
    // On every line, whatever the level is.
    let span = tracing::error_span!(
        "request", request_id = %instance, http.method = %shown_method, http.route = %route,
        trace_id = place.map(|place| format!("{:032x}", place.trace_id)),
    );

    let started = Instant::now();
    let answering = AssertUnwindSafe(request_id::at_place(place, next.run(request))).catch_unwind();
    let answered = answering.instrument(traced.clone()).instrument(span.clone()).await;
    let answered = answered.unwrap_or_else(|panic| ApiError::Internal(panic_text(&*panic)).into_response());
    let elapsed = started.elapsed();

    let mut response = span.in_scope(|| {
        let response = completed(answered, &instance);
        let status = response.status().as_u16();
        traced.record("http.response.status_code", status);
        if response.status().is_server_error() {
            traced.record("otel.status_code", "ERROR");
        }
        // As 64 bits it is a number in JSON, which larger ones are not.
        let elapsed_milliseconds = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        // A kubelet asks every few seconds, for ever: that all is well is no news.
        if is_probe(&path) && response.status().is_success() {
            tracing::debug!(status, elapsed_milliseconds, "{shown_method} {shown_path} answered {status}");
        } else {
            tracing::info!(status, elapsed_milliseconds, "{shown_method} {shown_path} answered {status}");
        }
        response
    });
    state.metrics.observe(&method, &route, response.status(), elapsed);
    add_headers(response.headers_mut(), &path, id);
    // Where a body ends that says so in two ways is a matter of opinion (RFC 9112, 6.1): nothing that follows it is read.
    if state.draining.is_cancelled() || is_in_chunks {
        // The next request is for somebody who stays.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz")
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("a handler panicked: {}", text.unwrap_or("no text"))
}

/// Gives an error its body, and logs it if it is the service's own.
fn completed(response: Response, instance: &str) -> Response {
    let error = match response.extensions().get::<Pending>() {
        Some(Pending(error)) => Arc::clone(error),
        None => match stray(&response) {
            Some(error) => Arc::new(error),
            None => return response,
        },
    };
    if error.kind().status().is_server_error() {
        tracing::error!(problem = error.kind().slug(), "request {instance} failed: {error}");
    }
    let mut answer = error.response(instance);
    // `Allow` was set by the router, the allowance by the guard.
    for (name, value) in response.headers() {
        if name == header::ALLOW || rate::is_about_allowance(name) {
            answer.headers_mut().insert(name.clone(), value.clone());
        }
    }
    answer
}

/// An error answer that none of our code made: it gets a body like all others.
fn stray(response: &Response) -> Option<ApiError> {
    let status = response.status();
    let is_problem = response.headers().get(header::CONTENT_TYPE).is_some_and(|value| value == PROBLEM_JSON);
    if !(status.is_client_error() || status.is_server_error()) || is_problem {
        return None;
    }
    Some(match status {
        StatusCode::NOT_FOUND => ApiError::UnknownRoute,
        StatusCode::METHOD_NOT_ALLOWED => ApiError::MethodNotAllowed,
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::BodyTooLarge { limit: super::extract::MAX_JSON_BYTES },
        status if status.is_client_error() => ApiError::Malformed("the request cannot be read".to_owned()),
        status => ApiError::Internal(format!("an unexplained {status}")),
    })
}

fn add_headers(headers: &mut HeaderMap, path: &str, id: HeaderValue) {
    headers.insert(&X_REQUEST_ID, id);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(docs::policy_for(path)));
    if auth::is_protected(path) && !headers.contains_key(header::CACHE_CONTROL) {
        // What has an entity tag may be kept, and must be asked about before it is used.
        let word = if headers.contains_key(header::ETAG) { "no-cache" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(word));
    }
}

/// Who may come in: who is known, not too often, and not too many at once. Probes are always answered.
pub async fn guard(State(state): State<Shared>, request: Request, next: Next) -> Response {
    if is_probe(request.uri().path()) {
        return next.run(request).await;
    }
    if let Err(error) = readable(&request) {
        return error.into_response();
    }
    let address = auth::address_of(&request, &state.trusted_proxies);
    let (mut head, body) = request.into_parts();
    let known = identify(&state, &head, address).await;
    let party = match &known {
        Ok(Some(principal)) => Party::of(principal, address),
        _ => Party::of_address(address),
    };
    let operation = operation_of(&state, &head);
    let draft = audit::Draft::of(&head, operation, known.as_ref().ok().and_then(Option::as_ref), address);
    if let Ok(Some(principal)) = &known {
        head.extensions.insert(principal.clone());
    }
    let needed = operation.map(|(_, needs)| needs);
    let changes = draft.as_ref().is_some_and(audit::Draft::changes);
    let slip = draft.map(audit::Slip::new);
    if let Some(slip) = slip.as_ref().filter(|_| changes) {
        head.extensions.insert(slip.clone());
    }
    let request = Request::from_parts(head, body);
    let answering = async move {
        let (answer, allowance) = match state.rates.count(&party) {
            Ok(allowance) => (let_in(&state, known, needed, &party, request, next).await, allowance),
            Err(allowance) => {
                state.metrics.rate_limited();
                (Err(allowance.into()), allowance)
            }
        };
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        if let Some(slip) = slip {
            slip.finish(&state, response.status(), &party).await;
        }
        allowance.write(response.headers_mut());
        response
    };
    if changes { to_the_end(answering).await } else { answering.await }
}

/// Goes on although the caller goes away: what was begun is done, or not, and the trail says which.
async fn to_the_end(answering: impl Future<Output = Response> + Send + 'static) -> Response {
    let placed = request_id::at_place(request_id::place(), answering);
    match tokio::spawn(placed.in_current_span()).await {
        Ok(response) => response,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and with it whoever waits.
        Err(error) => ApiError::Internal(error.to_string()).into_response(),
    }
}

/// Who sent a request; none where that is nobody's business, and for the pods of attempts, whose token their operations look at.
async fn identify(
    state: &ApiState,
    head: &Parts,
    address: Option<IpAddr>,
) -> Result<Option<Principal>, ApiError> {
    let path = head.uri.path();
    if !auth::is_protected(path) || auth::is_for_pods(path) {
        return Ok(None);
    }
    if let Some(principal) = run_token(state, head).await? {
        return Ok(Some(principal));
    }
    let principal = state.access.identify(&head.headers, address, &*state.clock).await?;
    if principal.credential == Credential::None
        && let Some(why) = auth::why_foreign(&head.method, &head.headers, &state.cors_origins)
    {
        return Err(ApiError::ForeignPage(why));
    }
    Ok(Some(principal))
}

/// Whether a request's head is of a size that anybody has a use for.
fn readable(request: &Request) -> Result<(), ApiError> {
    // The id is there whether the caller sent one or not.
    let headers = request.headers().keys().filter(|name| **name != X_REQUEST_ID).count();
    if request.headers().contains_key(header::TRANSFER_ENCODING)
        && request.headers().contains_key(header::CONTENT_LENGTH)
    {
        let text = "a request has a Content-Length or a Transfer-Encoding, not both";
        return Err(ApiError::Malformed(text.to_owned()));
    }
    if headers > MAX_HEADERS {
        return Err(ApiError::TooManyHeaders { limit: MAX_HEADERS });
    }
    let length = request.uri().path_and_query().map_or(0, |text| text.as_str().len());
    if length > MAX_URI_BYTES { Err(ApiError::UriTooLong { limit: MAX_URI_BYTES }) } else { Ok(()) }
}

async fn let_in(
    state: &ApiState,
    known: Result<Option<Principal>, ApiError>,
    needed: Option<Needs>,
    party: &Party,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let principal = known?;
    if let (Some(principal), Some(Needs::Scope(needed))) = (&principal, needed) {
        principal.require(needed)?;
    }
    let _place = state.crowd.enter(party).inspect_err(|error| {
        if matches!(error, ApiError::TooManyAtOnce { .. }) {
            state.metrics.rate_limited();
        }
    })?;
    Ok(next.run(request).await)
}

/// The operation that a request asks for, and what it needs; none when there is no such operation.
fn operation_of<'a>(state: &'a ApiState, head: &Parts) -> Option<(&'a str, Needs)> {
    let route = head.extensions.get::<MatchedPath>()?;
    state.operations.find(&head.method, route.as_str())
}

/// Ends bodies that stay silent too long. Who sends slowly may go on, down to the least rate of [`super::pace`].
#[must_use]
pub fn talkative() -> RequestBodyTimeoutLayer {
    RequestBodyTimeoutLayer::new(BODY_PATIENCE)
}

/// Ends requests that take too long.
pub async fn timed(request: Request, next: Next) -> Result<Response, ApiError> {
    within(REQUEST_TIMEOUT, request, next).await
}

async fn within(limit: Duration, request: Request, next: Next) -> Result<Response, ApiError> {
    let late = |_| ApiError::Timeout { seconds: limit.as_secs() };
    tokio::time::timeout(limit, next.run(request)).await.map_err(late)
}

/// For paths that are not there.
pub async fn unknown_route() -> ApiError {
    ApiError::UnknownRoute
}

/// For methods that a path does not take; the router adds `Allow`.
pub async fn method_not_allowed() -> ApiError {
    ApiError::MethodNotAllowed
}

#[cfg(test)]
mod tests {
    use std::iter;

    use axum::{Router, body::Body, middleware, routing::get};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        api::ApiSettings,
        artifacts::{Artifacts, Limits},
        clock::SystemClock,
        storage::Storage,
    };

    async fn panics() {
        panic!("a secret detail")
    }

    /// The layers around handlers that the service does not have. The database is never asked.
    fn app(directory: &std::path::Path) -> (Router, Shared) {
        let pool = sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none").expect("lazy");
        let artifacts =
            Artifacts::open(&directory.join("store"), &directory.join("scratch")).expect("a store");
        let state = Arc::new(ApiState::new(ApiSettings {
            storage: Storage::from_pool(pool),
            artifacts,
            limits: Limits::default(),
            one_off_target: None,
            clock: Arc::new(SystemClock),
            wakeup: Arc::default(),
            access: Default::default(),
            max_queued_runs: 10,
            caller_limit: None,
            max_requests_per_minute: std::num::NonZeroU32::MAX,
            webhook_receivers: Default::default(),
            datastore_places: Default::default(),
            cors_origins: Vec::new(),
            trusted_proxies: Default::default(),
            vault: None,
            figures: crate::figures::RunFigures::default(),
            log_filter: crate::telemetry::LogFilter::new("info").expect("a filter").0,
            draining: Default::default(),
            shutdown: Default::default(),
        }));
        let impatient = middleware::from_fn(|request, next| within(Duration::from_millis(10), request, next));
        let router = Router::new()
            .route("/panics", get(panics))
            .route("/bare", get(|| async { StatusCode::IM_A_TEAPOT }))
            .route("/slow", get(std::future::pending::<()>).layer(impatient))
            .layer(middleware::from_fn_with_state(Arc::clone(&state), guard))
            .layer(middleware::from_fn_with_state(Arc::clone(&state), around));
        (router.with_state(Arc::clone(&state)), state)
    }

    async fn problem(router: &Router, path: &str) -> (u16, String) {
        let request = Request::builder().uri(path).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("never fails");
        assert_eq!(response.headers()[header::CONTENT_TYPE], PROBLEM_JSON);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("UTF-8"))
    }

    #[tokio::test]
    async fn a_panic_is_a_problem_without_internals() {
        let directory = tempfile::tempdir().expect("a directory");
        let (router, _) = app(directory.path());
        let (status, text) = problem(&router, "/panics").await;
        assert!(status == 500 && text.contains("/problems/internal") && !text.contains("secret"), "{text}");
    }

    #[tokio::test]
    async fn an_error_that_nobody_explained_is_a_problem() {
        let directory = tempfile::tempdir().expect("a directory");
        let (router, _) = app(directory.path());
        let (status, text) = problem(&router, "/bare").await;
        assert!(status == 400 && text.contains("/problems/malformed-request"), "{text}");
    }

    #[tokio::test]
    async fn too_many_requests_are_turned_away() {
        let directory = tempfile::tempdir().expect("a directory");
        let (router, state) = app(directory.path());
        let parties = (0..u8::MAX).map(|one| Party::Address([10, 0, 0, one].into()));
        let _all: Vec<_> = parties
            .flat_map(|party| iter::from_fn(|| state.crowd.enter(&party).ok()).collect::<Vec<_>>())
            .collect();
        let (status, text) = problem(&router, "/bare").await;
        assert!(status == 503 && text.contains("/problems/busy"), "{text}");
    }

    #[tokio::test]
    async fn a_request_that_takes_too_long_is_a_problem() {
        let directory = tempfile::tempdir().expect("a directory");
        let (router, _) = app(directory.path());
        let (status, text) = problem(&router, "/slow").await;
        assert!(status == 503 && text.contains("/problems/timeout"), "{text}");
    }
}
