//! `POST /v1/estimators/render`

use axum::{http::StatusCode, response::Response};
use serde_json::Map;

use super::{RenderDefinitionBody, body, refused, rendered};
use crate::{
    api::{error::ApiError, etag, extract::ApiJson, problem::Problem, scoped::Scoped},
    domain::render::Rendering,
};

/// Render a definition without storing it
///
/// As Python for SDK v1 (`ScriptRunConfig`), as an Azure ML v2 command job, as a Slurm batch script or as a Kubernetes `Job` or
/// `MPIJob`. It is judged first, as ever; a definition that is refused is not rendered. `not_expressed` lists what the text
/// cannot say. The example works as it stands once `examples/digits/train.py` of the repository has been uploaded, packed
/// alone (`create_snapshot`).
#[utoipa::path(
    post, path = "/v1/estimators/render", tag = "estimators",
    request_body(content = RenderDefinitionBody, description = "The definition and the format"),
    responses(
        (status = 200, description = "The text, its media type, and what it could not express", body = Rendering),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body or the definition is refused; `findings` has everything that was found", body = Problem),
    ),
)]
pub async fn render_definition(state: Scoped, body: ApiJson) -> Result<Response, ApiError> {
    let request = body::read(&body.members, true).map_err(refused)?;
    let empty = Map::new();
    let definition = request.definition.unwrap_or(&empty);
    let rendering = rendered(&state, definition, &request.overrides, request.format, true).await?;
    etag::json(StatusCode::OK, &rendering)
}
