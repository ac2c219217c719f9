//! `GET /v1/tokens`

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Token;
use crate::api::{
    error::ApiError,
    etag,
    extract::ApiQuery,
    paging::{Page, PageRequest},
    problem::Problem,
    scoped::Scoped,
};

/// List the tokens
///
/// Of all projects, newest first, expired and revoked ones included.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "access",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of tokens", body = Page<Token>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_tokens(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<(DateTime<Utc>, Uuid)>::take(&mut query, "tokens")?;
    query.finish(&["limit", "cursor"])?;
    let found = state.installation.list_api_tokens(request.after, request.rows()).await?;
    let page = request.page(found, |token| (token.created_at, token.id)).map(Token::from);
    etag::json(StatusCode::OK, &page)
}
