//! `DELETE /v1/webhooks/{name}`

use axum::http::{HeaderMap, StatusCode, header};

use super::Webhook;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::webhook::WebhookName,
};

/// Delete a webhook
///
/// With the log of its deliveries. What is not delivered yet is not delivered any more.
#[utoipa::path(
    delete, path = "/v1/webhooks/{name}", tag = "webhooks",
    params(
        ("name" = WebhookName, Path, description = "The webhook's name", example = "ci"),
        ("If-Match" = Option<String>, Header, description = "Only delete the webhook when it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such webhook", body = Problem),
        (status = 412, description = "The webhook does not have the ETag of If-Match", body = Problem),
    ),
)]
pub async fn delete_webhook(
    state: Scoped,
    ApiPath(name): ApiPath<WebhookName>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let mut last_changed = None;
    if headers.contains_key(header::IF_MATCH) {
        let current = state.storage.get_webhook(&name).await?.map(Webhook::from);
        etag::require_match(&headers, current.as_ref())?;
        last_changed = current.map(|current| current.updated_at);
    }
    match state.storage.delete_webhook(&name, last_changed).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false if last_changed.is_some() => Err(ApiError::PreconditionFailed),
        false => Err(ApiError::not_found("webhook", &name)),
    }
}
