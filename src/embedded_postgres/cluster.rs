//! The cluster on disk: where it is, which version wrote it, and how it comes into being.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use super::binaries::Binaries;
use super::log_file::LogFile;
use super::supervise::{Context, Running};
use super::{Error, NAME};

/// PostgreSQL cuts paths at 1024 bytes, and appends to the cluster's.
const LONGEST_PATH: usize = 900;

/// The files of the embedded server.
#[derive(Debug)]
pub(super) struct Layout {
    /// The data directory.
    pub(super) root: PathBuf,
    /// The cluster. Symbolic links are followed, as the kernel shows a process's directory without them.
    pub(super) cluster: PathBuf,
    /// A cluster in the making.
    pub(super) unfinished: PathBuf,
    /// Locked while any process of the server lives.
    pub(super) lock: PathBuf,
    /// The server's log.
    pub(super) log: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Result<Self, Error> {
        let named = root.join("pg");
        let cluster = fs::canonicalize(&named).unwrap_or(named);
        let length = cluster.as_os_str().as_bytes().len();
        if length > LONGEST_PATH {
            return Err(Error::PathTooLong { length, limit: LONGEST_PATH });
        }
        Ok(Self {
            root: root.to_owned(),
            cluster,
            unfinished: root.join("pg.init"),
            lock: root.join("pg.lock"),
            log: root.join("postgres.log"),
        })
    }

    /// Whether there is a cluster.
    pub(super) fn has_cluster(&self) -> bool {
        self.cluster.join("PG_VERSION").exists()
    }

    /// The major version that wrote the cluster; none without cluster.
    pub(super) fn cluster_major(&self) -> Result<Option<String>, Error> {
        let file = self.cluster.join("PG_VERSION");
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let empty = fs::read_dir(&self.cluster).map_or(true, |mut entries| entries.next().is_none());
                if empty { Ok(None) } else { Err(Error::NotACluster { cluster: self.cluster.clone() }) }
            }
            Err(error) => Err(Error::io("read", file)(error)),
        }
    }

    /// The server's own pid file.
    pub(super) fn pid_file(&self) -> PathBuf {
        self.cluster.join("postmaster.pid")
    }

    /// Removes what a server leaves when it is killed. Only right after every process of it has ended:
    /// PostgreSQL cannot know that and would refuse to start when the pid in there is in use again, even by a
    /// zombie.
    pub(super) fn clear_stale_files(&self) -> Result<(), Error> {
        let stale = self.pid_file();
        remove(&stale, fs::remove_file(&stale))?;
        // An interrupted initdb; a finished one has been renamed.
        remove(&self.unfinished, fs::remove_dir_all(&self.unfinished))
    }
}

/// The outcome of a removal, where "not there" is as good as "removed".
pub(super) fn remove(path: &Path, outcome: io::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes the cluster beside its place and moves it there when it is complete: half a cluster is never taken
/// for a whole one.
pub(super) async fn create(layout: &Layout, binaries: &Binaries, context: &Context<'_>) -> Result<(), Error> {
    context.account.check_entry()?;
    let place = &layout.unfinished;
    // Made here because the account may not write to the data directory itself.
    DirBuilder::new().mode(0o700).create(place).map_err(Error::io("create", place))?;
    context.account.give(place)?;

    let log = LogFile::open(&layout.log)?;
    let program = binaries.initdb();
    let mut command = context.command(&program, &log)?;
    command.arg("-D").arg(place).args([
        "-U",
        NAME,
        "-A",
        "trust",
        "--locale=C",
        "-E",
        "UTF8",
        "--data-checksums",
    ]);
    let mut running = Running::spawn(command).map_err(|source| Error::Spawn { program, source })?;
    let status = running.exited().await;
    if !status.success() {
        return Err(Error::InitDb {
            cluster: place.clone(),
            status: status.to_string(),
            log: log.path().to_owned(),
            tail: log.tail(),
        });
    }
    // initdb has synced the files; the name in its directory is ours to sync.
    fs::rename(place, &layout.cluster).map_err(Error::io("rename", place))?;
    let parent = layout.cluster.parent().unwrap_or(&layout.root);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(Error::io("sync", parent))
}

/// SQLSTATE `invalid_catalog_name`: no such database.
const NO_SUCH_DATABASE: &str = "3D000";

/// Connects once, which also proves that the server lets us in, and makes the database when it is missing.
pub(super) async fn ensure_database(options: &PgConnectOptions) -> Result<(), Error> {
    match options.connect().await {
        Ok(connection) => return Ok(connection.close().await?),
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(NO_SUCH_DATABASE) => {}
        Err(error) => return Err(error.into()),
    }
    let mut connection: PgConnection = options.clone().database("postgres").connect().await?;
    sqlx::query("CREATE DATABASE estimatord").execute(&mut connection).await?;
    Ok(connection.close().await?)
}
