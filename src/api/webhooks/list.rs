//! `GET /v1/webhooks`

use axum::{http::StatusCode, response::Response};

use super::Webhook;
use crate::api::{
    error::ApiError,
    etag,
    extract::ApiQuery,
    paging::{Page, PageRequest},
    problem::Problem,
    scoped::Scoped,
};

/// List the webhooks
///
/// By name.
#[utoipa::path(
    get, path = "/v1/webhooks", tag = "webhooks",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of webhooks", body = Page<Webhook>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_webhooks(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<String>::take(&mut query, "webhooks")?;
    query.finish(&["limit", "cursor"])?;
    let found = state.storage.list_webhooks(request.after.as_deref(), request.rows()).await?;
    let items = found.into_iter().map(Webhook::from).collect();
    etag::json(StatusCode::OK, &request.page(items, |webhook| webhook.name.as_str().to_owned()))
}
