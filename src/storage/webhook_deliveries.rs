//! What webhooks were told, and are to be told: a queue that the trigger on `run_events` fills.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::{ProjectStorage, Storage, StorageError, snapshots::to_u64};
use crate::domain::{
    ids::RunId,
    project::Qualified,
    trace_parent::{NoTraceParent, TraceParent},
    webhook::{
        Answered, DeliveryId, DeliveryStatus, Message, StatusChange, Verdict, WebhookName, schedule::TRIES,
    },
};

/// How long it is known what was delivered.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);

/// How many messages one receiver is sent at once: the others are not to wait for it.
pub const AT_ONCE_EACH: u32 = 4;

/// A delivery that is due, taken by this process.
#[derive(Clone, Debug)]
pub struct DueDelivery {
    /// Its id, which is that of the message.
    pub id: DeliveryId,
    /// Whose.
    pub webhook: Qualified,
    /// Where to.
    pub url: String,
    /// What it is signed with, encrypted: the present secret, and those before while they count.
    pub sealed_secrets: Vec<Vec<u8>>,
    /// Which try it is, 1 for the first.
    pub number: u32,
    /// How many are left after it.
    pub tries_left: u32,
    /// What is sent.
    pub message: Message,
    /// Where in its trace the request was that the run came by.
    pub trace_parent: Option<TraceParent>,
}

/// A delivery as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// Of which run.
    pub run_id: RunId,
    /// The number of its event.
    pub sequence: u64,
    /// Where it is.
    pub status: DeliveryStatus,
    /// When the event was.
    pub created_at: DateTime<Utc>,
    /// When it is tried next.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When it arrived or was given up.
    pub finished_at: Option<DateTime<Utc>>,
    /// What was tried.
    pub attempts: Vec<DeliveryAttempt>,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryAttempt {
    /// 1 for the first.
    pub number: u32,
    /// When.
    pub started_at: DateTime<Utc>,
    /// How long until the answer.
    pub duration_milliseconds: u64,
    /// What was answered.
    pub status_code: Option<u16>,
    /// Why nothing was.
    pub error: Option<String>,
}

impl Storage {
    /// Takes deliveries that are due, `limit` at most and a few of each webhook, of `but` none. Whoever does not record what became of one within
    /// `lease` has it taken from them: it is sent again.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn claim_deliveries(
        &self,
        limit: u32,
        but: &[&Qualified],
        lease: Duration,
    ) -> Result<Vec<DueDelivery>, StorageError> {
        let rows = sqlx::query!(
            r#"WITH due AS (
                   SELECT d.id, row_number() OVER (PARTITION BY d.webhook ORDER BY d.next_attempt_at) AS place
                   FROM webhook_deliveries AS d JOIN webhooks ON webhooks.name = d.webhook
                   WHERE d.status = 'pending' AND d.next_attempt_at <= now() AND webhooks.enabled
                     AND d.webhook <> ALL ($4::text[])
               ), taken AS (
                   SELECT d.id FROM webhook_deliveries AS d JOIN due USING (id)
                   WHERE due.place <= $3 AND d.status = 'pending' AND d.next_attempt_at <= now()
                   ORDER BY d.next_attempt_at LIMIT $1 FOR UPDATE OF d SKIP LOCKED
               ), claimed AS (
                   UPDATE webhook_deliveries AS d
                   SET attempts = attempts + 1, tries_left = greatest(tries_left - 1, 0),
                       next_attempt_at = now() + make_interval(secs => $2)
                   FROM taken WHERE d.id = taken.id
                   RETURNING d.*
               )
               SELECT claimed.id, claimed.webhook, claimed.attempts, claimed.tries_left, claimed.run_id, claimed.sequence,
                      webhooks.url, webhooks.secret,
                      CASE WHEN webhooks.previous_until > now() THEN webhooks.previous_secrets ELSE '{}' END AS "previous_secrets!: Vec<Vec<u8>>",
                      runs.experiment_name, runs.compute_target, runs.trace_parent, e.occurred_at, e.attempt, e.status, e.cause, e.detail
               FROM claimed JOIN webhooks ON webhooks.name = claimed.webhook JOIN runs ON runs.id = claimed.run_id
                    JOIN run_events AS e ON e.run_id = claimed.run_id AND e.sequence = claimed.sequence"#,
            i64::from(limit),
            lease.as_secs_f64(),
            i64::from(AT_ONCE_EACH),
            &but.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>(),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let id = row.id;
                let bad =
                    |table, column, detail: String| StorageError::inconsistent(table, column, id, detail);
                let cause = row.cause.as_deref().map(str::parse).transpose();
                let place = row.trace_parent.as_deref().map(str::parse).transpose();
                Ok(DueDelivery {
                    id,
                    trace_parent: place
                        .map_err(|e: NoTraceParent| bad("runs", "trace_parent", e.to_string()))?,
                    webhook: Qualified::from_stored(row.webhook),
                    url: row.url,
                    sealed_secrets: std::iter::once(row.secret).chain(row.previous_secrets).collect(),
                    number: u32::try_from(row.attempts).unwrap_or(0),
                    tries_left: u32::try_from(row.tries_left).unwrap_or(0),
                    message: Message {
                        kind: Message::STATUS_CHANGED,
                        timestamp: row.occurred_at,
                        data: StatusChange {
                            run_id: RunId::from_uuid(row.run_id),
                            experiment_name: row.experiment_name,
                            compute_target: row.compute_target,
                            sequence: to_u64(row.sequence),
                            status: row.status.parse().map_err(|e: crate::domain::run::UnknownWord| {
                                bad("run_events", "status", e.to_string())
                            })?,
                            attempt: u32::try_from(row.attempt).unwrap_or(0),
                            cause: cause.map_err(|e: crate::domain::run::UnknownWord| {
                                bad("run_events", "cause", e.to_string())
                            })?,
                            detail: row.detail,
                        },
                    },
                })
            })
            .collect()
    }

    /// Records what became of a try, and what follows from it. Of a try that was taken from its process only the log is kept.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_delivery(
        &self,
        due: &DueDelivery,
        attempt: &DeliveryAttempt,
        verdict: Verdict,
        now: DateTime<Utc>,
    ) -> Result<(), StorageError> {
        let mut tx = self.pool.begin().await?;
        // With the webhook its deliveries are gone.
        sqlx::query!(
            "INSERT INTO webhook_attempts (delivery_id, number, started_at, duration_milliseconds, status_code, error)
             SELECT id, $2, $3, $4, $5, $6 FROM webhook_deliveries WHERE id = $1 ON CONFLICT DO NOTHING",
            due.id,
            i32::try_from(attempt.number).unwrap_or(i32::MAX),
            attempt.started_at,
            i64::try_from(attempt.duration_milliseconds).unwrap_or(i64::MAX),
            attempt.status_code.map(i32::from),
            attempt.error,
        )
        .execute(&mut *tx)
        .await?;
        let (status, pause) = match verdict {
            Verdict::Delivered => (DeliveryStatus::Delivered, None),
            Verdict::GivenUp | Verdict::Gone => (DeliveryStatus::Failed, None),
            Verdict::Again { after_seconds } => (DeliveryStatus::Pending, Some(after_seconds as f64)),
        };
        sqlx::query!(
            "UPDATE webhook_deliveries
             SET status = $3, next_attempt_at = now() + make_interval(secs => $4::float8),
                 finished_at = CASE WHEN $4::float8 IS NULL THEN $5::timestamptz END
             WHERE id = $1 AND attempts = $2 AND status = 'pending'",
            due.id,
            i32::try_from(due.number).unwrap_or(i32::MAX),
            status.as_str(),
            pause,
            now,
        )
        .execute(&mut *tx)
        .await?;
        if verdict == Verdict::Gone {
            sqlx::query!(
                "UPDATE webhooks SET enabled = false, disabled_reason = 'the receiver answered 410 (Gone)',
                        updated_at = greatest($2, updated_at + interval '1 microsecond')
                 WHERE name = $1 AND enabled AND url = $3",
                due.webhook.as_str(),
                now,
                due.url,
            )
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Forgets what was delivered or given up longer ago than [`RETENTION`].
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_old_deliveries(&self) -> Result<u64, StorageError> {
        let result = sqlx::query!(
            "DELETE FROM webhook_deliveries WHERE status <> 'pending' AND finished_at < now() - make_interval(secs => $1)",
            RETENTION.as_secs_f64(),
        );
        Ok(result.execute(&self.pool).await?.rows_affected())
    }
}

impl ProjectStorage {
    /// The deliveries of a webhook, newest first, those before `before` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_deliveries(
        &self,
        webhook: &WebhookName,
        status: Option<DeliveryStatus>,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Delivery>, StorageError> {
        let rows = sqlx::query!(
            "SELECT id, run_id, sequence, status, created_at, next_attempt_at, finished_at
             FROM webhook_deliveries
             WHERE webhook = $1 AND ($2::text IS NULL OR status = $2)
               AND ($3::timestamptz IS NULL OR (created_at, id) < ($3, $4::uuid))
             ORDER BY created_at DESC, id DESC LIMIT $5",
            self.project.qualified(webhook.as_str()).into_string(),
            status.map(DeliveryStatus::as_str),
            before.map(|b| b.0),
            before.map(|b| b.1),
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| row.id).collect();
        let mut attempts = self.attempts_of_deliveries(&ids).await?;
        let deliveries = rows.into_iter().map(|row| {
            Ok(Delivery {
                attempts: attempts.remove(&row.id).unwrap_or_default(),
                id: row.id,
                run_id: RunId::from_uuid(row.run_id),
                sequence: to_u64(row.sequence),
                status: status_of(row.id, &row.status)?,
                created_at: row.created_at,
                next_attempt_at: row.next_attempt_at,
                finished_at: row.finished_at,
            })
        });
        deliveries.collect()
    }

    async fn attempts_of_deliveries(
        &self,
        ids: &[Uuid],
    ) -> Result<BTreeMap<Uuid, Vec<DeliveryAttempt>>, StorageError> {
        let rows = sqlx::query!(
            "SELECT delivery_id, number, started_at, duration_milliseconds, status_code, error
             FROM webhook_attempts WHERE delivery_id = ANY($1) ORDER BY delivery_id, number",
            ids,
        )
        .fetch_all(&self.pool)
        .await?;
        let mut attempts: BTreeMap<Uuid, Vec<DeliveryAttempt>> = BTreeMap::new();
        for row in rows {
            attempts.entry(row.delivery_id).or_default().push(DeliveryAttempt {
                number: u32::try_from(row.number).unwrap_or(0),
                started_at: row.started_at,
                duration_milliseconds: to_u64(row.duration_milliseconds),
                status_code: row.status_code.and_then(|code| u16::try_from(code).ok()),
                error: row.error,
            });
        }
        Ok(attempts)
    }

    /// Makes a delivery due again, as often as a new one is tried, and answers it. None when the webhook has no such delivery, or
    /// is disabled.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replay_delivery(
        &self,
        webhook: &WebhookName,
        id: DeliveryId,
    ) -> Result<Option<Delivery>, StorageError> {
        let row = sqlx::query!(
            "UPDATE webhook_deliveries
             SET status = 'pending', tries_left = $3, next_attempt_at = now(), finished_at = NULL
             WHERE webhook = $1 AND id = $2 AND EXISTS (SELECT FROM webhooks WHERE name = $1 AND enabled)
             RETURNING run_id, sequence, status, created_at, next_attempt_at, finished_at",
            self.project.qualified(webhook.as_str()).into_string(),
            id,
            i32::try_from(TRIES).unwrap_or(i32::MAX),
        )
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let mut attempts = self.attempts_of_deliveries(&[id]).await?;
        Ok(Some(Delivery {
            attempts: attempts.remove(&id).unwrap_or_default(),
            id,
            run_id: RunId::from_uuid(row.run_id),
            sequence: to_u64(row.sequence),
            status: status_of(id, &row.status)?,
            created_at: row.created_at,
            next_attempt_at: row.next_attempt_at,
            finished_at: row.finished_at,
        }))
    }
}

fn status_of(id: DeliveryId, word: &str) -> Result<DeliveryStatus, StorageError> {
    word.parse().map_err(|error| StorageError::inconsistent("webhook_deliveries", "status", id, error))
}

impl DeliveryAttempt {
    /// Of what was answered.
    #[must_use]
    pub fn new(number: u32, started_at: DateTime<Utc>, took: Duration, answered: &Answered) -> Self {
        let (status_code, error) = match answered {
            Answered::Status { code, .. } => (Some(*code), None),
            Answered::Not { why } => (None, Some(why.clone())),
        };
        let duration_milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Self { number, started_at, duration_milliseconds, status_code, error }
    }
}
