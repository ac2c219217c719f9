//! The server process: started, ready, ended.

use std::ffi::OsString;
use std::fs;
use std::process::ExitStatus;
use std::time::Duration;

use super::binaries::Binaries;
use super::cluster::Layout;
use super::log_file::LogFile;
use super::orphans::STAGES;
use super::socket::SocketDir;
use super::supervise::{Context, Running};
use super::{Error, PORT};

/// Enough for the recovery after a crash, which replays up to a few gigabytes.
const READY_WITHIN: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// `syncfs` in place of one `fsync` per file halves the start after a crash; since version 14, Linux only.
const SYNCFS_SINCE: u32 = 14;

/// A running server.
#[derive(Debug)]
pub(super) struct Server {
    running: Running,
}

impl Server {
    /// Starts `postgres` itself and waits until it takes connections.
    pub(super) async fn start(
        layout: &Layout,
        binaries: &Binaries,
        socket: &SocketDir,
        context: &Context<'_>,
    ) -> Result<Self, Error> {
        let log = LogFile::open(&layout.log)?;
        let program = binaries.postgres();
        let mut command = context.command(&program, &log)?;
        command.arg("-D").arg(&layout.cluster);
        for (name, value) in parameters(binaries, socket) {
            command.arg("-c").arg(OsString::from(format!("{name}={value}")));
        }
        let running = Running::spawn(command).map_err(|source| Error::Spawn { program, source })?;
        let mut server = Self { running };
        if let Err(reason) = server.ready(layout).await {
            let (log, tail) = (log.path().to_owned(), log.tail());
            server.stop().await?;
            return Err(Error::Start { reason, log, tail });
        }
        Ok(server)
    }

    /// The last line of the pid file tells the state (it is the eighth; counted from the end, a path with a
    /// line break in it does no harm).
    async fn ready(&mut self, layout: &Layout) -> Result<(), String> {
        let pid_file = layout.pid_file();
        let pid = self.running.pid().to_string();
        let is_ready = || {
            let text = fs::read_to_string(&pid_file).unwrap_or_default();
            let mut lines = text.lines();
            lines.next() == Some(pid.as_str()) && lines.next_back().is_some_and(|line| line.trim() == "ready")
        };
        let began = std::time::Instant::now();
        while !is_ready() {
            if let Some(status) = self.running.exited_within(LOOK_EVERY).await {
                return Err(format!("it ended ({status})"));
            }
            if began.elapsed() > READY_WITHIN {
                return Err(format!("it was not ready within {} s", READY_WITHIN.as_secs()));
            }
        }
        Ok(())
    }

    /// Waits for the end.
    pub(super) async fn exited(&mut self) -> ExitStatus {
        self.running.exited().await
    }

    /// Ends the server, ever less gently.
    pub(super) async fn stop(mut self) -> Result<(), Error> {
        if self.running.status().is_some() {
            return Ok(());
        }
        for (signal, patience) in STAGES {
            self.running.signal(signal);
            if let Some(status) = self.running.exited_within(patience).await {
                if !status.success() {
                    tracing::warn!(
                        "PostgreSQL did not end cleanly ({status}); it recovers at the next start"
                    );
                }
                return Ok(());
            }
            let waited_seconds = patience.as_secs();
            tracing::warn!(%signal, waited_seconds, "PostgreSQL has not ended {waited_seconds} s after {signal}");
        }
        Err(Error::Unstoppable { pid: self.running.pid().as_raw() })
    }
}

/// What must hold, whatever the cluster's `postgresql.conf` says; everything else may be tuned there.
fn parameters(binaries: &Binaries, socket: &SocketDir) -> Vec<(&'static str, String)> {
    let mut parameters: Vec<(&'static str, String)> =
        vec![("unix_socket_directories", socket.setting()), ("port", PORT.to_string())];
    let fixed = [
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
        // An answer of the service means that the row is on the disk.
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("max_connections", "100"),
        ("logging_collector", "off"),
        ("log_destination", "stderr"),
        ("log_timezone", "UTC"),
        ("timezone", "UTC"),
        // The server's own affairs only. Failed statements reach the service, which knows what to make of
        // them; here they would spell out rows, tokens included.
        ("log_min_messages", "log"),
        ("log_checkpoints", "off"),
    ];
    parameters.extend(fixed.map(|(name, value)| (name, value.to_owned())));
    if binaries.major >= SYNCFS_SINCE && cfg!(target_os = "linux") {
        parameters.push(("recovery_init_sync_method", "syncfs".to_owned()));
    }
    parameters
}
