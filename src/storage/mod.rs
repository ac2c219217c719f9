//! The only place with SQL. One file per table; rows become domain values here or fail with the place of the fault.

pub mod admission;
pub mod api_tokens;
pub mod audit;
pub mod cancel;
pub mod compute_targets;
pub mod datastores;
pub mod environments;
pub mod error;
pub mod estimators;
pub mod events;
pub mod experiments;
pub mod idempotency;
pub mod leases;
pub mod metrics;
pub mod moves;
pub mod new_runs;
pub mod notifications;
pub mod retention;
pub mod run_files;
pub mod run_metrics;
pub mod run_patch;
pub mod run_views;
pub mod runs;
pub mod schema;
pub mod sealed;
pub mod server;
pub mod shown_runs;
pub mod snapshots;
pub mod transitions;
pub mod waiting;
pub mod webhook_deliveries;
pub mod webhooks;

use std::time::Duration;

use sqlx::{
    Connection as _, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};

use crate::domain::project::Project;

pub use error::{Inconsistency, StorageError};
pub use schema::{MIGRATOR, SchemaError};

/// How many connections a replica holds at most.
pub const MAX_CONNECTIONS: u32 = 16;

/// How long a request waits for a connection before it is told that the database is not available.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that was in use so shortly before is taken as it is; of any other it is asked first whether it is still there, since the
/// server may have been started anew. A server that ends within this time ends what it is asked next with an error, as it does with
/// what it is answering.
const IN_USE: Duration = Duration::from_millis(5);

/// The database.
#[derive(Clone, Debug)]
pub struct Storage {
    pub(in crate::storage) pool: PgPool,
}

/// What of the database one project sees and changes: nothing of any other.
#[derive(Clone, Debug)]
pub struct ProjectStorage {
    pub(in crate::storage) pool: PgPool,
    pub(in crate::storage) project: Project,
}

impl Storage {
    /// The part of it that is a project's.
    #[must_use]
    pub fn of(&self, project: &Project) -> ProjectStorage {
        ProjectStorage { pool: self.pool.clone(), project: project.clone() }
    }
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
            .test_before_acquire(false)
            .before_acquire(|connection, of| {
                Box::pin(async move {
                    if of.idle_for > IN_USE {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_with(options)
            .await?;
        Ok(Self { pool })
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
