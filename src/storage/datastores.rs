//! Datastores.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use sqlx::types::Json;

use super::{ProjectStorage, Storage, StorageError, error::json_text};
use crate::domain::{
    datastore::{Datastore, DatastoreName, DatastoreUrl},
    datastore_access::DatastoreOptions,
    project::{Project, Qualified},
};

/// A datastore with what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDatastore {
    /// The datastore.
    pub datastore: Datastore,
    /// How it is asked.
    pub options: DatastoreOptions,
    /// Whether credentials are kept for it.
    pub has_credentials: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
}

/// A datastore with all that is needed to reach it.
#[derive(Clone, Debug)]
pub struct DatastoreAccess {
    /// The datastore.
    pub datastore: Datastore,
    /// How it is asked.
    pub options: DatastoreOptions,
    /// Its credentials, encrypted.
    pub sealed_credentials: Option<Vec<u8>>,
}

struct Row {
    name: String,
    url: String,
    options: Json<DatastoreOptions>,
    has_credentials: bool,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl TryFrom<Row> for StoredDatastore {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        Ok(Self {
            datastore: datastore(&row.name, &row.url)?,
            options: row.options.0,
            has_credentials: row.has_credentials,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

fn datastore(stored_name: &str, url: &str) -> Result<Datastore, StorageError> {
    let bad = |column, detail: String| StorageError::inconsistent("datastores", column, stored_name, detail);
    let qualified = Qualified::from_stored(stored_name.to_owned());
    Ok(Datastore {
        name: qualified
            .name()
            .parse::<DatastoreName>()
            .map_err(|_| bad("name", "no valid name".to_owned()))?,
        url: DatastoreUrl::parse(url).map_err(|why| bad("url", why.to_string()))?,
    })
}

impl ProjectStorage {
    /// Makes or replaces a datastore. Answers it, and whether it is access.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_datastore(
        &self,
        access: &DatastoreAccess,
        now: DateTime<Utc>,
    ) -> Result<(StoredDatastore, bool), StorageError> {
        // xmax is 0 on a row that this very statement inserted.
        let row = sqlx::query!(
            r#"INSERT INTO datastores (name, url, options, credentials, created_at, updated_at)
               VALUES ($1, $2, $3::text::json, $4, $5, $5)
               ON CONFLICT (name) DO UPDATE SET url = excluded.url, options = excluded.options,
                   credentials = excluded.credentials, updated_at = excluded.updated_at
               RETURNING (xmax = 0) AS "created!", created_at, updated_at"#,
            self.project.qualified(access.datastore.name.as_str()).into_string(),
            access.datastore.url.as_str(),
            json_text(&access.options)?,
            access.sealed_credentials.as_deref(),
            now,
        )
        .fetch_one(&self.pool)
        .await?;
        let stored = StoredDatastore {
            datastore: access.datastore.clone(),
            options: access.options.clone(),
            has_credentials: access.sealed_credentials.is_some(),
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
        access: &DatastoreAccess,
        last_changed: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<StoredDatastore>, StorageError> {
        sqlx::query_as!(
            Row,
            r#"UPDATE datastores SET url = $3, options = $4::text::json, credentials = $5, updated_at = $6
               WHERE name = $1 AND updated_at = $2
               RETURNING name, url, options AS "options: Json<DatastoreOptions>",
                   credentials IS NOT NULL AS "has_credentials!", created_at, updated_at"#,
            self.project.qualified(access.datastore.name.as_str()).into_string(),
            last_changed,
            access.datastore.url.as_str(),
            json_text(&access.options)?,
            access.sealed_credentials.as_deref(),
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
        sqlx::query_as!(
            Row,
            r#"SELECT name, url, options AS "options: Json<DatastoreOptions>",
                   credentials IS NOT NULL AS "has_credentials!", created_at, updated_at
               FROM datastores WHERE name = $1"#,
            self.project.qualified(name).into_string()
        )
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
            r#"SELECT name, url, options AS "options: Json<DatastoreOptions>",
                   credentials IS NOT NULL AS "has_credentials!", created_at, updated_at
               FROM datastores WHERE project = $3 AND ($1::text IS NULL OR name > $1) ORDER BY name LIMIT $2"#,
            after.map(|name| self.project.qualified(name).into_string()),
            i64::from(limit),
            self.project.as_str(),
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    /// The names of all datastores of the project.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn datastore_names(&self) -> Result<BTreeSet<String>, StorageError> {
        let kept =
            sqlx::query_scalar!("SELECT name FROM datastores WHERE project = $1", self.project.as_str());
        let kept = kept.fetch_all(&self.pool).await?.into_iter().map(Qualified::from_stored);
        Ok(kept.map(|name| name.name().to_owned()).collect())
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
            self.project.qualified(name).into_string(),
            last_changed,
        )
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected() == 1)
    }
}

impl Storage {
    /// What is needed to reach some datastores of a project: those of these names that are there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn datastore_access(
        &self,
        project: &Project,
        names: &[String],
    ) -> Result<Vec<DatastoreAccess>, StorageError> {
        let kept: Vec<String> = names.iter().map(|name| project.qualified(name).into_string()).collect();
        let rows = sqlx::query!(
            r#"SELECT name, url, options AS "options: Json<DatastoreOptions>", credentials
               FROM datastores WHERE name = ANY($1)"#,
            &kept,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(DatastoreAccess {
                    datastore: datastore(&row.name, &row.url)?,
                    options: row.options.0,
                    sealed_credentials: row.credentials,
                })
            })
            .collect()
    }
}
