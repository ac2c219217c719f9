//! `POST /v1/webhooks/{name}/deliveries/{id}/replay`

use axum::{http::StatusCode, response::Response};
use uuid::Uuid;

use super::Delivery;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::webhook::WebhookName,
};

/// Send a message again
///
/// Whatever became of it: at once, and then as often as a new one. It has the same `webhook-id`, so that a receiver which had
/// it knows.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/deliveries/{id}/replay", tag = "webhooks",
    params(
        ("name" = WebhookName, Path, description = "The webhook's name", example = "ci"),
        ("id" = Uuid, Path, description = "The delivery's id"),
    ),
    responses(
        (status = 202, description = "It is due again", body = Delivery),
        (status = 400, description = "The name or the id is malformed", body = Problem),
        (status = 404, description = "The webhook has no such delivery", body = Problem),
        (status = 409, description = "The webhook is disabled", body = Problem),
    ),
)]
pub async fn replay_webhook_delivery(
    state: Scoped,
    ApiPath((name, id)): ApiPath<(WebhookName, Uuid)>,
) -> Result<Response, ApiError> {
    let webhook =
        state.storage.get_webhook(&name).await?.ok_or_else(|| ApiError::not_found("webhook", &name))?;
    if !webhook.webhook.enabled {
        return Err(ApiError::Conflict(format!("the webhook `{name}` is disabled: enable it first")));
    }
    let delivery = state.storage.replay_delivery(&name, id).await?;
    let delivery = delivery.ok_or_else(|| ApiError::not_found("delivery", id))?;
    etag::json(StatusCode::ACCEPTED, &Delivery::from(delivery))
}
