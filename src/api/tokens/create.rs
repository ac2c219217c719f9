//! `POST /v1/tokens`

use super::{Token, TokenBody, body};
use crate::{
    api::{
        error::ApiError,
        extract::ApiJson,
        idempotency,
        problem::{Problem, ProblemKind},
        scoped::Scoped,
    },
    clock::entropy,
    domain::api_token::{self, digest},
    storage::{
        api_tokens::ApiToken,
        idempotency::{Keyed, Recorded},
    },
};
use axum::{http::HeaderMap, response::Response};
use chrono::TimeDelta;
use serde_json::json;

/// Make a token
///
/// The answer has the token itself, in `token`: keep it, for it is shown this once and kept as a digest only. With an
/// `Idempotency-Key` a repeated request gets the first answer without it: whoever has lost that answer revokes the token and makes
/// another.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "access",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key and body get the first answer again, without the token itself and with `Idempotency-Replayed: true`", max_length = 255)),
    request_body(content = TokenBody, description = "The token to make"),
    responses(
        (status = 201, description = "Made; `Location` has its address", body = Token),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 409, description = "The first request with this Idempotency-Key is still at work", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The token is refused; `findings` has everything that is wrong. Or the Idempotency-Key was used for another body", body = Problem),
    ),
)]
pub async fn create_token(state: Scoped, headers: HeaderMap, body: ApiJson) -> Result<Response, ApiError> {
    let (key, earlier) = idempotency::begin(&state, &headers, "create_token", body.hash).await?;
    if let Some(earlier) = earlier {
        return Ok(earlier);
    }
    let new = body::read(&body.members)
        .map_err(|findings| ApiError::Refused { kind: ProblemKind::InvalidToken, findings })?;
    let now = state.clock.now();
    let good_for = TimeDelta::seconds(new.expires_in_seconds);
    let whose = (new.name, new.project, new.scope);
    let token = ApiToken::new(whose, state.principal.caller(), now, good_for, entropy());
    let secret = api_token::generate(entropy());
    let location = format!("/v1/tokens/{}", token.id);
    let mut view = json!(Token::from(token.clone()));
    let recorded = || Recorded { status: 201, location: Some(location), body: view.to_string() };
    let digest = digest(secret.expose());
    let mut keyed = state.installation.insert_api_token(&token, &digest, key.as_ref(), recorded).await?;
    if let Keyed::Done(recorded) = &mut keyed {
        view["token"] = json!(secret.expose());
        recorded.body = view.to_string();
    }
    idempotency::answer(keyed)
}
