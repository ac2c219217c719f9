//! All that is kept encrypted, wherever it lies: for whoever changes the key, or looks whether it opens.

use std::fmt;

use uuid::Uuid;

use super::{Storage, StorageError};
use crate::domain::ids::EstimatorId;

/// What kinds of it there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealedKind {
    /// The passwords that the images of estimators are pulled with.
    RegistryPasswords,
    /// The credentials of datastores.
    DatastoreCredentials,
    /// What the messages of webhooks are signed with, and were before.
    WebhookSecrets,
}

impl SealedKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::RegistryPasswords, Self::DatastoreCredentials, Self::WebhookSecrets];
}

/// Whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SealedOwner {
    /// An estimator's.
    Estimator(EstimatorId),
    /// That of the datastore that is kept under this name.
    Datastore(String),
    /// That of the webhook that is kept under this name.
    Webhook(String),
}

impl fmt::Display for SealedOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Estimator(id) => write!(f, "the registry password of estimator {id}"),
            Self::Datastore(name) => write!(f, "the credentials of datastore {name}"),
            Self::Webhook(name) => write!(f, "the secrets of webhook {name}"),
        }
    }
}

/// What one row keeps encrypted.
#[derive(Clone, Debug)]
pub struct SealedRow {
    /// Whose it is.
    pub owner: SealedOwner,
    /// The encrypted texts: one, of a webhook several.
    pub texts: Vec<Vec<u8>>,
}

impl Storage {
    /// Rows with something encrypted, by their keys, those behind `after` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sealed_rows(
        &self,
        kind: SealedKind,
        after: Option<&SealedOwner>,
        limit: u32,
    ) -> Result<Vec<SealedRow>, StorageError> {
        let limit = i64::from(limit);
        match kind {
            SealedKind::RegistryPasswords => {
                let after = match after {
                    Some(SealedOwner::Estimator(id)) => id.as_uuid(),
                    _ => Uuid::nil(),
                };
                let rows = sqlx::query!(
                    r#"SELECT id, registry_password AS "text!" FROM estimators
                       WHERE registry_password IS NOT NULL AND id > $1 ORDER BY id LIMIT $2"#,
                    after,
                    limit,
                );
                let rows = rows.fetch_all(&self.pool).await?.into_iter();
                let owner = |id| SealedOwner::Estimator(EstimatorId::from_uuid(id));
                Ok(rows.map(|row| SealedRow { owner: owner(row.id), texts: vec![row.text] }).collect())
            }
            SealedKind::DatastoreCredentials => {
                let after = match after {
                    Some(SealedOwner::Datastore(name)) => name.as_str(),
                    _ => "",
                };
                let rows = sqlx::query!(
                    r#"SELECT name, credentials AS "text!" FROM datastores
                       WHERE credentials IS NOT NULL AND name > $1 ORDER BY name LIMIT $2"#,
                    after,
                    limit,
                );
                let rows = rows.fetch_all(&self.pool).await?.into_iter();
                let owner = SealedOwner::Datastore;
                Ok(rows.map(|row| SealedRow { owner: owner(row.name), texts: vec![row.text] }).collect())
            }
            SealedKind::WebhookSecrets => {
                let after = match after {
                    Some(SealedOwner::Webhook(name)) => name.as_str(),
                    _ => "",
                };
                let rows = sqlx::query!(
                    r#"SELECT name, secret || previous_secrets AS "texts!" FROM webhooks
                       WHERE name > $1 ORDER BY name LIMIT $2"#,
                    after,
                    limit,
                );
                let rows = rows.fetch_all(&self.pool).await?.into_iter();
                let owner = SealedOwner::Webhook;
                Ok(rows.map(|row| SealedRow { owner: owner(row.name), texts: row.texts }).collect())
            }
        }
    }

    /// Puts others in the place of a row's encrypted texts, as many of them, if they are still what was read. Answers whether they
    /// were: one statement, so that nothing of somebody else's is written over. When a row was last changed is not touched, as what
    /// it says is the same.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_sealed(&self, read: &SealedRow, texts: &[Vec<u8>]) -> Result<bool, StorageError> {
        let [text, previous @ ..] = texts else { return Ok(false) };
        let [old_text, old_previous @ ..] = &*read.texts else { return Ok(false) };
        let result =
            match &read.owner {
                SealedOwner::Estimator(id) => sqlx::query!(
                    "UPDATE estimators SET registry_password = $2 WHERE id = $1 AND registry_password = $3",
                    id.as_uuid(),
                    text,
                    old_text,
                )
                .execute(&self.pool)
                .await?,
                SealedOwner::Datastore(name) => {
                    sqlx::query!(
                        "UPDATE datastores SET credentials = $2 WHERE name = $1 AND credentials = $3",
                        name,
                        text,
                        old_text,
                    )
                    .execute(&self.pool)
                    .await?
                }
                SealedOwner::Webhook(name) => {
                    sqlx::query!(
                        "UPDATE webhooks SET secret = $2, previous_secrets = $3
                     WHERE name = $1 AND secret = $4 AND previous_secrets = $5",
                        name,
                        text,
                        previous,
                        old_text,
                        old_previous,
                    )
                    .execute(&self.pool)
                    .await?
                }
            };
        Ok(result.rows_affected() == 1)
    }
}
