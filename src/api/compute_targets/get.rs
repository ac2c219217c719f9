//! `GET /v1/compute-targets/{name}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::ComputeTarget;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::{access::Scope, compute_target::ComputeTargetName},
};

/// Get a compute target
///
/// With its limits, and with what the last worker found that looked whether it can be reached.
#[utoipa::path(
    get, path = "/v1/compute-targets/{name}", tag = "compute-targets",
    params(
        ("name" = ComputeTargetName, Path, description = "The target's name", example = "local"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the target still has this ETag"),
    ),
    responses(
        (status = 200, description = "The target", body = ComputeTarget, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such target", body = Problem),
    ),
)]
pub async fn get_compute_target(
    state: Scoped,
    ApiPath(name): ApiPath<ComputeTargetName>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let target = match state.principal.scope {
        Scope::Admin => state.installation.get_compute_target(name.as_str()).await?,
        _ => state.storage.get_compute_target(name.as_str()).await?,
    };
    let target = target.ok_or_else(|| ApiError::not_found("compute target", &name))?;
    etag::tagged(&headers, StatusCode::OK, &ComputeTarget::from(target).shown(&state.principal))
}
