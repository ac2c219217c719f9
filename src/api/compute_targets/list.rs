//! `GET /v1/compute-targets`

use axum::{http::StatusCode, response::Response};

use super::ComputeTarget;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiQuery,
        paging::{Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
    },
    domain::access::Scope,
};

/// List the compute targets
///
/// By name.
#[utoipa::path(
    get, path = "/v1/compute-targets", tag = "compute-targets",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of targets", body = Page<ComputeTarget>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_compute_targets(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<String>::take(&mut query, "compute_targets")?;
    query.finish(&["limit", "cursor"])?;
    // There are a handful of them, and the rules read them all for every definition anyway.
    let targets = match state.principal.scope {
        Scope::Admin => state.installation.list_compute_targets().await?,
        _ => state.storage.list_compute_targets().await?,
    };
    let rest = targets
        .into_iter()
        .map(|target| ComputeTarget::from(target).shown(&state.principal))
        .filter(|target| request.after.as_deref().is_none_or(|after| target.name.as_str() > after))
        .collect();
    etag::json(StatusCode::OK, &request.page(rest, |target| target.name.as_str().to_owned()))
}
