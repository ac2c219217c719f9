//! Built environments.

use chrono::{DateTime, Utc};

use super::{Storage, StorageError};
use crate::domain::built_environment::{BuiltEnvironment, EnvironmentKey};

/// A built environment on all nodes that keep it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEnvironment {
    /// What it is known by.
    pub key: EnvironmentKey,
    /// How it was built.
    pub kind: String,
    /// Its interpreter's version.
    pub python_version: String,
    /// Installed distributions as `name==version`, sorted.
    pub packages: Vec<String>,
    /// The worker nodes that keep it, sorted.
    pub nodes: Vec<String>,
    /// What it takes of the disks of all of them.
    pub bytes: u64,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
    /// When a run last used it.
    pub last_used_at: DateTime<Utc>,
    /// How many runs found it there.
    pub hits: u64,
    /// How many runs had it built.
    pub misses: u64,
}

struct Row {
    key: String,
    kind: String,
    python_version: String,
    packages: Vec<String>,
    nodes: Vec<String>,
    bytes: i64,
    created_at: DateTime<Utc>,
    last_used_at: DateTime<Utc>,
    hits: i64,
    misses: i64,
}

impl TryFrom<Row> for StoredEnvironment {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let count = |column, value: i64| {
            u64::try_from(value)
                .map_err(|why| StorageError::inconsistent("environments", column, &row.key, why.to_string()))
        };
        let (bytes, hits, misses) =
            (count("bytes", row.bytes)?, count("hits", row.hits)?, count("misses", row.misses)?);
        let key = row
            .key
            .parse()
            .map_err(|_| StorageError::inconsistent("environments", "key", &row.key, "no key".to_owned()))?;
        Ok(Self {
            key,
            kind: row.kind,
            python_version: row.python_version,
            packages: row.packages,
            nodes: row.nodes,
            bytes,
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            hits,
            misses,
        })
    }
}

impl Storage {
    /// Environments by key, those behind `after` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_environments(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredEnvironment>, StorageError> {
        self.environments(None, after, limit).await
    }

    /// An environment by its key.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_environment(
        &self,
        key: &EnvironmentKey,
    ) -> Result<Option<StoredEnvironment>, StorageError> {
        Ok(self.environments(Some(key.as_str()), None, 1).await?.pop())
    }

    async fn environments(
        &self,
        key: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<StoredEnvironment>, StorageError> {
        // The content is the same on every node: that is what the key says.
        sqlx::query_as!(
            Row,
            r#"SELECT key, min(kind) AS "kind!", min(python_version) AS "python_version!", min(packages) AS "packages!",
                      array_agg(node ORDER BY node) AS "nodes!", sum(bytes)::bigint AS "bytes!",
                      min(created_at) AS "created_at!", max(last_used_at) AS "last_used_at!",
                      sum(hits)::bigint AS "hits!", sum(misses)::bigint AS "misses!"
               FROM environments
               WHERE ($1::text IS NULL OR key = $1) AND ($2::text IS NULL OR key > $2)
               GROUP BY key ORDER BY key LIMIT $3"#,
            key,
            after,
            i64::from(limit),
        )
        .fetch_all(&self.pool)
        .await?
        .into_iter()
        .map(TryInto::try_into)
        .collect()
    }

    /// The keys that are recorded for a node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn environment_keys_of(&self, node: &str) -> Result<Vec<String>, StorageError> {
        Ok(sqlx::query_scalar!("SELECT key FROM environments WHERE node = $1", node)
            .fetch_all(&self.pool)
            .await?)
    }

    /// Records what was found on a node: `gone` is forgotten, `kept` is there.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_environments(
        &self,
        node: &str,
        gone: &[String],
        kept: &[BuiltEnvironment],
        now: DateTime<Utc>,
    ) -> Result<(), StorageError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query!("DELETE FROM environments WHERE node = $1 AND key = ANY($2)", node, gone)
            .execute(&mut *transaction)
            .await?;
        for environment in kept {
            sqlx::query!(
                "INSERT INTO environments (key, node, kind, python_version, packages, bytes, created_at, last_used_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $7)
                 ON CONFLICT (key, node) DO UPDATE SET bytes = excluded.bytes WHERE environments.bytes <> excluded.bytes",
                environment.key.as_str(),
                node,
                environment.kind,
                environment.python_version,
                &environment.packages,
                i64::try_from(environment.bytes).unwrap_or(i64::MAX),
                now,
            )
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Counts that a run uses an environment: as a hit when it was there already. Answers whether the environment is recorded
    /// for the node.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_environment_use(
        &self,
        key: &EnvironmentKey,
        node: &str,
        hit: bool,
        now: DateTime<Utc>,
    ) -> Result<bool, StorageError> {
        let result = sqlx::query!(
            "UPDATE environments SET last_used_at = greatest(last_used_at, $4), hits = hits + $3::boolean::int,
                                     misses = misses + (NOT $3::boolean)::int
             WHERE key = $1 AND node = $2",
            key.as_str(),
            node,
            hit,
            now,
        )
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected() == 1)
    }
}
