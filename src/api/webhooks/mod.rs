//! Webhooks: who is told of changes of runs.

mod body;
pub mod delete;
pub mod deliveries;
pub mod get;
pub mod list;
pub mod put;
pub mod replay;
pub mod rotate_secret;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{run::Status, webhook::WebhookName},
    storage::webhooks as stored,
};

pub use body::WebhookBody;
pub use deliveries::{Delivery, DeliveryAttempt};

/// A webhook.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Webhook {
    /// Its name.
    #[schema(example = "ci")]
    pub name: WebhookName,
    /// Who is told.
    #[schema(example = "https://hooks.example.com/estimatord")]
    pub url: String,
    /// Of which statuses; of all when there are none.
    pub statuses: Vec<Status>,
    /// Of the runs of which experiment; of all when null.
    pub experiment_name: Option<String>,
    /// Whether anybody is told now.
    pub enabled: bool,
    /// Why the service itself ended it: its receiver wants to be told nothing any more.
    pub disabled_reason: Option<String>,
    /// What messages are signed with (Standard Webhooks, `whsec_…`). Shown once, when it is made; never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")]
    pub secret: Option<String>,
    /// Until when messages are signed with the secret before the present one, too.
    pub previous_secret_until: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

impl From<stored::StoredWebhook> for Webhook {
    fn from(stored: stored::StoredWebhook) -> Self {
        Self {
            name: stored.webhook.name,
            url: stored.webhook.url,
            statuses: stored.webhook.statuses,
            experiment_name: stored.webhook.experiment_name,
            enabled: stored.webhook.enabled,
            disabled_reason: stored.disabled_reason,
            secret: None,
            previous_secret_until: stored.previous_until,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}
