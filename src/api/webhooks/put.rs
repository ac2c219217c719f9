//! `PUT /v1/webhooks/{name}`

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};

use super::{Webhook, WebhookBody, body};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiJson, ApiPath},
        problem::{Problem, ProblemKind},
        scoped::Scoped,
        secrets::seal,
    },
    clock::entropy,
    domain::webhook::{WebhookName, signature},
    vault::purposes,
};

/// Make or replace a webhook
///
/// From then on its receiver is sent a message for every change of the status of a run that it asks for: at least once, signed
/// as the Standard Webhooks specification says (`webhook-id`, `webhook-timestamp`, `webhook-signature`), tried ten times over three days
/// until it is answered with a status from 200 to 299. The `secret` to check signatures with is in the answer with status 201, and
/// nowhere else; replacing keeps it. Receivers must be on the operator's list (`--webhook-allow`).
#[utoipa::path(
    put, path = "/v1/webhooks/{name}", tag = "webhooks",
    params(
        ("name" = WebhookName, Path, description = "The webhook's name", example = "ci"),
        ("If-Match" = Option<String>, Header, description = "Only change the webhook when it has this ETag"),
    ),
    request_body(content = WebhookBody, description = "The webhook"),
    responses(
        (status = 200, description = "Replaced", body = Webhook, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 201, description = "Made, with its secret", body = Webhook, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 400, description = "The name or the body cannot be read", body = Problem),
        (status = 412, description = "The webhook does not have the ETag of If-Match", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body is refused; `findings` has everything that is wrong", body = Problem),
    ),
)]
pub async fn put_webhook(
    state: Scoped,
    ApiPath(name): ApiPath<WebhookName>,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    let refused = |findings| ApiError::Refused { kind: ProblemKind::InvalidWebhook, findings };
    let webhook = body::read(&name, &body.members, &state.webhook_receivers).map_err(refused)?;
    let secret = signature::secret(entropy());
    let kept = state.principal.project.qualified(name.as_str());
    let sealed = seal(&state, &purposes::webhook_secret(&kept), &secret, "")?;
    let sealed = sealed.map_err(|finding| refused(vec![finding]))?;
    let mut last_changed = None;
    if headers.contains_key(header::IF_MATCH) {
        let current = state.storage.get_webhook(&name).await?.map(Webhook::from);
        etag::require_match(&headers, current.as_ref())?;
        last_changed = Some(current.ok_or(ApiError::PreconditionFailed)?.updated_at);
    }
    let now = state.clock.now();
    let put = state.storage.put_webhook(&webhook, &sealed, last_changed, now).await?;
    let Some((stored, is_new)) = put else {
        return Err(match last_changed {
            Some(_) => ApiError::PreconditionFailed,
            None => ApiError::Conflict(format!("the webhook `{name}` was deleted meanwhile; put it again")),
        });
    };
    let webhook = Webhook::from(stored);
    let tag = etag::of(&webhook)?;
    // The entity tag is that of what is shown from now on: without the secret.
    let secret = is_new.then(|| secret.expose().to_owned());
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = etag::json(status, &Webhook { secret, ..webhook })?;
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if is_new && let Ok(location) = HeaderValue::from_str(&format!("/v1/webhooks/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
