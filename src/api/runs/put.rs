//! `PUT /v1/runs/{id}`

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::Response,
};

use super::{
    Run, RunBody, body,
    create::{Candidate, accepted, store},
};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiJson, ApiPath},
        idempotency,
        problem::Problem,
        scoped::Scoped,
    },
    domain::ids::RunId,
};

/// Start a run under an id of one's own
///
/// The client makes the id, a UUIDv7, and can send the same request as often as it likes: there is one run. It is the other way
/// to what an `Idempotency-Key` does, and holds for as long as the run is kept: whoever has lost the answer asks for the run by the id that it knows.
#[utoipa::path(
    put, path = "/v1/runs/{id}", tag = "runs",
    params(("id" = RunId, Path, description = "The run's id: a UUIDv7 (RFC 9562) that the client has made", example = json!("01980000-0000-7000-8000-000000000000"))),
    request_body(content = RunBody, description = "The run"),
    responses(
        (status = 201, description = "Accepted and queued; `Location` has its address", body = Run),
        (status = 200, description = "It was accepted before, by a request with this body: the run as it is now", body = Run),
        (status = 400, description = "The id is no UUIDv7, or the body is not JSON, or has a key twice", body = Problem),
        (status = 409, description = "There is a run with this id that was made of another body", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The run is refused; `findings` has everything that was found", body = Problem),
        (status = 429, description = "As many runs are queued as may be: send it again after `Retry-After` seconds", body = Problem),
    ),
)]
pub async fn put_run(
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    if headers.contains_key(header::IF_MATCH) {
        // It makes a run and changes none: there is nothing that could have changed.
        let text = "If-Match means nothing here: this operation makes a run, and changes none that is there";
        return Err(ApiError::Malformed(text.to_owned()));
    }
    if !id.is_version_7() {
        return Err(ApiError::Malformed(format!(
            "`{id}` is no UUIDv7: make the id with version 7 of RFC 9562, so that ids of one time lie together"
        )));
    }
    if let Some(answer) = there(&state, id, &body.hash).await? {
        return Ok(answer);
    }
    let (run, estimator) = accepted(&state, body::read(&body.members), id).await?;
    let put_hash = Some(body.hash);
    let candidate = Candidate { run, estimator, idempotency: None, put_hash };
    if let Some(stored) = store(&state, candidate, state.slip.as_ref()).await? {
        return idempotency::answer(stored);
    }
    // Somebody was faster: the same request, sent twice at once, or another one.
    match there(&state, id, &body.hash).await? {
        Some(answer) => Ok(answer),
        None => Err(ApiError::Conflict(format!(
            "the id {id} is taken, or too close to one that is: make another"
        ))),
    }
}

/// The answer when there is a run with this id.
async fn there(state: &Scoped, id: RunId, hash: &[u8; 32]) -> Result<Option<Response>, ApiError> {
    let Some(known) = state.storage.put_hash(id).await? else { return Ok(None) };
    if known.as_deref() != Some(&hash[..]) {
        return Err(ApiError::Conflict(format!("there is a run {id}, and it was made of another body")));
    }
    let run = state.storage.get_run(id).await?.ok_or_else(|| ApiError::not_found("run", id))?;
    if run.caller != state.principal.caller() {
        return Err(ApiError::Conflict(format!("there is a run {id}, and another caller made it")));
    }
    etag::json(StatusCode::OK, &Run::load(state, id).await?).map(Some)
}
