//! Bearer tokens that the service made: their digests, and what is known of their use.

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::{
    Storage, StorageError,
    idempotency::{self, Begun, Idempotency, Keyed, Recorded},
};
use crate::domain::{
    access::Scope,
    api_token::{TokenDigest, TokenName},
    ids::uuid_v7,
    project::Project,
};

/// How exactly it is known when a token was last used: to the minute, so that not every request is a write.
const USE_RESOLUTION_SECONDS: f64 = 60.0;

/// A token, without what it is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Its id.
    pub id: Uuid,
    /// Its caller's name.
    pub name: TokenName,
    /// Its caller's project.
    pub project: Project,
    /// What its caller may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// Who made it; empty when that was done at the database.
    pub created_by: String,
    /// Until when it is good; for ever when none.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
    /// The address that it was used from then.
    pub last_used_from: Option<String>,
}

impl ApiToken {
    /// One that is made now, and good for so long.
    #[must_use]
    pub fn new(
        (name, project, scope): (TokenName, Project, Scope),
        created_by: String,
        now: DateTime<Utc>,
        good_for: TimeDelta,
        random: [u8; 10],
    ) -> Self {
        Self {
            id: uuid_v7(now, random),
            name,
            project,
            scope,
            created_at: now,
            created_by,
            expires_at: Some(now + good_for),
            revoked_at: None,
            last_used_at: None,
            last_used_from: None,
        }
    }
}

struct Row {
    id: Uuid,
    name: String,
    project: String,
    scope: String,
    created_at: DateTime<Utc>,
    created_by: String,
    expires_at: Option<DateTime<Utc>>,
    revoked_at: Option<DateTime<Utc>>,
    last_used_at: Option<DateTime<Utc>>,
    last_used_from: Option<String>,
}

impl TryFrom<Row> for ApiToken {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad = |column, why: &dyn std::fmt::Display| {
            StorageError::inconsistent("api_tokens", column, row.id, why)
        };
        Ok(Self {
            id: row.id,
            name: row.name.parse().map_err(|e| bad("name", &e))?,
            project: row.project.parse().map_err(|e| bad("project", &e))?,
            scope: row.scope.parse().map_err(|e| bad("scope", &e))?,
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
            last_used_from: row.last_used_from,
        })
    }
}

impl Storage {
    /// Keeps a token, together with the answer to an idempotent request. `answer` renders what the client gets: without the token
    /// itself, which is nowhere kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_api_token(
        &self,
        token: &ApiToken,
        digest: &TokenDigest,
        idempotency: Option<&Idempotency>,
        answer: impl FnOnce() -> Recorded,
    ) -> Result<Keyed, StorageError> {
        let mut tx = match idempotency::open(&self.pool, idempotency).await? {
            Begun::Answered(earlier) => return Ok(earlier),
            Begun::Open(tx) => tx,
        };
        sqlx::query!(
            "INSERT INTO api_tokens (id, digest, name, project, scope, created_at, created_by, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            token.id,
            &digest[..],
            token.name.as_str(),
            token.project.as_str(),
            token.scope.as_str(),
            token.created_at,
            token.created_by,
            token.expires_at,
        )
        .execute(&mut *tx)
        .await?;
        idempotency::finish(tx, idempotency, answer()).await
    }

    /// The token that is good now and has this digest; the database's clock decides.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn good_api_token(&self, digest: &TokenDigest) -> Result<Option<ApiToken>, StorageError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, project, scope, created_at, created_by, expires_at, revoked_at, last_used_at, last_used_from
             FROM api_tokens WHERE digest = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
            &digest[..],
        );
        row.fetch_optional(&self.pool).await?.map(TryInto::try_into).transpose()
    }

    /// Whether there is a token that is good now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn has_good_api_token(&self) -> Result<bool, StorageError> {
        let found = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM api_tokens
                              WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())) AS "there!""#
        );
        Ok(found.fetch_one(&self.pool).await?)
    }

    /// A token by its id.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_api_token(&self, id: Uuid) -> Result<Option<ApiToken>, StorageError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT id, name, project, scope, created_at, created_by, expires_at, revoked_at, last_used_at, last_used_from
             FROM api_tokens WHERE id = $1",
            id,
        );
        row.fetch_optional(&self.pool).await?.map(TryInto::try_into).transpose()
    }

    /// Tokens, newest first, revoked ones included, those before `before` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_api_tokens(
        &self,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> Result<Vec<ApiToken>, StorageError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT id, name, project, scope, created_at, created_by, expires_at, revoked_at, last_used_at, last_used_from
             FROM api_tokens WHERE $1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid)
             ORDER BY created_at DESC, id DESC LIMIT $3",
            before.map(|b| b.0),
            before.map(|b| b.1),
            i64::from(limit),
        );
        rows.fetch_all(&self.pool).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Revokes a token, for good. Revoking twice changes nothing. None when there is no such token.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn revoke_api_token(&self, id: Uuid) -> Result<Option<ApiToken>, StorageError> {
        let row = sqlx::query_as!(
            Row,
            "UPDATE api_tokens SET revoked_at = coalesce(revoked_at, now()) WHERE id = $1
             RETURNING id, name, project, scope, created_at, created_by, expires_at, revoked_at, last_used_at, last_used_from",
            id,
        );
        row.fetch_optional(&self.pool).await?.map(TryInto::try_into).transpose()
    }

    /// Notes that a token was used, once a minute at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn note_api_token_use(&self, id: Uuid, address: Option<&str>) -> Result<(), StorageError> {
        sqlx::query!(
            "UPDATE api_tokens SET last_used_at = now(), last_used_from = $2
             WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < now() - make_interval(secs => $3))",
            id,
            address,
            USE_RESOLUTION_SECONDS,
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}
