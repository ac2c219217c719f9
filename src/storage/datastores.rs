//! Datastores.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{Storage, StorageError};
use crate::domain::datastore::{Datastore, DatastoreName, DatastoreUrl};

/// A datastore with what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDatastore {
    /// The datastore.
    pub datastore: Datastore,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

struct Row {
    name: String,
    url: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for StoredDatastore {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad =
            |column, detail: String| StorageError::inconsistent("datastores", column, &row.name, detail);
        let name: DatastoreName = row.name.parse().map_err(|_| bad("name", "no valid name".to_owned()))?;
        let url = DatastoreUrl::parse(&row.url).map_err(|why| bad("url", why.to_string()))?;
        Ok(Self {
            datastore: Datastore { name, url },
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

impl Storage {
    /// Makes or replaces a datastore. Answers it, and whether it is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_datastore(
        &self,
        datastore: &Datastore,
        now: DateTime<Utc>,
    ) -> Result<(StoredDatastore, bool), StorageError> {
        // xmax is 0 on a row that this very statement inserted.
        let row = sqlx::query!(
            r#"INSERT INTO datastores (name, url, created_at, updated_at) VALUES ($1, $2, $3, $3)
               ON CONFLICT (name) DO UPDATE SET url = excluded.url, updated_at = excluded.updated_at
               RETURNING (xmax = 0) AS "created!", created_at, updated_at"#,
            datastore.name.as_str(),
            datastore.url.as_str(),
            now,
        )
        .fetch_one(&self.pool)
        .await?;
        let stored = StoredDatastore {
            datastore: datastore.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        };
        Ok((stored, row.created))
    }

    /// Replaces a datastore that was last changed at `last_changed`; none when it has been changed or deleted since. The
    /// check and the change are one statement.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_datastore(
        &self,
        datastore: &Datastore,
        last_changed: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<StoredDatastore>, StorageError> {
        sqlx::query_as!(
            Row,
            "UPDATE datastores SET url = $3, updated_at = $4 WHERE name = $1 AND updated_at = $2
             RETURNING name, url, created_at, updated_at",
            datastore.name.as_str(),
            last_changed,
            datastore.url.as_str(),
            now,
        )
        .fetch_optional(&self.pool)
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    /// A datastore by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_datastore(&self, name: &str) -> Result<Option<StoredDatastore>, StorageError> {
        sqlx::query_as!(Row, "SELECT name, url, created_at, updated_at FROM datastores WHERE name = $1", name)
            .fetch_optional(&self.pool)
            .await?
            .map(TryInto::try_into)
            .transpose()
    }

    /// Datastores by name, those behind `after` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_datastores(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredDatastore>, StorageError> {
        sqlx::query_as!(
            Row,
            "SELECT name, url, created_at, updated_at FROM datastores
             WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2",
            after,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    /// The names of all datastores.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn datastore_names(&self) -> Result<BTreeSet<String>, StorageError> {
        let names = sqlx::query_scalar!("SELECT name FROM datastores").fetch_all(&self.pool).await?;
        Ok(names.into_iter().collect())
    }

    /// Deletes a datastore; what lies in it is not touched. With `last_changed` only when it was last changed then. Answers
    /// whether it was there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_datastore(
        &self,
        name: &str,
        last_changed: Option<DateTime<Utc>>,
    ) -> Result<bool, StorageError> {
        let result = sqlx::query!(
            "DELETE FROM datastores WHERE name = $1 AND ($2::timestamptz IS NULL OR updated_at = $2)",
            name,
            last_changed,
        )
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected() == 1)
    }
}
