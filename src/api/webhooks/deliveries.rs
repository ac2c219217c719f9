//! `GET /v1/webhooks/{name}/deliveries`

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiPath, ApiQuery},
        paging::{Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
    },
    domain::{
        ids::RunId,
        webhook::{DeliveryStatus, WebhookName},
    },
    storage::webhook_deliveries as stored,
};

/// A message for a receiver, and how far it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Delivery {
    /// Its id, which the receiver gets as `webhook-id`: the same however often it is sent.
    pub id: Uuid,
    /// Of which run.
    pub run_id: RunId,
    /// The number of the run's event that it tells of.
    #[schema(minimum = 1, example = 1)]
    pub sequence: u64,
    /// Where it is.
    #[schema(example = "delivered")]
    pub status: DeliveryStatus,
    /// When the event was.
    pub created_at: DateTime<Utc>,
    /// When it is tried next; null when it is not.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it arrived or was given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// What was tried, first one first.
    pub attempts: Vec<DeliveryAttempt>,
}

/// One try.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeliveryAttempt {
    /// 1 for the first.
    #[schema(minimum = 1, example = 1)]
    pub number: u32,
    /// When.
    pub started_at: DateTime<Utc>,
    /// How long until the answer.
    #[schema(minimum = 0, example = 12)]
    pub duration_milliseconds: u64,
    /// The HTTP status that was answered; null when nothing was.
    #[schema(minimum = 100, maximum = 999, example = 204)]
    pub status_code: Option<u16>,
    /// Why nothing was.
    pub error: Option<String>,
}

impl From<stored::Delivery> for Delivery {
    fn from(stored: stored::Delivery) -> Self {
        let attempts = stored.attempts.into_iter().map(|attempt| DeliveryAttempt {
            number: attempt.number,
            started_at: attempt.started_at,
            duration_milliseconds: attempt.duration_milliseconds,
            status_code: attempt.status_code,
            error: attempt.error,
        });
        Self {
            id: stored.id,
            run_id: stored.run_id,
            sequence: stored.sequence,
            status: stored.status,
            created_at: stored.created_at,
            next_attempt_at: stored.next_attempt_at,
            finished_at: stored.finished_at,
            attempts: attempts.collect(),
        }
    }
}

/// List the deliveries of a webhook
///
/// Newest first, each with every try and what was answered. What arrived or was given up is forgotten after 30 days.
#[utoipa::path(
    get, path = "/v1/webhooks/{name}/deliveries", tag = "webhooks",
    params(
        ("name" = WebhookName, Path, description = "The webhook's name", example = "ci"),
        ("status" = Option<DeliveryStatus>, Query, description = "Only those that are there"),
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before, with the same filters"),
    ),
    responses(
        (status = 200, description = "A page of deliveries", body = Page<Delivery>),
        (status = 400, description = "A parameter is unknown or malformed", body = Problem),
        (status = 404, description = "There is no such webhook", body = Problem),
    ),
)]
pub async fn list_webhook_deliveries(
    state: Scoped,
    ApiPath(name): ApiPath<WebhookName>,
    mut query: ApiQuery,
) -> Result<Response, ApiError> {
    let status = query.take_parsed::<DeliveryStatus>("status", "one of `pending`, `delivered`, `failed`")?;
    let list = format!("webhook_deliveries {name} {status:?}");
    let request = PageRequest::<(DateTime<Utc>, Uuid)>::take(&mut query, &list)?;
    query.finish(&["status", "limit", "cursor"])?;
    if state.storage.get_webhook(&name).await?.is_none() {
        return Err(ApiError::not_found("webhook", &name));
    }
    let found = state.storage.list_deliveries(&name, status, request.after, request.rows()).await?;
    let items = found.into_iter().map(Delivery::from).collect();
    etag::json(StatusCode::OK, &request.page(items, |delivery: &Delivery| (delivery.created_at, delivery.id)))
}
