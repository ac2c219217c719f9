//! `DELETE /v1/compute-targets/{name}`

use axum::http::{HeaderMap, StatusCode, header};

use super::ComputeTarget;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::compute_target::{ComputeTargetName, LOCAL},
    storage::compute_targets::Deletion,
};

/// Delete a compute target
///
/// Only when no run is waiting or active on it. `local` cannot be deleted.
#[utoipa::path(
    delete, path = "/v1/compute-targets/{name}", tag = "compute-targets",
    params(
        ("name" = ComputeTargetName, Path, description = "The target's name"),
        ("If-Match" = Option<String>, Header, description = "Only delete the target when it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such target", body = Problem),
        (status = 409, description = "It is `local`, or runs that have not ended are on it", body = Problem),
        (status = 412, description = "The target does not have the ETag of If-Match", body = Problem),
    ),
)]
pub async fn delete_compute_target(
    state: Scoped,
    ApiPath(name): ApiPath<ComputeTargetName>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    if name.as_str() == LOCAL {
        return Err(ApiError::Conflict(format!("`{LOCAL}` is always there and cannot be deleted")));
    }
    if headers.contains_key(header::IF_MATCH) {
        let current = state.installation.get_compute_target(name.as_str()).await?.map(ComputeTarget::from);
        etag::require_match(&headers, current.as_ref())?;
    }
    match state.installation.delete_compute_target(name.as_str()).await? {
        Deletion::Deleted => Ok(StatusCode::NO_CONTENT),
        Deletion::NotFound => Err(ApiError::not_found("compute target", &name)),
        Deletion::InUse { runs } => Err(ApiError::Conflict(format!(
            "{runs} run(s) on `{name}` have not ended; wait for them or cancel them first"
        ))),
    }
}
