//! Webhooks: who wants to be told of runs.

use chrono::{DateTime, Utc};

use super::{ProjectStorage, StorageError};
use crate::domain::{project::Qualified, run::Status, webhook::WebhookName};

/// What a caller decides of a webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Its name.
    pub name: WebhookName,
    /// Who is told.
    pub url: String,
    /// Of which statuses; of all when there are none.
    pub statuses: Vec<Status>,
    /// Of the runs of which experiment; of all when none.
    pub experiment_name: Option<String>,
    /// Whether anybody is told now.
    pub enabled: bool,
}

/// A webhook with what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWebhook {
    /// What its caller decided.
    pub webhook: Webhook,
    /// Why the service itself ended it.
    pub disabled_reason: Option<String>,
    /// Until when its messages are signed with the secret before the present one as well.
    pub previous_until: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

struct Row {
    name: String,
    url: String,
    statuses: Vec<String>,
    experiment_name: Option<String>,
    enabled: bool,
    disabled_reason: Option<String>,
    previous_until: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for StoredWebhook {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad = |column, detail: String| StorageError::inconsistent("webhooks", column, &row.name, detail);
        let statuses = row.statuses.iter().map(|word| word.parse::<Status>());
        let statuses: Result<_, _> = statuses.collect();
        Ok(Self {
            webhook: Webhook {
                name: Qualified::from_stored(row.name.clone())
                    .name()
                    .parse()
                    .map_err(|_| bad("name", "no valid name".to_owned()))?,
                url: row.url.clone(),
                statuses: statuses.map_err(|e| bad("statuses", e.to_string()))?,
                experiment_name: row.experiment_name.clone(),
                enabled: row.enabled,
            },
            disabled_reason: row.disabled_reason.clone(),
            previous_until: row.previous_until,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn words(statuses: &[Status]) -> Vec<String> {
    statuses.iter().map(|status| status.as_str().to_owned()).collect()
}

impl ProjectStorage {
    /// Makes a webhook, or replaces what its caller decides of it: then the secret stays. Answers it, and whether it is new.
    /// With `last_changed`, only one that was last changed then is replaced; none when it is another.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_webhook(
        &self,
        webhook: &Webhook,
        sealed_secret: &[u8],
        last_changed: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<Option<(StoredWebhook, bool)>, StorageError> {
        let statuses = words(&webhook.statuses);
        let kept = self.project.qualified(webhook.name.as_str());
        let name = kept.as_str();
        if last_changed.is_none() {
            let made = sqlx::query_as!(
                Row,
                "INSERT INTO webhooks (name, url, statuses, experiment_name, enabled, secret, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7) ON CONFLICT (name) DO NOTHING
                 RETURNING name, url, statuses, experiment_name, enabled, disabled_reason, previous_until, created_at,
                           updated_at",
                name,
                webhook.url,
                &statuses,
                webhook.experiment_name,
                webhook.enabled,
                sealed_secret,
                now,
            )
            .fetch_optional(&self.pool)
            .await?;
            if let Some(row) = made {
                return Ok(Some((row.try_into()?, true)));
            }
        }
        let replaced = sqlx::query_as!(
            Row,
            "UPDATE webhooks SET url = $2, statuses = $3, experiment_name = $4, enabled = $5, disabled_reason = NULL,
                    updated_at = greatest($6, updated_at + interval '1 microsecond')
             WHERE name = $1 AND ($7::timestamptz IS NULL OR updated_at = $7)
             RETURNING name, url, statuses, experiment_name, enabled, disabled_reason, previous_until, created_at,
                       updated_at",
            name,
            webhook.url,
            &statuses,
            webhook.experiment_name,
            webhook.enabled,
            now,
            last_changed,
        )
        .fetch_optional(&self.pool)
        .await?;
        replaced.map(|row| Ok((row.try_into()?, false))).transpose()
    }

    /// A webhook by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_webhook(&self, name: &WebhookName) -> Result<Option<StoredWebhook>, StorageError> {
        let row = sqlx::query_as!(
            Row,
            "SELECT name, url, statuses, experiment_name, enabled, disabled_reason, previous_until, created_at, updated_at
             FROM webhooks WHERE name = $1",
            self.project.qualified(name.as_str()).into_string(),
        );
        row.fetch_optional(&self.pool).await?.map(TryInto::try_into).transpose()
    }

    /// Webhooks by name, those behind `after` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_webhooks(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredWebhook>, StorageError> {
        let rows = sqlx::query_as!(
            Row,
            "SELECT name, url, statuses, experiment_name, enabled, disabled_reason, previous_until, created_at, updated_at
             FROM webhooks WHERE project = $3 AND ($1::text IS NULL OR name > $1) ORDER BY name LIMIT $2",
            after.map(|name| self.project.qualified(name).into_string()),
            i64::from(limit),
            self.project.as_str(),
        );
        rows.fetch_all(&self.pool).await?.into_iter().map(TryInto::try_into).collect()
    }

    /// Gives a webhook another secret; those before count until `previous_until`, too. None when there is no such webhook.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn rotate_webhook_secret(
        &self,
        name: &WebhookName,
        sealed_secret: &[u8],
        previous_until: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<StoredWebhook>, StorageError> {
        let row = sqlx::query_as!(
            Row,
            "UPDATE webhooks SET secret = $2, previous_until = $3,
                    -- Whoever has lost an answer rotates again, and receivers know the one before that.
                    previous_secrets = (CASE WHEN previous_until > now() THEN previous_secrets ELSE '{}' END) || secret,
                    updated_at = greatest($4, updated_at + interval '1 microsecond')
             WHERE name = $1
             RETURNING name, url, statuses, experiment_name, enabled, disabled_reason, previous_until, created_at,
                       updated_at",
            self.project.qualified(name.as_str()).into_string(),
            sealed_secret,
            previous_until,
            now,
        );
        row.fetch_optional(&self.pool).await?.map(TryInto::try_into).transpose()
    }

    /// Deletes a webhook with everything that was to be delivered. With `last_changed`, only one that was last changed then.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_webhook(
        &self,
        name: &WebhookName,
        last_changed: Option<DateTime<Utc>>,
    ) -> Result<bool, StorageError> {
        let result = sqlx::query!(
            "DELETE FROM webhooks WHERE name = $1 AND ($2::timestamptz IS NULL OR updated_at = $2)",
            self.project.qualified(name.as_str()).into_string(),
            last_changed,
        );
        Ok(result.execute(&self.pool).await?.rows_affected() == 1)
    }
}
