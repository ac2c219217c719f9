//! `Idempotency-Key`: the answer to a creating request, recorded in the transaction of the work itself.

use chrono::{DateTime, Duration, Utc};
use serde_json::Value;
use sqlx::{PgConnection, types::Json};

use super::{Storage, StorageError, ordered_json::OrderedJson};

/// How long an answer is remembered: a day is what callers may rely on.
pub const RETENTION: Duration = Duration::hours(24);

/// The key of a request, and what it asked.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The operation that the key belongs to, e.g. `create_run`.
    pub scope: &'static str,
    /// The client's key.
    pub key: String,
    /// SHA-256 of the request body.
    pub body_hash: [u8; 32],
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body.
    pub body: Value,
}

/// What became of a request that may carry a key.
#[derive(Clone, Debug, PartialEq)]
pub enum Keyed {
    /// The work was done now.
    Done(Recorded),
    /// It was done before, by a request with this key and body.
    Replayed(Recorded),
    /// The key was used for another body.
    OtherBody,
    /// A request with this key is being worked on.
    InProgress,
}

/// Begins work under a key. `None`: go on and [`record`] the answer in the same transaction.
pub(in crate::storage) async fn begin(
    connection: &mut PgConnection,
    idempotency: &Idempotency,
) -> Result<Option<Keyed>, StorageError> {
    // A lock that ends with the transaction, whatever ends it. Whoever does not get it knows that the first is still
    // at work, instead of waiting for it.
    let free = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended($1 || chr(31) || $2, 0)) AS "free!""#,
        idempotency.scope,
        idempotency.key,
    )
    .fetch_one(&mut *connection)
    .await?;
    if !free {
        return Ok(Some(Keyed::InProgress));
    }
    lookup(connection, idempotency).await
}

/// What an earlier request with this key was answered.
async fn lookup(
    connection: &mut PgConnection,
    idempotency: &Idempotency,
) -> Result<Option<Keyed>, StorageError> {
    let earlier = sqlx::query!(
        r#"SELECT body_hash, status, location, response AS "response: Json<Value>"
           FROM idempotency_keys WHERE scope = $1 AND key = $2"#,
        idempotency.scope,
        idempotency.key,
    )
    .fetch_optional(connection)
    .await?;
    Ok(earlier.map(|row| {
        if row.body_hash != idempotency.body_hash {
            return Keyed::OtherBody;
        }
        Keyed::Replayed(Recorded {
            status: u16::try_from(row.status).unwrap_or(201),
            location: row.location,
            body: row.response.0,
        })
    }))
}

/// Records the answer.
pub(in crate::storage) async fn record(
    connection: &mut PgConnection,
    idempotency: &Idempotency,
    answer: &Recorded,
    now: DateTime<Utc>,
) -> Result<(), StorageError> {
    sqlx::query!(
        "INSERT INTO idempotency_keys (scope, key, body_hash, status, location, response, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        idempotency.scope,
        idempotency.key,
        &idempotency.body_hash[..],
        i32::from(answer.status),
        answer.location,
        OrderedJson(&answer.body) as _,
        now,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Storage {
    /// The answer to an earlier request with this key, if there is one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn earlier_answer(&self, idempotency: &Idempotency) -> Result<Option<Keyed>, StorageError> {
        // Without the lock: a transaction that is dropped gives it back later, and would look like work in progress.
        let mut connection = self.pool.acquire().await?;
        lookup(&mut connection, idempotency).await
    }

    /// Forgets answers older than [`RETENTION`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old_answers(&self, now: DateTime<Utc>) -> Result<u64, StorageError> {
        let result = sqlx::query!("DELETE FROM idempotency_keys WHERE created_at < $1", now - RETENTION)
            .execute(&self.pool)
            .await?;
        Ok(result.rows_affected())
    }
}
