//! `GET /v1/environments`

use axum::{http::StatusCode, response::Response};

use super::{BuiltEnvironment, BuiltEnvironmentDetails};
use crate::api::{
    error::ApiError,
    etag,
    extract::ApiQuery,
    paging::{Page, PageRequest},
    problem::Problem,
    scoped::Scoped,
};

/// List the built environments
///
/// By key. Those that were evicted are gone from the list.
#[utoipa::path(
    get, path = "/v1/environments", tag = "environments",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of environments", body = Page<BuiltEnvironment>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_environments(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<String>::take(&mut query, "environments")?;
    query.finish(&["limit", "cursor"])?;
    let found = state.installation.list_environments(request.after.as_deref(), request.rows()).await?;
    let items = found.into_iter().map(|found| BuiltEnvironmentDetails::from(found).environment).collect();
    etag::json(StatusCode::OK, &request.page(items, |environment| environment.key.to_string()))
}
