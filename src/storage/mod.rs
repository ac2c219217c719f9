//! The only place with SQL. One file per table; rows become domain values here or fail with the place of the fault.

pub mod compute_targets;
pub mod error;
pub mod estimators;
pub mod events;
pub mod idempotency;
pub mod leases;
pub mod metrics;
pub mod notifications;
mod ordered_json;
pub mod run_files;
pub mod run_views;
pub mod runs;
pub mod snapshots;
pub mod transitions;

use std::time::Duration;

use sqlx::{
    PgPool,
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
