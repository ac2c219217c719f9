//! `GET /v1/estimators`

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Estimator;
use crate::api::{
    error::ApiError,
    etag,
    extract::ApiQuery,
    paging::{Page, PageRequest},
    problem::Problem,
    scoped::Scoped,
};

/// List the estimators
///
/// Newest first, archived ones left out.
#[utoipa::path(
    get, path = "/v1/estimators", tag = "estimators",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of estimators", body = Page<Estimator>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_estimators(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<(DateTime<Utc>, Uuid)>::take(&mut query, "estimators")?;
    query.finish(&["limit", "cursor"])?;
    let estimators = state.storage.list_estimators(request.after, request.rows()).await?;
    let page = request.page(estimators, |one| (one.created_at, one.id.as_uuid())).map(Estimator::from);
    etag::json(StatusCode::OK, &page)
}
