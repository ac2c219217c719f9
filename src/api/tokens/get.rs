//! `GET /v1/tokens/{id}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use uuid::Uuid;

use super::Token;
use crate::api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped};

/// Get a token
///
/// What is known of it and of its use; never the token itself.
#[utoipa::path(
    get, path = "/v1/tokens/{id}", tag = "access",
    params(
        ("id" = Uuid, Path, description = "The token's id"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the token still has this ETag"),
    ),
    responses(
        (status = 200, description = "The token", body = Token, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such token", body = Problem),
    ),
)]
pub async fn get_token(
    state: Scoped,
    ApiPath(id): ApiPath<Uuid>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let token = state.installation.get_api_token(id).await?;
    let token = token.ok_or_else(|| ApiError::not_found("token", id))?;
    etag::tagged(&headers, StatusCode::OK, &Token::from(token))
}
