//! `Idempotency-Key`: the answer to a creating request, recorded in the transaction of the work itself.

use std::time::Duration;

use sqlx::{PgConnection, PgPool, Postgres, Transaction};

use super::{Storage, StorageError};

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

impl Idempotency {
    fn is_same_key(&self, other: &Self) -> bool {
        (self.scope, &self.caller, &self.key) == (other.scope, &other.caller, &other.key)
    }
}

/// What a client was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Recorded {
    /// The HTTP status.
    pub status: u16,
    /// The `Location` header.
    pub location: Option<String>,
    /// The body: JSON, as it is written.
    pub body: String,
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

/// Begins work under the keys of several requests, of which some may have none. `None`: go on and [`record_all`] the answer in the
/// same transaction.
pub(in crate::storage) async fn begin_all(
    connection: &mut PgConnection,
    keys: &[Option<&Idempotency>],
) -> Result<Vec<Option<Keyed>>, StorageError> {
    let mut earlier = vec![None; keys.len()];
    let mut locked: Vec<usize> = Vec::new();
    for (place, key) in keys.iter().enumerate() {
        let Some(key) = key else { continue };
        // Whoever has a lock gets it again: the second of the same key has to be seen here.
        if locked.iter().any(|&other| keys[other].is_some_and(|other| other.is_same_key(key))) {
            earlier[place] = Some(Keyed::InProgress);
        } else {
            locked.push(place);
        }
    }
    if locked.is_empty() {
        return Ok(earlier);
    }
    let wanted = Columns::of(locked.iter().filter_map(|&place| keys[place]));
    // Locks that end with the transaction, whatever ends it. Whoever does not get one knows that the first is still at work, instead
    // of waiting for it.
    let free = sqlx::query_scalar!(
        r#"SELECT pg_try_advisory_xact_lock(hashtextextended(scope || chr(31) || caller || chr(31) || key, 0)) AS "free!"
           FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS wanted (scope, caller, key, place) ORDER BY place"#,
        &wanted.scopes,
        &wanted.callers,
        &wanted.keys,
    )
    .fetch_all(&mut *connection)
    .await?;
    let known = lookup_all(connection, &wanted).await?;
    for (&place, is_free) in locked.iter().zip(free) {
        let Some(key) = keys[place] else { continue };
        earlier[place] = if is_free {
            known.iter().find(|known| known.is_of(key)).map(|known| known.answer(key))
        } else {
            Some(Keyed::InProgress)
        };
    }
    Ok(earlier)
}

/// Keys, as parameters of a statement.
struct Columns {
    scopes: Vec<String>,
    callers: Vec<String>,
    keys: Vec<String>,
}

impl Columns {
    fn of<'a>(keys: impl Iterator<Item = &'a Idempotency>) -> Self {
        let mut columns = Self { scopes: Vec::new(), callers: Vec::new(), keys: Vec::new() };
        for key in keys {
            columns.scopes.push(key.scope.to_owned());
            columns.callers.push(key.caller.clone());
            columns.keys.push(key.key.clone());
        }
        columns
    }
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
    match begin_all(&mut tx, &[idempotency]).await?.into_iter().next().flatten() {
        Some(earlier) => {
            // Explicitly, so that the key's lock is gone when the client asks again.
            tx.rollback().await?;
            Ok(Begun::Answered(earlier))
        }
        None => Ok(Begun::Open(tx)),
    }
}

/// Ends it: what was done and its answer are there together.
pub(in crate::storage) async fn finish(
    mut tx: Transaction<'static, Postgres>,
    idempotency: Option<&Idempotency>,
    recorded: Recorded,
) -> Result<Keyed, StorageError> {
    if let Some(key) = idempotency {
        record_all(&mut tx, &[(key, &recorded)]).await?;
    }
    tx.commit().await?;
    Ok(Keyed::Done(recorded))
}

/// An answer that is remembered.
struct Known {
    scope: String,
    caller: String,
    key: String,
    body_hash: Vec<u8>,
    status: i32,
    location: Option<String>,
    response: String,
}

impl Known {
    fn is_of(&self, key: &Idempotency) -> bool {
        self.scope == key.scope && self.caller == key.caller && self.key == key.key
    }

    /// What a request with this key is answered.
    fn answer(&self, key: &Idempotency) -> Keyed {
        if self.body_hash != key.body_hash {
            return Keyed::OtherBody;
        }
        Keyed::Replayed(Recorded {
            status: u16::try_from(self.status).unwrap_or(201),
            location: self.location.clone(),
            body: self.response.clone(),
        })
    }
}

/// What earlier requests with these keys were answered, in no order.
async fn lookup_all(connection: &mut PgConnection, wanted: &Columns) -> Result<Vec<Known>, StorageError> {
    let known = sqlx::query_as!(
        Known,
        r#"SELECT scope, caller, key, body_hash, status, location, response::text AS "response!"
           FROM idempotency_keys
           WHERE (scope, caller, key) IN (SELECT * FROM unnest($1::text[], $2::text[], $3::text[]))"#,
        &wanted.scopes,
        &wanted.callers,
        &wanted.keys,
    );
    Ok(known.fetch_all(connection).await?)
}

/// Records answers, each of another key.
pub(in crate::storage) async fn record_all(
    connection: &mut PgConnection,
    answers: &[(&Idempotency, &Recorded)],
) -> Result<(), StorageError> {
    let keys = Columns::of(answers.iter().map(|(key, _)| *key));
    // By the database's clock, which also decides when it is forgotten.
    sqlx::query!(
        "INSERT INTO idempotency_keys (scope, caller, key, body_hash, status, location, response, created_at)
         SELECT scope, caller, key, body_hash, status, location, response::json, now()
         FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::integer[], $6::text[], $7::text[])
              AS new (scope, caller, key, body_hash, status, location, response)",
        &keys.scopes,
        &keys.callers,
        &keys.keys,
        &answers.iter().map(|(key, _)| key.body_hash.to_vec()).collect::<Vec<_>>(),
        &answers.iter().map(|(_, answer)| i32::from(answer.status)).collect::<Vec<_>>(),
        &answers.iter().map(|(_, answer)| answer.location.clone()).collect::<Vec<_>>() as _,
        &answers.iter().map(|(_, answer)| answer.body.clone()).collect::<Vec<_>>(),
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
        let known = lookup_all(&mut connection, &Columns::of(std::iter::once(idempotency))).await?;
        Ok(known.first().map(|known| known.answer(idempotency)))
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
