//! The schema: brought up to date by whoever may, and looked at by everybody before it is used.

use std::collections::BTreeSet;

use sqlx::migrate::{MigrateError, Migrator};

use super::{Storage, StorageError};
use crate::domain::schema::{Objects, SchemaState};

/// The migrations, embedded in the binary.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// It is another version's.
    #[error("{0}")]
    Unfit(SchemaState),
    /// A migration failed; those before it are kept.
    #[error("a migration failed: {0}")]
    Migration(#[from] MigrateError),
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Storage {
    /// Brings the schema up to date.
    ///
    /// # Errors
    /// When a migration fails, or the database has been migrated by a newer version.
    pub async fn migrate(&self) -> Result<(), SchemaError> {
        match self.schema_state().await? {
            state @ (SchemaState::Newer { .. } | SchemaState::Apart { .. }) => Err(SchemaError::Unfit(state)),
            SchemaState::Current | SchemaState::Missing | SchemaState::Older { .. } => {
                Ok(MIGRATOR.run(&self.pool).await?)
            }
        }
    }

    /// Whether the schema is the one that this version knows, without changing it.
    ///
    /// # Errors
    /// When it is not, or the database fails.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        match self.schema_state().await? {
            SchemaState::Current => Ok(()),
            state => Err(SchemaError::Unfit(state)),
        }
    }

    /// What the database's schema is to this version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schema_state(&self) -> Result<SchemaState, StorageError> {
        let table = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "there!""#)
            .fetch_one(&self.pool)
            .await?;
        let known: BTreeSet<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        if !table {
            return Ok(SchemaState::of(None, &known));
        }
        // The table is sqlx's own and not there when the queries are checked.
        let applied: Vec<i64> = sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
            .fetch_all(&self.pool)
            .await?;
        Ok(SchemaState::of(Some(&applied.into_iter().collect()), &known))
    }

    /// What of the tables and triggers that the migrations made is not as they made it, each in words.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn wrong_schema_objects(&self) -> Result<Vec<String>, StorageError> {
        let made = Objects::made_by(MIGRATOR.iter().map(|migration| migration.sql.as_str()));
        Ok(made.lacking_in(&self.schema_objects().await?))
    }

    /// The tables that are there, and the triggers.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn schema_objects(&self) -> Result<Objects, StorageError> {
        let tables = sqlx::query_scalar!(
            r#"SELECT relname::text AS "name!" FROM pg_class
             WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p')"#
        )
        .fetch_all(&self.pool)
        .await?;
        let triggers = sqlx::query!(
            r#"SELECT relname::text AS "table!", tgname::text AS "name!", tgenabled::text AS "state!"
             FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
             WHERE relnamespace = current_schema()::regnamespace AND NOT tgisinternal"#
        )
        .fetch_all(&self.pool)
        .await?;
        let state = |text: &str| text.chars().next().unwrap_or_default();
        Ok(Objects {
            tables: tables.into_iter().collect(),
            triggers: triggers.into_iter().map(|one| ((one.table, one.name), state(&one.state))).collect(),
        })
    }
}
