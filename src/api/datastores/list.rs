//! `GET /v1/datastores`

use axum::{http::StatusCode, response::Response};

use super::Datastore;
use crate::api::{
    error::ApiError,
    etag,
    extract::ApiQuery,
    paging::{Page, PageRequest},
    problem::Problem,
    scoped::Scoped,
};

/// List the datastores
///
/// By name.
#[utoipa::path(
    get, path = "/v1/datastores", tag = "datastores",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of datastores", body = Page<Datastore>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_datastores(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<String>::take(&mut query, "datastores")?;
    query.finish(&["limit", "cursor"])?;
    let found = state.storage.list_datastores(request.after.as_deref(), request.rows()).await?;
    let items = found.into_iter().map(Datastore::from).collect();
    etag::json(StatusCode::OK, &request.page(items, |datastore| datastore.name.as_str().to_owned()))
}
