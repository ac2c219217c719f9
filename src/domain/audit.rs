//! The audit trail: who did what, when, from where, and what came of it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A request that was to change something, or was not let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditEvent {
    /// Its id, a UUIDv7.
    pub id: Uuid,
    /// When it was answered.
    pub occurred_at: DateTime<Utc>,
    /// The caller's name within its project; empty when it is not known, or when everybody is let in.
    #[schema(example = "ci")]
    pub caller: String,
    /// The caller's project; empty when it is not known.
    #[schema(example = "default")]
    pub project: String,
    /// By what the caller was known: `token`, `file`, `oidc`, `run`, `none` where everybody is let in, `unknown`, or `database` for what
    /// `estimatord token` did at the database.
    #[schema(example = "token")]
    pub credential: String,
    /// The id of the token, where the service made it.
    pub token_id: Option<Uuid>,
    /// The address that the request came from: that of a proxy where there is one that is not trusted.
    #[schema(example = "192.0.2.7")]
    pub address: Option<String>,
    /// What was asked for: the operation of the API.
    #[schema(example = "cancel_run")]
    pub operation: String,
    /// The method.
    #[schema(example = "POST")]
    pub method: String,
    /// The path, without the query.
    #[schema(example = "/v1/runs/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10/cancel")]
    pub path: String,
    /// The status of the answer.
    #[schema(minimum = 100, maximum = 599, example = 202)]
    pub status: u16,
    /// The id of the request, as in its answer and in the log.
    pub request_id: String,
}
