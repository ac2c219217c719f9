//! `GET /v1/webhooks/{name}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::Webhook;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::webhook::WebhookName,
};

/// Get a webhook
///
/// Without its secret, which is shown when it is made and never again.
#[utoipa::path(
    get, path = "/v1/webhooks/{name}", tag = "webhooks",
    params(
        ("name" = WebhookName, Path, description = "The webhook's name", example = "ci"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the webhook still has this ETag"),
    ),
    responses(
        (status = 200, description = "The webhook", body = Webhook, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such webhook", body = Problem),
    ),
)]
pub async fn get_webhook(
    state: Scoped,
    ApiPath(name): ApiPath<WebhookName>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let webhook = state.storage.get_webhook(&name).await?;
    let webhook = webhook.ok_or_else(|| ApiError::not_found("webhook", &name))?;
    etag::tagged(&headers, StatusCode::OK, &Webhook::from(webhook))
}
