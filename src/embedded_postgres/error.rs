//! What can go wrong, and what to do about it.

use std::io;
use std::path::PathBuf;

use super::NAME;

/// Why there is no embedded PostgreSQL. Every message ends with a way out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a home directory nor `XDG_DATA_HOME` is known.
    #[error(
        "no place for the data: neither HOME nor XDG_DATA_HOME is set; name a directory with --data-dir, or set \
         DATABASE_URL to a server of your own"
    )]
    NoDefaultDataDir,

    /// The data directory is in use.
    #[error(
        "another estimatord{} is using the data directory {}: stop it first, or give this one its own with --data-dir",
        .pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default(),
        .path.display()
    )]
    DataDirInUse {
        /// The directory.
        path: PathBuf,
        /// Who says to hold it.
        pid: Option<u32>,
    },

    /// The data directory cannot be made or written.
    #[error(
        "cannot use {} as data directory ({source}): make it writable for this user, choose another with \
         --data-dir, or set DATABASE_URL to a server of your own", .path.display()
    )]
    DataDirUnusable {
        /// What could not be made or opened.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// PostgreSQL's own buffers for paths are finite.
    #[error(
        "the data directory's path has {length} bytes, and PostgreSQL takes {limit} at most: choose a shorter one with \
         --data-dir"
    )]
    PathTooLong {
        /// Bytes in the path of the cluster.
        length: usize,
        /// Most bytes allowed.
        limit: usize,
    },

    /// No binaries at all.
    #[error(
        "no PostgreSQL server binaries found (looked in {looked_in}): install them with `apt-get install postgresql`, \
         name their directory with PG_BIN_DIR, or set DATABASE_URL to a server of your own"
    )]
    NoBinaries {
        /// The places, and why a place with binaries was passed over.
        looked_in: String,
    },

    /// Binaries, but none of the version that wrote the data.
    #[error(
        "the data in {} is of PostgreSQL {wanted}, and only other versions were found ({found}): install the matching \
         one with `apt-get install postgresql-{wanted}`, name its directory with PG_BIN_DIR, or set DATABASE_URL to a \
         server of your own", .cluster.display()
    )]
    OtherMajor {
        /// Where the data is.
        cluster: PathBuf,
        /// Its version.
        wanted: String,
        /// What there is.
        found: String,
    },

    /// There is something at the cluster's place, but it is no cluster.
    #[error(
        "{} is not empty and yet no PostgreSQL cluster (it has no PG_VERSION): move it away, or choose another \
         directory with --data-dir", .cluster.display()
    )]
    NotACluster {
        /// The directory.
        cluster: PathBuf,
    },

    /// The cluster belongs to somebody this process cannot become.
    #[error(
        "{} belongs to {owner}, and this service runs as {ours}: run it as that user, hand the directory over with \
         chown -R, or choose another with --data-dir", .cluster.display()
    )]
    WrongOwner {
        /// The directory.
        cluster: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who we are.
        ours: String,
    },

    /// Root owns the cluster; PostgreSQL refuses to run as root.
    #[error(
        "{} belongs to root, and PostgreSQL refuses to run as root: hand it over with `chown -R {account}: {}`",
        .cluster.display(), .cluster.display()
    )]
    OwnedByRoot {
        /// The directory.
        cluster: PathBuf,
        /// The account that should have it.
        account: String,
    },

    /// Root, but no other account to run the server under.
    #[error(
        "PostgreSQL refuses to run as root, and there is neither an account `postgres` nor `nobody` to run it under: \
         create one with `useradd --system postgres`, or set DATABASE_URL to a server of your own"
    )]
    NoAccount,

    /// `initdb` looks its user up and gives up when there is no entry.
    #[error(
        "user id {uid} has no entry in the user database, without which PostgreSQL's initdb does not work: add one (in \
         /etc/passwd), run as another user, or set DATABASE_URL to a server of your own"
    )]
    NoPasswdEntry {
        /// The id.
        uid: u32,
    },

    /// The server's account cannot get to its data.
    #[error(
        "the PostgreSQL server runs under the account `{account}`, which may not pass through {}: allow it with \
         `chmod o+x {}`, or choose a --data-dir elsewhere (as root: not below /root)", .blocker.display(), .blocker.display()
    )]
    Blocked {
        /// Who cannot.
        account: String,
        /// The first directory on the way that does not let it through.
        blocker: PathBuf,
    },

    /// The account could not be taken on.
    #[error(
        "cannot run a program under the account `{account}`: {detail}; run the service as an ordinary user, or set \
         DATABASE_URL to a server of your own"
    )]
    Account {
        /// Which account.
        account: String,
        /// What was said.
        detail: String,
    },

    /// An earlier server does not go away.
    #[error(
        "an earlier PostgreSQL still uses {} and cannot be ended ({processes}): end it by hand, then start again",
        .cluster.display()
    )]
    StillRunning {
        /// The cluster.
        cluster: PathBuf,
        /// What is known of its processes.
        processes: String,
    },

    /// The directory for the socket is not ours.
    #[error(
        "the socket's directory {} is unusable: {detail}; remove it, or choose a shorter --data-dir (the socket is then \
         kept below it)", .path.display()
    )]
    SocketDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },

    /// A program could not be started at all.
    #[error("cannot start {}: {source}; check that the file exists and may be executed", .program.display())]
    Spawn {
        /// Which.
        program: PathBuf,
        /// The system's answer.
        source: io::Error,
    },

    /// `initdb` failed.
    #[error(
        "initdb could not make a cluster in {} ({status}); see {}, which ends with:\n{tail}", .cluster.display(), .log.display()
    )]
    InitDb {
        /// The place.
        cluster: PathBuf,
        /// How it ended.
        status: String,
        /// Where its output is.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },

    /// The server ended, or was not ready in time.
    #[error("PostgreSQL did not start: {reason}; see {}, which ends with:\n{tail}", .log.display())]
    Start {
        /// Ended how, or after how long.
        reason: String,
        /// Where its output is.
        log: PathBuf,
        /// The end of it.
        tail: String,
    },

    /// The server runs but does not let us in.
    #[error(
        "the embedded PostgreSQL does not let the service in as `{NAME}` ({source}): look into postgres.log in the data \
         directory, or choose another directory with --data-dir"
    )]
    Connect {
        /// What sqlx says.
        #[from]
        source: sqlx::Error,
    },

    /// The server survived everything.
    #[error("PostgreSQL (pid {pid}) does not end, not even when killed: look at the machine's disks")]
    Unstoppable {
        /// Its pid.
        pid: i32,
    },

    /// Any other file operation.
    #[error("cannot {action} {} ({source}): check the disk and the permissions of the data directory", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err`: `action` reads as in "cannot `action` `path`".
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }
}
