//! What an installation consists of: its data directory, its database and its key, for the service and for whoever looks after it.

pub mod secret_key;

use std::{path::PathBuf, str::FromStr as _, time::Duration};

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use tracing::{error, warn};

use crate::{
    config::Database,
    embedded_postgres::{self, DataDir, EmbeddedPostgres},
    storage::Storage,
};

/// How long giving back the database connections may take.
const POOL_CLOSE: Duration = Duration::from_secs(1);

/// Where the database is, and the server if it is the service's own.
pub struct OpenDatabase {
    /// The database.
    pub storage: Storage,
    /// The server, where this process runs it.
    pub embedded: Option<EmbeddedPostgres>,
    /// Held by this process for as long, where nobody else has it.
    data_dir: Option<DataDir>,
}

impl OpenDatabase {
    /// Without a data directory only `DATABASE_URL` can be opened.
    ///
    /// # Errors
    /// When it cannot be reached, or the machine lacks what the embedded one needs; the message says what to do.
    pub async fn open(settings: &Database, data_dir: Option<&DataDir>) -> anyhow::Result<Self> {
        if let Some(url) = &settings.database_url {
            let options = PgConnectOptions::from_str(url.expose()).map_err(|_| {
                anyhow::anyhow!("DATABASE_URL is no PostgreSQL URL (postgres://user@host/database)")
            })?;
            let server = format!("{}:{}", options.get_host(), options.get_port());
            let storage = Storage::connect(options)
                .await
                .with_context(|| format!("cannot connect to DATABASE_URL ({server})"))?;
            return Ok(Self { storage, embedded: None, data_dir: None });
        }
        let data_dir = data_dir.context("the embedded database needs a data directory")?;
        let settings = embedded_postgres::Settings {
            bin_dir: settings.pg_bin_dir.clone(),
            trampoline: own_executable()?,
        };
        let embedded = EmbeddedPostgres::start(data_dir, &settings).await?;
        let storage = Storage::connect(embedded.connect_options())
            .await
            .context("cannot connect to the embedded database")?;
        Ok(Self { storage, embedded: Some(embedded), data_dir: None })
    }

    /// That of an installation whose service may be running: then by the server that it runs, else by one of this process's.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when the service runs and its server cannot be reached.
    pub async fn beside_the_service(settings: &Database) -> anyhow::Result<Self> {
        if settings.database_url.is_some() {
            return Self::open(settings, None).await;
        }
        match lock_data_dir(settings) {
            // The lock goes with the value, and the server must have ended by then: it is kept as long as the server.
            Ok(data_dir) => {
                let opened = Self::open(settings, Some(&data_dir)).await?;
                Ok(Self { data_dir: Some(data_dir), ..opened })
            }
            Err(error) => {
                let Some(embedded_postgres::Error::DataDirInUse { path, .. }) = error.downcast_ref() else {
                    return Err(error);
                };
                let options = embedded_postgres::connect_options_of_running(path)?.context(
                    "a service is using the data directory, and its database does not answer yet: try again",
                )?;
                let storage = Storage::connect(options)
                    .await
                    .context("cannot connect to the embedded database of the service that runs")?;
                Ok(Self { storage, embedded: None, data_dir: None })
            }
        }
    }

    /// Gives back the connections, and ends the server where it is this process's.
    pub async fn close(self) {
        // Connections that are in use when the database has died come back only when their users give up.
        if tokio::time::timeout(POOL_CLOSE, self.storage.close()).await.is_err() {
            warn!("some database connections were still in use");
        }
        if let Some(embedded) = self.embedded
            && let Err(error) = embedded.stop().await
        {
            error!("the embedded database did not stop cleanly: {error}");
        }
        drop(self.data_dir);
    }
}

/// This program, for the helpers that it starts.
///
/// # Errors
/// When the system does not say where it is.
pub fn own_executable() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find the path of this program")
}

/// The data directory of these settings, absolute; it may not be there.
///
/// # Errors
/// When nobody says where it is.
pub fn data_dir_path(settings: &Database) -> anyhow::Result<PathBuf> {
    match &settings.data_dir {
        Some(path) => std::path::absolute(path).context("cannot make the data directory's path absolute"),
        None => Ok(DataDir::default_path()?),
    }
}

/// Takes the data directory, which is made when it is missing.
///
/// # Errors
/// When another service has it, or it cannot be used.
pub fn lock_data_dir(settings: &Database) -> anyhow::Result<DataDir> {
    Ok(DataDir::lock(&data_dir_path(settings)?)?)
}
