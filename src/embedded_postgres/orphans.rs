//! Servers an earlier run left behind.
//!
//! Whoever holds the data directory's lock is the only service, so a server found running here has no master
//! any more. It has to end before the next one starts: two on one cluster destroy it.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use super::cluster::Layout;
use super::supervise::poll;

/// How patient each stage is: a fast shutdown, an immediate one (recovers at the next start), a kill.
pub(super) const STAGES: [(Signal, Duration); 3] = [
    (Signal::SIGINT, Duration::from_secs(20)),
    (Signal::SIGQUIT, Duration::from_secs(10)),
    (Signal::SIGKILL, Duration::from_secs(5)),
];

/// A process that works on our cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
}

/// Ends every process on the cluster and returns `pg.lock`, locked: the proof that none is left.
///
/// The processes are looked up in `/proc`, which may not show everything (root in a container cannot see
/// into the processes of others). The lock does not depend on that: every process of the server has it as
/// standard input.
pub(super) async fn end_all(layout: &Layout) -> Result<File, Error> {
    let lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&layout.lock)
        .map_err(Error::io("open", &layout.lock))?;
    if nobody_left(&lock, layout)? {
        return Ok(lock);
    }
    let began = Instant::now();
    let processes = describe(&find(layout));
    tracing::info!("waiting for an earlier PostgreSQL to end: {processes}");
    for (signal, patience) in STAGES {
        let found = find(layout);
        for process in &found {
            // A fast shutdown is asked of the server, which then ends its own; harder ones of everybody.
            let is_child = found.iter().any(|other| other.pid == process.parent);
            if signal != Signal::SIGINT || !is_child {
                // It may have ended meanwhile; what counts is whether anything is left.
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
        }
        let done = poll(patience, || match nobody_left(&lock, layout) {
            Ok(false) => None,
            answer => Some(answer),
        });
        if let Some(answer) = done.await {
            answer?;
            let waited_seconds = began.elapsed().as_secs_f32();
            tracing::info!(waited_seconds, "the earlier PostgreSQL has ended after {waited_seconds:.1} s");
            return Ok(lock);
        }
        tracing::warn!(%signal, "the earlier PostgreSQL is still there after {signal}");
    }
    Err(Error::StillRunning { cluster: layout.cluster.clone(), processes: describe(&find(layout)) })
}

fn nobody_left(lock: &File, layout: &Layout) -> Result<bool, Error> {
    match lock.try_lock() {
        Ok(()) => Ok(find(layout).is_empty()),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Error::io("lock", &layout.lock)(source)),
    }
}

fn describe(processes: &[Process]) -> String {
    if processes.is_empty() {
        return "none that can be seen from here".to_owned();
    }
    let mut text = "pid".to_owned();
    for process in processes {
        let _ = write!(text, " {}", process.pid);
    }
    text
}

/// The server's processes on this cluster, started by whomever. A zombie has neither directory nor arguments
/// and so does not count.
fn find(layout: &Layout) -> Vec<Process> {
    let entries =
        fs::read_dir("/proc").map(|entries| entries.flatten().collect::<Vec<_>>()).unwrap_or_default();
    entries
        .iter()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let proc = entry.path();
            let stat = fs::read_to_string(proc.join("stat")).ok()?;
            let (name, parent) = parse_stat(&stat)?;
            // By name as well: an administrator's shell may stand in the directory.
            let ours = ["postgres", "postmaster", "initdb"].iter().any(|known| name.contains(known))
                && (works_in(&proc, layout) || was_started_on(&proc, layout));
            ours.then_some(Process { pid, parent })
        })
        .collect()
}

/// Every process of a server works in the cluster's directory.
fn works_in(proc: &Path, layout: &Layout) -> bool {
    fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd == layout.cluster || cwd == layout.unfinished)
}

/// The arguments can be read where the working directory cannot.
fn was_started_on(proc: &Path, layout: &Layout) -> bool {
    let Ok(arguments) = fs::read(proc.join("cmdline")) else { return false };
    let mut arguments = arguments.split(|byte| *byte == 0);
    arguments.any(|argument| {
        [&layout.cluster, &layout.unfinished].iter().any(|dir| argument == dir.as_os_str().as_bytes())
    })
}

/// Name and parent from `/proc/PID/stat`: `pid (name) state parent …`, where the name may contain anything.
fn parse_stat(stat: &str) -> Option<(&str, i32)> {
    let (_, rest) = stat.split_once('(')?;
    let (name, rest) = rest.rsplit_once(')')?;
    Some((name, rest.split_whitespace().nth(1)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        assert_eq!(parse_stat("12 (postgres) S 7 12 12 0"), Some(("postgres", 7)));
        assert_eq!(parse_stat("12 (a) (b c) S 7 12 12 0"), Some(("a) (b c", 7)));
        assert_eq!(parse_stat("12"), None);
    }
}
