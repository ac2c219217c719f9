//! `Idempotency-Key`: the answer to a creating request, recorded in the transaction of the work itself.

use std::time::Duration;

use serde_json::Value;
use sqlx::{PgConnection, PgPool, Postgres, Transaction, types::Json};

use super::{Storage, StorageError, error::json_text};

/// How long an answer is remembered: a day is what callers may rely on.
pub const RETENTION: Duration = Duration::from_secs(24 * 3600);

/// The key of a request, and what it asked.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// The operation that the key belongs to, e.g. `create_run`.
    pub scope: &'static str,
    /// Whose key it is: callers do not know of each other's.
    pub caller: String,
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
async fn begin(
    connection: &mut PgConnection,
    idempotency: &Idempotency,
) -> Result<Option<Keyed>, StorageError> {
    // A lock that ends with the transaction, whatever ends it. Whoever does not get it knows that the first is still
    // at work, instead of waiting for it.
    let free = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended($1 || chr(31) || $2 || chr(31) || $3, 0)) AS "free!""#,
        idempotency.scope,
        idempotency.caller,
        idempotency.key,
    )
    .fetch_one(&mut *connection)
    .await?;
    if !free {
        return Ok(Some(Keyed::InProgress));
    }
    lookup(connection, idempotency).await
}

/// Work under a key that was begun.
pub(in crate::storage) enum Begun {
    /// It was done before, or is being done: this is the answer.
    Answered(Keyed),
    /// It is to be done in this transaction, and to be ended by [`finish`].
    Open(Transaction<'static, Postgres>),
}

/// Begins the transaction of work that may have a key.
pub(in crate::storage) async fn open(
    pool: &PgPool,
    idempotency: Option<&Idempotency>,
) -> Result<Begun, StorageError> {
    let mut tx = pool.begin().await?;
    if let Some(key) = idempotency
        && let Some(earlier) = begin(&mut tx, key).await?
    {
        // Explicitly, so that the key's lock is gone when the client asks again.
        tx.rollback().await?;
        return Ok(Begun::Answered(earlier));
    }
    Ok(Begun::Open(tx))
}

/// Ends it: what was done and its answer are there together.
pub(in crate::storage) async fn finish(
    mut tx: Transaction<'static, Postgres>,
    idempotency: Option<&Idempotency>,
    recorded: Recorded,
) -> Result<Keyed, StorageError> {
    if let Some(key) = idempotency {
        record(&mut tx, key, &recorded).await?;
    }
    tx.commit().await?;
    Ok(Keyed::Done(recorded))
}

/// What an earlier request with this key was answered.
async fn lookup(
    connection: &mut PgConnection,
    idempotency: &Idempotency,
) -> Result<Option<Keyed>, StorageError> {
    let earlier = sqlx::query!(
        r#"SELECT body_hash, status, location, response AS "response: Json<Value>"
           FROM idempotency_keys WHERE scope = $1 AND caller = $2 AND key = $3"#,
        idempotency.scope,
        idempotency.caller,
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
async fn record(
    connection: &mut PgConnection,
    idempotency: &Idempotency,
    answer: &Recorded,
) -> Result<(), StorageError> {
    // By the database's clock, which also decides when it is forgotten.
    sqlx::query!(
        "INSERT INTO idempotency_keys (scope, caller, key, body_hash, status, location, response, created_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7::text::json, now())",
        idempotency.scope,
        idempotency.caller,
        idempotency.key,
        &idempotency.body_hash[..],
        i32::from(answer.status),
        answer.location,
        json_text(&answer.body)?,
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
    pub async fn forget_old_answers(&self) -> Result<u64, StorageError> {
        let seconds = RETENTION.as_secs_f64();
        let result = sqlx::query!(
            "DELETE FROM idempotency_keys WHERE created_at < now() - make_interval(secs => $1)",
            seconds
        )
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected())
    }
}
