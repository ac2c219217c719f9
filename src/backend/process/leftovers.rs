//! Ending what is left of an attempt that nobody supervises any more.

use std::{collections::HashSet, io, path::Path};

use nix::sys::signal::Signal;

use super::{
    super::{Attempt, BackendError},
    GONE_TIMEOUT, LOOK_INTERVAL, confinement, descendants, files,
    layout::{self, AttemptDir},
    records::{Begun, Started, Supervisor},
    script_environment,
};

/// Kills every process that can be told to be of the attempt, and says how many there were. `own` is our own executable.
pub(super) async fn end(
    own: &Path,
    attempt: &Attempt,
    directory: &AttemptDir,
    supervisor: Option<&Supervisor>,
) -> Result<usize, BackendError> {
    let mark = script_environment::mark(attempt);
    let failed = |source| BackendError::Io { action: format!("end the processes of {mark}"), source };
    let boot = descendants::boot_id().map_err(failed)?;
    let (launch, started) = match Begun::of(directory, &boot)? {
        Begun::No => (None, layout::read_json::<Started>(&directory.started())?),
        Begun::Now(launch) => (Some(launch), layout::read_json::<Started>(&directory.started())?),
        Begun::BeforeRestart(launch) => (launch, None),
    };
    let supervisor = supervisor.filter(|supervisor| supervisor.boot_id == boot).cloned();
    let give_up = tokio::time::Instant::now() + GONE_TIMEOUT;
    let mut seen = HashSet::new();
    let mut empty = 0;
    // Twice in a row: a process may slip past one look by forking during it.
    while empty < 2 {
        let (entry, directory) = (mark.clone(), directory.clone());
        let (supervisor, started) = (supervisor.clone(), started.clone());
        let found = tokio::task::spawn_blocking(move || {
            kill_found(&entry, &directory, supervisor.as_ref(), started.as_ref())
        })
        .await
        .map_err(|error| failed(io::Error::other(error)))?
        .map_err(failed)?;
        if found.is_empty() {
            empty += 1;
            continue;
        }
        empty = 0;
        // Not the parent: it changes when it dies.
        seen.extend(found.iter().map(|process| (process.pid, process.start_ticks)));
        if tokio::time::Instant::now() >= give_up {
            let source = io::Error::new(io::ErrorKind::TimedOut, "they were killed and are still there");
            return Err(failed(source));
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let mut ended = seen.len();
    if let Some(user) = confinement::assigned(directory.root())? {
        ended += end_user(own, user).await.map_err(failed)?;
    }
    let Some(launch) = launch else { return Ok(ended) };
    if let Some(container) = launch.container {
        // Its processes are the runtime's, not the supervisor's. That it is gone must be said before anybody else is told.
        let gone = tokio::task::spawn_blocking(move || container.end())
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        ended += usize::from(gone.map_err(|error| failed(io::Error::other(error)))?);
    }
    if let Some(temporary) = launch.temporary_directory {
        files::remove_tree(&temporary).map_err(failed)?;
    }
    Ok(ended)
}

/// What has the attempt's own user is of the attempt, whatever it did to hide.
async fn end_user(own: &Path, user: u32) -> io::Result<usize> {
    let own = own.to_owned();
    let ending = move || {
        let ended = confinement::end_all(&own, user)?;
        confinement::remove_left_files(user)?;
        Ok(ended)
    };
    tokio::task::spawn_blocking(ending).await.map_err(io::Error::other)?
}

fn kill_found(
    mark: &str,
    directory: &AttemptDir,
    supervisor: Option<&Supervisor>,
    started: Option<&Started>,
) -> io::Result<Vec<descendants::Process>> {
    let mut leaders = Vec::new();
    if let Some(supervisor) = supervisor {
        leaders.push((supervisor.pid, Some(supervisor.start_ticks)));
        leaders.extend(started.map(|started| (started.pid, started.start_ticks)));
        // Where another process has the number by now, it leads another group.
        leaders.retain(|(pid, start_ticks)| {
            descendants::find(*pid).is_none_or(|now| start_ticks.is_none_or(|ticks| now.start_ticks == ticks))
        });
    }
    let found = descendants::matching(|process| {
        let pid = process.pid;
        let in_group = supervisor.is_some_and(|supervisor| process.start_ticks >= supervisor.start_ticks)
            && leaders.iter().any(|(leader, _)| descendants::is_in_group(pid, *leader));
        in_group
            || descendants::carries(pid, mark)
            || descendants::works_in(pid, directory.root())
            || descendants::supervises(pid, directory.root())
    })?;
    // Began another start meanwhile, these are its processes. What has been started is started once.
    if supervisor.is_none() && started.is_none() && directory.launch().exists() {
        return Ok(Vec::new());
    }
    for process in &found {
        descendants::signal(*process, Signal::SIGKILL)?;
    }
    Ok(found)
}
