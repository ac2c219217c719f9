//! A PostgreSQL of the service's own, from the binaries on the machine.
//!
//! Without `DATABASE_URL` the service looks after a server itself: it finds the binaries, makes a cluster in
//! its data directory, starts `postgres` on a Unix socket that only its own account can reach, and stops it
//! again. What is below the data directory:
//!
//! | name           | what it is                                                                   |
//! |----------------|------------------------------------------------------------------------------|
//! | `service.lock` | held by the running service, with its pid inside ([`DataDir`])                |
//! | `pg`           | the cluster, mode 0700, of the account the server runs under                  |
//! | `pg.init`      | a cluster in the making; renamed to `pg` once it is complete and on disk      |
//! | `pg.lock`      | locked as long as any process of the server lives (it is their standard input) |
//! | `pg.sock`      | the socket's directory, mode 0700, when its path is short enough              |
//! | `postgres.log` | what the server says                                                         |
//!
//! `kill -9` may hit the service, the server or both, at any moment. So nothing here trusts what an earlier
//! run left behind: every start first ends what is still running, and only then clears its leftovers.

mod account;
mod binaries;
mod child;
mod cluster;
mod data_dir;
mod error;
mod log_file;
mod orphans;
mod serve_only;
mod server;
mod socket;
mod supervise;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use account::Account;
use cluster::Layout;
use server::Server;
use socket::SocketDir;

pub use child::{PostgresChild, postgres_child};
pub use data_dir::{DataDir, Holder};
pub use error::Error;
pub use serve_only::{ServePostgresOnly, serve_postgres_only};

/// The superuser of the cluster, and the database in it.
const NAME: &str = "estimatord";
/// Only part of the socket's file name: nothing listens on the network.
const PORT: u16 = 5432;

/// What the embedded server needs to know beyond its data directory.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The one directory to take `postgres` and `initdb` from (`PG_BIN_DIR`); searched for when absent.
    pub bin_dir: Option<PathBuf>,
    /// Our own executable (`std::env::current_exe()`), which starts every program by its `postgres-child`.
    pub trampoline: PathBuf,
}

/// A running PostgreSQL that belongs to this process. Dropping it without [`stop`](Self::stop) asks the
/// server to end but does not wait.
#[derive(Debug)]
pub struct EmbeddedPostgres {
    server: Server,
    socket: SocketDir,
}

impl EmbeddedPostgres {
    /// Brings the server up: ends what an earlier run left, makes the cluster if there is none, starts it,
    /// waits until it accepts connections and makes sure the database exists.
    ///
    /// May be cancelled by dropping the future: the server is then told to end.
    ///
    /// # Errors
    /// When the machine lacks something; the message says what to do about it.
    pub async fn start(data_dir: &DataDir, settings: &Settings) -> Result<Self, Error> {
        let layout = Layout::new(data_dir.path())?;
        let account = Account::choose(&layout)?;
        account.check_reach(&settings.trampoline, &layout)?;
        let pinned = layout.cluster_major()?;
        let binaries = binaries::find(settings, &account, pinned.as_deref(), &layout.cluster)?;
        let lock = orphans::end_all(&layout).await?;
        layout.clear_stale_files()?;
        let context = supervise::Context { trampoline: &settings.trampoline, account: &account, lock: &lock };
        if pinned.is_none() {
            cluster::create(&layout, &binaries, &context).await?;
        }
        let socket = SocketDir::prepare(&layout, &account)?;
        let server = Server::start(&layout, &binaries, &socket, &context).await?;
        // From here on only the server's processes hold the lock.
        drop(lock);
        cluster::ensure_database(&connect_options(&socket)).await?;
        tracing::info!(
            version = binaries.major,
            data = %layout.cluster.display(),
            account = account.name,
            "embedded PostgreSQL is up"
        );
        Ok(Self { server, socket })
    }

    /// How to connect: by the Unix socket, to the service's own database.
    #[must_use]
    pub fn connect_options(&self) -> PgConnectOptions {
        connect_options(&self.socket)
    }

    /// The directory of the socket.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.socket.path()
    }

    /// Resolves when the server has ended without having been asked to.
    pub async fn exited(&mut self) -> ExitStatus {
        self.server.exited().await
    }

    /// Ends the server: a fast shutdown first, harder means when it takes too long.
    ///
    /// # Errors
    /// When the process could not even be killed.
    pub async fn stop(self) -> Result<(), Error> {
        self.server.stop().await?;
        self.socket.discard();
        Ok(())
    }
}

/// What an embedded server is, or would be, on a machine.
#[derive(Clone, Debug)]
pub struct Prospect {
    /// The major version of the binaries that fit.
    pub major: u32,
    /// The account that it runs under.
    pub account: String,
    /// Whether there is a cluster already.
    pub has_cluster: bool,
}

/// Looks whether a server could be run on a data directory, which need not be there. Nothing is made, and nothing started.
///
/// # Errors
/// When the machine lacks something; the message says what to do about it.
pub fn prospect(data_dir: &Path, settings: &Settings) -> Result<Prospect, Error> {
    let layout = Layout::new(data_dir)?;
    let account = Account::choose(&layout)?;
    if data_dir.is_dir() {
        account.check_reach(&settings.trampoline, &layout)?;
    }
    let pinned = layout.cluster_major()?;
    let binaries = binaries::find(settings, &account, pinned.as_deref(), &layout.cluster)?;
    Ok(Prospect { major: binaries.major, account: account.name, has_cluster: pinned.is_some() })
}

/// How to connect to the server that another process runs on a data directory, for looking after it meanwhile; none when there is
/// no socket.
///
/// # Errors
/// When the data directory is not one, or belongs to somebody else.
pub fn connect_options_of_running(data_dir: &Path) -> Result<Option<PgConnectOptions>, Error> {
    let root = fs::canonicalize(data_dir).map_err(Error::io("find", data_dir))?;
    let layout = Layout::new(&root)?;
    let account = Account::choose(&layout)?;
    Ok(SocketDir::of_running(&layout, &account).map(|socket| connect_options(&socket)))
}

/// Sets what sqlx would otherwise take from `PG…` variables, which are meant for some other server.
fn connect_options(socket: &SocketDir) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket.path())
        .port(PORT)
        .username(NAME)
        .database(NAME)
        .ssl_mode(PgSslMode::Disable)
        .application_name(NAME)
}
