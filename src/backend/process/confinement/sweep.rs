//! Ending everything that a user of a run has: processes, however they hide, and files in everybody's directories.

use std::{
    collections::HashSet,
    io,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use super::{super::descendants, apply::Order, enter, shared};

/// Between two looks at processes that were killed and are not gone yet.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long killed processes may take to go before it is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills every process of a user of runs until none is left, and says how many were found. The user's own `kill` of everybody comes first: the
/// kernel does it in one go, and nothing that forks on and on is faster.
pub(in super::super) fn end_all(own: &Path, user: u32) -> io::Result<usize> {
    let mut seen = HashSet::new();
    let give_up = Instant::now() + PATIENCE;
    loop {
        let found = processes_of(user)?;
        if found.is_empty() {
            return Ok(seen.len());
        }
        if Instant::now() >= give_up {
            let text = format!("{} processes of user {user} were killed and are still there", found.len());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        seen.extend(found.iter().map(|process| (process.pid, process.start_ticks)));
        let (mut child, said) = enter::give(own, &Order::EndAll { user }, |command| {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        })?;
        child.wait()?;
        if !said.is_empty() {
            return Err(io::Error::other(said));
        }
        // Whoever killed the killer, which is of the same user for a moment.
        for process in found {
            descendants::signal(process, Signal::SIGKILL)?;
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

pub(super) fn processes_of(user: u32) -> io::Result<Vec<descendants::Process>> {
    descendants::living(|pid| user_ids(pid).contains(&user))
}

/// The users that a process is, was or could become: real, effective, saved and of the file system. None when it is gone.
pub(super) fn user_ids(pid: i32) -> Vec<u32> {
    let status = descendants::of_process(pid, "status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// Removes what a user has left in everybody's directories. No process of it must be left.
pub(in super::super) fn remove_left_files(user: u32) -> io::Result<()> {
    for (directory, name) in shared::left_by(user)? {
        super::super::files::remove_tree(&directory.join(name))?;
    }
    Ok(())
}
