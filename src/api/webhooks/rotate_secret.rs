//! `POST /v1/webhooks/{name}/rotate-secret`

use axum::{http::StatusCode, response::Response};
use chrono::Duration;

use super::Webhook;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiPath,
        problem::{Problem, ProblemKind},
        scoped::Scoped,
        secrets::seal,
    },
    clock::entropy,
    domain::webhook::{WebhookName, signature},
    vault::purposes,
};

/// How long messages are signed with both: enough to give the new secret to every receiver.
const BOTH_COUNT_FOR: Duration = Duration::hours(24);

/// Give a webhook another secret
///
/// The answer has it, and nothing else ever does. For 24 hours messages carry the signatures by the secrets before as well, so that no
/// receiver misses any. Whoever has lost the answer rotates again: what receivers know counts on.
#[utoipa::path(
    post, path = "/v1/webhooks/{name}/rotate-secret", tag = "webhooks",
    params(("name" = WebhookName, Path, description = "The webhook's name", example = "ci")),
    responses(
        (status = 200, description = "The webhook, with its new secret", body = Webhook),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such webhook", body = Problem),
        (status = 422, description = "The service has no key to keep secrets with", body = Problem),
    ),
)]
pub async fn rotate_webhook_secret(
    state: Scoped,
    ApiPath(name): ApiPath<WebhookName>,
) -> Result<Response, ApiError> {
    let secret = signature::secret(entropy());
    let kept = state.principal.project.qualified(name.as_str());
    let sealed = seal(&state, &purposes::webhook_secret(&kept), &secret, "")?;
    let sealed = sealed.map_err(|finding| ApiError::Refused {
        kind: ProblemKind::InvalidWebhook,
        findings: vec![finding],
    })?;
    let now = state.clock.now();
    let rotated = state.storage.rotate_webhook_secret(&name, &sealed, now + BOTH_COUNT_FOR, now).await?;
    let webhook = Webhook::from(rotated.ok_or_else(|| ApiError::not_found("webhook", &name))?);
    etag::json(StatusCode::OK, &Webhook { secret: Some(secret.expose().to_owned()), ..webhook })
}
