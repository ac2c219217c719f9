//! `PUT /v1/compute-targets/{name}`

use axum::{
    http::{HeaderMap, header},
    response::Response,
};

use super::{ComputeTarget, ComputeTargetBody, body};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiJson, ApiPath},
        problem::{Problem, ProblemKind},
        scoped::Scoped,
    },
    domain::compute_target::{ComputeTargetName, ComputeTargetType, LOCAL},
};

/// Make or replace a compute target
///
/// What is not given gets its default: one node, no GPUs. `local` exists from the start; its limits may be changed, its type
/// not. Runs that were accepted before keep the backend they were accepted with.
#[utoipa::path(
    put, path = "/v1/compute-targets/{name}", tag = "compute-targets",
    params(
        ("name" = ComputeTargetName, Path, description = "The target's name"),
        ("If-Match" = Option<String>, Header, description = "Only change the target when it has this ETag"),
    ),
    request_body(content = ComputeTargetBody, description = "The target"),
    responses(
        (status = 200, description = "Replaced", body = ComputeTarget, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 201, description = "Made", body = ComputeTarget, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 400, description = "The name or the body cannot be read", body = Problem),
        (status = 409, description = "`local` cannot have another type", body = Problem),
        (status = 412, description = "The target does not have the ETag of If-Match", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body is refused; `findings` has everything that is wrong", body = Problem),
    ),
)]
pub async fn put_compute_target(
    state: Scoped,
    ApiPath(name): ApiPath<ComputeTargetName>,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    let target = body::read(&name, &body.members)
        .map_err(|findings| ApiError::Refused { kind: ProblemKind::InvalidComputeTarget, findings })?;
    if name.as_str() == LOCAL && target.kind != ComputeTargetType::Local {
        return Err(ApiError::Conflict(format!(
            "`{LOCAL}` is of type `{LOCAL}` and stays so; register a target of type `{}` under another name",
            target.kind
        )));
    }
    let now = state.clock.now();
    let (stored, is_new) = if headers.contains_key(header::IF_MATCH) {
        let current = state.installation.get_compute_target(name.as_str()).await?.map(ComputeTarget::from);
        etag::require_match(&headers, current.as_ref())?;
        let current = current.ok_or(ApiError::PreconditionFailed)?;
        let replaced = state.installation.replace_compute_target(&target, current.updated_at, now).await?;
        (replaced.ok_or(ApiError::PreconditionFailed)?, false)
    } else {
        state.installation.put_compute_target(&target, now).await?
    };
    // Another limit may give waiting runs their places.
    state.wakeup.notify_one();
    etag::put(is_new, &format!("/v1/compute-targets/{name}"), &ComputeTarget::from(stored))
}
