//! The only place with SQL. One file per table; rows become domain values here or fail with the place of the fault.

pub mod compute_targets;
pub mod datastores;
pub mod environments;
pub mod error;
pub mod estimators;
pub mod events;
pub mod idempotency;
pub mod leases;
pub mod metrics;
pub mod notifications;
pub mod run_files;
pub mod run_metrics;
pub mod run_views;
pub mod runs;
pub mod snapshots;
pub mod transitions;

use std::time::Duration;

use sqlx::{
    Connection as _, PgPool,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgPoolOptions},
};

pub use error::{Inconsistency, StorageError};

/// The migrations, embedded in the binary.
pub static MIGRATOR: Migrator = sqlx::migrate!();

/// How many connections a replica holds at most.
const MAX_CONNECTIONS: u32 = 16;

/// How long a request waits for a connection before it is told that the database is not available.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// There is none.
    #[error("the database has no schema yet: run `estimatord migrate` first")]
    Missing,
    /// It is another version's.
    #[error(
        "the database's schema is another version's (applied {applied:?}, known here {known:?}): run `estimatord \
         migrate` with the newest version, or start that version"
    )]
    Other {
        /// Migrations that the database has.
        applied: Vec<i64>,
        /// Migrations that this program has.
        known: Vec<i64>,
    },
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// The database.
#[derive(Clone, Debug)]
pub struct Storage {
    pub(in crate::storage) pool: PgPool,
}

impl Storage {
    /// Uses a pool that is there already (tests).
    #[must_use]
    pub const fn from_pool(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Connects.
    ///
    /// # Errors
    /// When the server cannot be reached.
    pub async fn connect(options: PgConnectOptions) -> Result<Self, StorageError> {
        let options = options.application_name("estimatord");
        // The pool would try for as long as it may and then speak of a time-out; one attempt says what is wrong.
        let probe = sqlx::PgConnection::connect_with(&options);
        let probe =
            tokio::time::timeout(ACQUIRE_TIMEOUT, probe).await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        probe.close().await?;
        let pool = PgPoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// When a migration fails, or the database has been migrated by a newer version.
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        MIGRATOR.run(&self.pool).await
    }

    /// Whether the schema is the one that this version knows, without changing it.
    ///
    /// # Errors
    /// When it is not, or the database fails.
    pub async fn check_schema(&self) -> Result<(), SchemaError> {
        let table = sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "there!""#)
            .fetch_one(&self.pool)
            .await
            .map_err(StorageError::from)?;
        if !table {
            return Err(SchemaError::Missing);
        }
        // The table is sqlx's own and not there when the queries are checked.
        let applied: Vec<i64> =
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
                .fetch_all(&self.pool)
                .await
                .map_err(StorageError::from)?;
        let known: Vec<i64> = MIGRATOR.iter().map(|migration| migration.version).collect();
        if applied == known { Ok(()) } else { Err(SchemaError::Other { applied, known }) }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StorageError> {
        sqlx::query_scalar!("SELECT 1 AS \"one!\"").fetch_one(&self.pool).await?;
        Ok(())
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
