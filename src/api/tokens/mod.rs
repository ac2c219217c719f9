//! Bearer tokens that the service makes for its callers.

mod body;
pub mod create;
pub mod get;
pub mod list;
pub mod revoke;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

pub use body::TokenBody;

use crate::{
    domain::{access::Scope, api_token::TokenName},
    storage::api_tokens::ApiToken,
};

/// A bearer token. The token itself is in the answer that made it and in no other: nobody can be shown it again.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// The name of its caller, which runs and the audit trail have.
    pub name: TokenName,
    /// The project of its caller: where everything is that it sees and makes.
    #[schema(example = "default")]
    pub project: String,
    /// What its caller may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it; empty when it was made at the database or by the one caller of a service without authentication.
    pub created_by: String,
    /// Until when it is good.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The address that it was used from then.
    pub last_used_from: Option<String>,
    /// The token itself, when it has just been made.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub token: Option<String>,
}

impl From<ApiToken> for Token {
    fn from(stored: ApiToken) -> Self {
        Self {
            id: stored.id,
            name: stored.name,
            project: stored.project.as_str().to_owned(),
            scope: stored.scope,
            created_at: stored.created_at,
            created_by: stored.created_by,
            expires_at: stored.expires_at,
            revoked_at: stored.revoked_at,
            last_used_at: stored.last_used_at,
            last_used_from: stored.last_used_from,
            token: None,
        }
    }
}
