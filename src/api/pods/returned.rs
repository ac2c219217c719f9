//! `PUT /v1/runs/{run_id}/attempts/{attempt}/returned/{part}`

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
};

use super::admit;
use crate::{
    api::{
        error::ApiError,
        extract::{ApiPath, ApiQuery},
        openapi::Binary,
        problem::Problem,
        state::Shared,
    },
    artifacts::ReturnedError,
    domain::{exchange::PartName, ids::RunId},
};

/// What is sent while a script runs: records and logs, which a pod sends up to 200 MiB of.
const MAX_PARTIAL_BYTES: u64 = 256 << 20;
/// What is sent at the end. What of it is kept the worker decides; for data that goes to a datastore there is no limit, so this one
/// only keeps a pod that never ends from filling the disk.
const MAX_FINAL_BYTES: u64 = 1 << 40;
const TAR: &str = "application/x-tar";

/// Send back what a script wrote
///
/// For the pods of an attempt, which come with a token of their own: records, logs and, with `final=true`, everything else, as a tar
/// with the directories `work` and `home`. It takes the place of what the same pod sent before; what is final stays.
#[utoipa::path(
    put, path = "/v1/runs/{run_id}/attempts/{attempt}/returned/{part}", tag = "pods",
    security(("pod_token" = [])),
    params(
        ("run_id" = RunId, Path, description = "The run's id"),
        ("attempt" = u32, Path, description = "The attempt's number", minimum = 1),
        ("part" = PartName, Path, description = "The pod's name"),
        ("final" = Option<bool>, Query, description = "Whether it is all that there will be"),
    ),
    request_body(description = "The tar", content((Binary = "application/x-tar"))),
    responses(
        (status = 204, description = "It is kept"),
        (status = 400, description = "Path, query or body cannot be read", body = Problem),
        (status = 401, description = "The token is not that of the attempt", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
        (status = 409, description = "The run has ended, or is at another attempt", body = Problem),
        (status = 413, description = "It is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/x-tar", body = Problem),
    ),
)]
pub async fn put_attempt_returned(
    State(state): State<Shared>,
    ApiPath((run, attempt, part)): ApiPath<(RunId, u32, PartName)>,
    mut query: ApiQuery,
    request: Request,
) -> Result<StatusCode, ApiError> {
    admit(&state, request.headers(), run, attempt).await?;
    let is_final: bool = query.take_parsed("final", "`true` or `false`")?.unwrap_or(false);
    query.finish(&["final"])?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|given| given.split(';').next());
    if essence.map(str::trim) != Some(TAR) {
        return Err(ApiError::UnsupportedMediaType { accepted: TAR.to_owned() });
    }
    let limit = if is_final { MAX_FINAL_BYTES } else { MAX_PARTIAL_BYTES };
    let body = request.into_body().into_data_stream();
    match state.artifacts.put_returned(run, attempt, &part, is_final, body, limit).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(ReturnedError::Body(_)) => Err(ApiError::BodyBrokeOff),
        Err(ReturnedError::TooLarge { limit }) => {
            Err(ApiError::BodyTooLarge { limit: usize::try_from(limit).unwrap_or(usize::MAX) })
        }
        Err(ReturnedError::Store(error)) => Err(error.into()),
    }
}
