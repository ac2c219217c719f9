//! Starting a program under the server's account and staying with it until its end.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::sync::watch;

use super::Error;
use super::account::Account;
use super::log_file::LogFile;

/// What every long-running child needs.
#[derive(Debug)]
pub(super) struct Context<'a> {
    pub(super) trampoline: &'a Path,
    pub(super) account: &'a Account,
    /// The locked `pg.lock`; handed on as standard input, so that it stays locked while the child lives.
    pub(super) lock: &'a File,
}

impl Context<'_> {
    /// A command for `program` whose output goes to the log.
    pub(super) fn command(&self, program: &Path, log: &LogFile) -> Result<Command, Error> {
        let lock = self.lock.try_clone().map_err(Error::io("hand on the lock of", program))?;
        let mut command = command(self.trampoline, self.account);
        command.stdin(lock).stdout(log.stdio()?).stderr(log.stdio()?);
        // A group of its own: Ctrl-C is for the service, which then ends the server in order.
        command.process_group(0);
        command.arg("--").arg(program);
        Ok(command)
    }
}

/// The trampoline, ready for its `-- program arguments`.
///
/// The environment is cleared: `PG…` variables would redirect the programs, and secrets of the service are
/// none of their business. The working directory is one the account can surely be in.
pub(super) fn command(trampoline: &Path, account: &Account) -> Command {
    let mut command = Command::new(trampoline);
    command.env_clear().env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    // Binaries that do not come from the system's packages may need the last one to find their libraries.
    for name in ["PATH", "TMPDIR", "LD_LIBRARY_PATH"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command.arg("postgres-child").arg("--parent").arg(std::process::id().to_string());
    if account.switch {
        command.arg("--uid").arg(account.uid.to_string()).arg("--gid").arg(account.gid.to_string());
    }
    command
}

/// A child and the thread that waits for it. Dropping it asks the child to end.
#[derive(Debug)]
pub(super) struct Running {
    pid: Pid,
    /// True once the pid may belong to somebody else; held while signalling.
    reaped: Arc<Mutex<bool>>,
    exit: watch::Receiver<Option<ExitStatus>>,
}

impl Running {
    /// Starts the command on a thread of its own, which lives as long as the child: the kernel's death signal
    /// is tied to the thread that forked, and a pooled thread might end early.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let (started, start) = mpsc::sync_channel(1);
        let (ended, exit) = watch::channel(None);
        let reaped = Arc::new(Mutex::new(false));
        let flag = Arc::clone(&reaped);
        thread::Builder::new().name("postgres".to_owned()).spawn(move || {
            let child = command.spawn();
            // The command owns copies of the files it passed on, the lock among them.
            drop(command);
            match child {
                Ok(child) => {
                    let pid = Pid::from_raw(child.id().cast_signed());
                    // The other side waits for this message; it cannot be gone.
                    let _ = started.send(Ok(pid));
                    ended.send_replace(Some(wait(child, pid, &flag)));
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        })?;
        let pid = start.recv().map_err(io::Error::other)??;
        Ok(Self { pid, reaped, exit })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, if it did.
    pub(super) fn status(&self) -> Option<ExitStatus> {
        *self.exit.borrow()
    }

    /// Waits for the end. Safe to cancel and to call again.
    pub(super) async fn exited(&mut self) -> ExitStatus {
        match self.exit.wait_for(Option::is_some).await {
            Ok(status) => status.unwrap_or_default(),
            // The thread is gone without a word, which would be a panic in it.
            Err(_) => ExitStatus::from_raw(1 << 8),
        }
    }

    /// Waits for the end, but no longer than this.
    pub(super) async fn exited_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.exited()).await.ok()
    }

    /// Sends a signal unless the child has ended.
    pub(super) fn signal(&self, signal: Signal) {
        let reaped = locked(&self.reaped);
        if !*reaped && let Err(error) = kill(self.pid, signal) {
            let pid = self.pid.as_raw();
            tracing::warn!(pid, %signal, "cannot send {signal} to PostgreSQL, process {pid}: {error}");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal(Signal::SIGINT);
    }
}

/// Waits first without reaping, so that the pid stays reserved until nobody is about to signal it.
fn wait(mut child: Child, pid: Pid, reaped: &Mutex<bool>) -> ExitStatus {
    while waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) == Err(Errno::EINTR) {}
    let mut reaped = locked(reaped);
    *reaped = true;
    child.wait().unwrap_or_else(|error| {
        tracing::warn!("somebody else has waited for PostgreSQL: {error}");
        ExitStatus::from_raw(1 << 8)
    })
}

fn locked(flag: &Mutex<bool>) -> MutexGuard<'_, bool> {
    flag.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks `attempt` again and again until it has an answer or the time is up.
pub(super) async fn poll<T>(limit: Duration, mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = attempt() {
            return Some(answer);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
