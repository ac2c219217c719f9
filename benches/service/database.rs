//! A PostgreSQL of the benchmark's own, with the defaults that make it durable.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::{context::Context, process::Process};

/// Who the server belongs to, and the database that is there from the start.
const NAME: &str = "estimatord";

/// A server with as many databases as are made in it. Ends when it is dropped.
#[derive(Debug)]
pub struct Database {
    _server: Process,
    estimatord: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    binaries: PathBuf,
    version: String,
}

impl Database {
    /// Starts one in the directory of a measurement.
    ///
    /// # Errors
    /// When it does not start, or would not keep what it acknowledges.
    pub fn start(context: &Context) -> anyhow::Result<Self> {
        let data_dir = context.directory.join("database");
        let log = data_dir.join("postgres.log");
        let mut command = Command::new(&context.estimatord);
        command.args(["serve-postgres-only", "--data-dir"]).arg(&data_dir);
        command.env_remove("DATABASE_URL").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Process::start(&mut command)?;
        let output = server.child().stdout.take().context("its output is a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let Some(socket) = line.strip_prefix("ready ") else {
            bail!("the database does not start: see {}", log.display());
        };
        let socket = PathBuf::from(socket.trim());
        let estimatord = context.estimatord.clone();
        let mut database = Self {
            _server: server,
            estimatord,
            socket,
            log,
            binaries: PathBuf::new(),
            version: String::new(),
        };
        let facts = "SELECT current_setting('fsync'), current_setting('synchronous_commit'), current_setting('server_version'),
                            (SELECT setting FROM pg_config WHERE name = 'BINDIR')";
        let (fsync, commit, version, binaries): (String, String, String, String) =
            database.ask(NAME, async |connection| sqlx::query_as(facts).fetch_one(connection).await)?;
        ensure!((fsync.as_str(), commit.as_str()) == ("on", "on"), "the database is not durable");
        database.version = version;
        database.binaries = binaries.into();
        Ok(database)
    }

    /// The version of the server.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The directory of its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A program that comes with the server.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    /// Who may do everything.
    #[must_use]
    pub const fn user(&self) -> &'static str {
        NAME
    }

    /// What the server has said so far.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn log(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Where a database is.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        format!("postgres://{NAME}@localhost/{name}?host={}", self.socket.display())
    }

    /// Makes a database with the service's tables.
    ///
    /// # Errors
    /// When that fails.
    pub fn create(&self, name: &str) -> anyhow::Result<()> {
        self.execute(NAME, &format!("CREATE DATABASE {name}"))?;
        let migrated = Command::new(&self.estimatord)
            .arg("migrate")
            .env("DATABASE_URL", self.url(name))
            .stdin(Stdio::null())
            .output()?;
        ensure!(migrated.status.success(), "migrate: {}", String::from_utf8_lossy(&migrated.stderr));
        Ok(())
    }

    /// Runs statements, separated by semicolons.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn execute(&self, name: &str, statements: &str) -> anyhow::Result<()> {
        self.ask(name, async |connection| {
            sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(drop)
        })
    }

    /// Works with a connection of its own.
    ///
    /// # Errors
    /// When the work fails, or there is no connection.
    pub fn ask<T>(
        &self,
        name: &str,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> anyhow::Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url(name)).await?;
            let done = work(&mut connection).await?;
            connection.close().await?;
            Ok(done)
        })
    }

    /// Writes everything to its place: what is measured next pays for none of what was before.
    ///
    /// # Errors
    /// When that fails.
    pub fn checkpoint(&self) -> anyhow::Result<()> {
        self.execute(NAME, "CHECKPOINT")
    }
}
