//! `DELETE /v1/tokens/{id}`

use axum::{http::StatusCode, response::Response};
use uuid::Uuid;

use super::Token;
use crate::api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped};

/// Revoke a token
///
/// For good, and at once here; other replicas know within five seconds. What is known of it stays to be seen. Revoking twice changes
/// nothing. Answers that are open already, such as followed logs, go on to their end.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "access",
    params(("id" = Uuid, Path, description = "The token's id")),
    responses(
        (status = 200, description = "The token, revoked", body = Token),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such token", body = Problem),
    ),
)]
pub async fn delete_token(state: Scoped, ApiPath(id): ApiPath<Uuid>) -> Result<Response, ApiError> {
    let token = state.installation.revoke_api_token(id).await?;
    let token = token.ok_or_else(|| ApiError::not_found("token", id))?;
    state.access.forget(id);
    etag::json(StatusCode::OK, &Token::from(token))
}
