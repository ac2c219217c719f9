//! `GET /v1/runs/{run_id}/attempts/{attempt}/bundle`

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};

use super::admit;
use crate::{
    api::{error::ApiError, extract::ApiPath, openapi::Binary, problem::Problem, state::Shared},
    artifacts::ArtifactsError,
    domain::ids::RunId,
};

/// Fetch what a pod begins with
///
/// For the pods of an attempt, which come with a token of their own: source tree, data and the module for scripts, as a tar with the
/// directories `work` and `home`.
#[utoipa::path(
    get, path = "/v1/runs/{run_id}/attempts/{attempt}/bundle", tag = "pods",
    security(("pod_token" = [])),
    params(
        ("run_id" = RunId, Path, description = "The run's id"),
        ("attempt" = u32, Path, description = "The attempt's number", minimum = 1),
    ),
    responses(
        (status = 200, description = "The tar", body = inline(Binary), content_type = "application/x-tar"),
        (status = 400, description = "The path cannot be read", body = Problem),
        (status = 401, description = "The token is not that of the attempt", body = Problem),
        (status = 404, description = "There is no such run, or nothing is packed for it", body = Problem),
        (status = 409, description = "The run has ended, or is at another attempt", body = Problem),
    ),
)]
pub async fn get_attempt_bundle(
    State(state): State<Shared>,
    ApiPath((run, attempt)): ApiPath<(RunId, u32)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    admit(&state, &headers, run, attempt).await?;
    let (bytes, stream) = match state.artifacts.read_bundle(run, attempt).await {
        Ok(found) => found,
        Err(ArtifactsError::NotFound { .. }) => return Err(ApiError::not_found("bundle of run", run)),
        Err(error) => return Err(error.into()),
    };
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    headers.insert(header::CONTENT_LENGTH, bytes.into());
    Ok(response)
}
