//! `POST /v1/estimators/{id}/render`

use axum::{http::StatusCode, response::Response};

use super::{RenderBody, body, refused, rendered};
use crate::{
    api::{
        error::ApiError,
        estimators::judged::found,
        etag,
        extract::{ApiJson, ApiPath},
        problem::Problem,
        scoped::Scoped,
    },
    domain::{ids::EstimatorId, render::Rendering},
};

/// Render a stored estimator
///
/// As Python for SDK v1 (`ScriptRunConfig`), as an Azure ML v2 command job, as a Slurm batch script or as a Kubernetes `Job` or
/// `MPIJob`. It is judged by today's rules first. `not_expressed` lists what the text cannot say.
#[utoipa::path(
    post, path = "/v1/estimators/{id}/render", tag = "estimators",
    params(("id" = EstimatorId, Path, description = "The estimator's id")),
    request_body(content = RenderBody, description = "The format"),
    responses(
        (status = 200, description = "The text, its media type, and what it could not express", body = Rendering),
        (status = 400, description = "The id or the body cannot be read", body = Problem),
        (status = 404, description = "There is no such estimator", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body is refused, or the estimator by today's rules; `findings` has everything that was found", body = Problem),
    ),
)]
pub async fn render_estimator(
    state: Scoped,
    ApiPath(id): ApiPath<EstimatorId>,
    body: ApiJson,
) -> Result<Response, ApiError> {
    let request = body::read(&body.members, false).map_err(refused)?;
    let stored = found(&state, id).await?;
    let rendering = rendered(&state, &stored.definition, &request.overrides, request.format, false).await?;
    etag::json(StatusCode::OK, &rendering)
}
