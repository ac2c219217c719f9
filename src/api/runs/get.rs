//! `GET /v1/runs/{id}`

use std::time::Duration;

use super::{Run, progress};
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, feed::Topic, problem::Problem, scoped::Scoped},
    domain::ids::RunId,
};
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

/// Below the idle limit of the usual proxies.
const MAX_WAIT_SECONDS: u64 = 60;

static PREFER: HeaderName = HeaderName::from_static("prefer");
static PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Get a run
///
/// With `Prefer: wait=30` the answer is held back until the status changes from what it is now, for 60 seconds at most. A run
/// that has ended is answered at once.
#[utoipa::path(
    get, path = "/v1/runs/{id}", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("Prefer" = Option<String>, Header, description = "`wait=<seconds>`: wait so long for a change of status", example = "wait=30"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the run still has this ETag"),
    ),
    responses(
        (status = 200, description = "The run", body = Run, headers(
            ("ETag" = String, description = "Its entity tag"),
            ("Preference-Applied" = String, description = "The wait that was applied, if one was asked for"),
        )),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
    ),
)]
pub async fn get_run(
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let wait = asked_wait(&headers);
    if let Some(seconds) = wait {
        wait_for_change(&state, id, Duration::from_secs(seconds)).await?;
    }
    let mut response = etag::tagged(&headers, StatusCode::OK, &Run::load(&state, id).await?)?;
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("prefer"));
    if let Some(applied) = wait.and_then(|s| HeaderValue::from_str(&format!("wait={s}")).ok()) {
        response.headers_mut().insert(&PREFERENCE_APPLIED, applied);
    }
    Ok(response)
}

/// The seconds of a `wait` preference (RFC 7240), at most what is granted here.
fn asked_wait(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers.get_all(&PREFER).iter().filter_map(|value| value.to_str().ok());
    preferences
        .flat_map(|list| list.split(','))
        .filter_map(|one| one.trim().split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().trim_matches('"').parse::<u64>().ok())
        .map(|seconds| seconds.min(MAX_WAIT_SECONDS))
}

async fn wait_for_change(state: &Scoped, id: RunId, wait: Duration) -> Result<(), ApiError> {
    let before = progress(state, id).await?.status;
    if before.is_terminal() {
        return Ok(());
    }
    let feed = state.feeds.join(&state.installation, &Topic::Run(id));
    let mut seen = feed.watch();
    tokio::select! {
        // Whatever ends the looking, the run is read once more.
        _ = seen.wait_for(|seen| seen.is_some_and(|seen| seen.status != before)) => {}
        () = tokio::time::sleep(wait) => {}
        () = state.shutdown.cancelled() => {}
    }
    Ok(())
}
