//! Starting the supervisor of an attempt, as often as it is asked for and still only once.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{process::Command, sync::oneshot, time::Instant};

use super::{
    super::{ActualEnvironment, Attempt, BackendError},
    ProcessBackend,
    container::{self, Engine},
    environment,
    launch::{self, Machine, MpiFlavor, Place, Planned},
    layout::{self, AttemptDir},
    script_environment, script_module,
    supervisor::HELD_BY_ANOTHER,
};
use crate::domain::{container::Mount, plan::Launcher, staging::staged_place};

/// How long a supervisor may take until the script runs.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks whether it does.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);
/// The longest base under which MPI can make its sockets.
const LONGEST_TEMPORARY_BASE: usize = 40;

pub(super) async fn ensure_submitted(
    backend: &ProcessBackend,
    attempt: &Attempt,
    environment: &ActualEnvironment,
) -> Result<(), BackendError> {
    let directory = backend.directory(attempt);
    let io_error = |action: &str, source| BackendError::Io {
        action: format!("{action} in {}", directory.root().display()),
        source,
    };
    if directory.exit().exists() || directory.started().exists() || directory.lost().exists() {
        return Ok(());
    }
    if directory.supervisor().exists() {
        // Another call started it; its script is on the way, or it is lost and observing will tell.
        wait_until_started(&directory, None).await;
        return Ok(());
    }
    if directory.cancel().exists() {
        return Ok(());
    }
    if !directory.work().is_dir() {
        let missing = io::Error::new(io::ErrorKind::NotFound, "the attempt was not prepared");
        return Err(io_error("start", missing));
    }
    let planned =
        plan_launch(backend, attempt, environment, &directory).await.map_err(|e| io_error("start", e))?;
    for (path, content) in &planned.files {
        layout::write_atomically(path, content.as_bytes()).map_err(|e| io_error("write a script", e))?;
    }
    layout::write_json(&directory.launch(), &planned.launch).map_err(|e| io_error("write launch.json", e))?;
    let ended = spawn(backend, &directory).map_err(|e| io_error("start the supervisor", e))?;
    wait_until_started(&directory, Some(ended)).await;
    let files = [directory.exit(), directory.started(), directory.supervisor(), directory.cancel()];
    if files.iter().any(|file| file.exists()) {
        return Ok(());
    }
    let said = fs::read_to_string(directory.supervisor_log()).unwrap_or_default();
    let said = said.lines().next_back().unwrap_or("it said nothing").to_owned();
    Err(io_error("start the supervisor", io::Error::other(said)))
}

async fn plan_launch(
    backend: &ProcessBackend,
    attempt: &Attempt,
    environment: &ActualEnvironment,
    directory: &AttemptDir,
) -> io::Result<Planned> {
    let interpreter = PathBuf::from(&environment.interpreter);
    let virtual_environment = environment.built_root();
    let variables = &backend.service_environment;
    let engine = match &environment.container {
        Some(used) => Some(Engine::of(used.runtime, variables).await.map_err(io::Error::other)?),
        None => None,
    };
    let records = container::records(directory);
    let place = match (&environment.container, &engine) {
        (Some(used), Some(engine)) => {
            layout::create_private_dir(&records)?;
            Some(Place {
                engine,
                image: &used.image_id,
                records: &records,
                user: container::user(engine.runtime),
                mounts: mounts(virtual_environment, &environment::own_pythons(&backend.settings.data_dir)),
            })
        }
        _ => None,
    };
    let python_site = script_module::place(&backend.settings.data_dir)?;
    let mpirun = match attempt.plan.launcher {
        Launcher::Single => None,
        Launcher::Mpi if place.is_some() => None,
        Launcher::Mpi => match environment::mpirun(&interpreter, variables) {
            Some(path) => Some((path.clone(), flavor(&path, variables).await?)),
            None => None,
        },
    };
    let machine = Machine {
        own_binary: &backend.settings.supervisor,
        interpreter: &interpreter,
        virtual_environment,
        is_conda: environment.is_conda(),
        mpirun: mpirun.as_ref().map(|(path, flavor)| (path.as_path(), *flavor)),
        service_environment: variables,
        work: &directory.work(),
        logs: &directory.logs(),
        records: &directory.records(),
        data: &directory.data(),
        data_links: &data_links(attempt, directory),
        python_site: &python_site,
        temporary_base: &temporary_base(),
        cancel_grace: backend.settings.cancel_grace,
        container: place,
    };
    launch::launch(attempt, &machine).map_err(io::Error::other)
}

/// The inputs that are links to folders of this machine, and where they lead.
fn data_links(attempt: &Attempt, directory: &AttemptDir) -> Vec<(String, String)> {
    let place = |input| directory.data().join(staged_place(input).path);
    let links = attempt.plan.data.inputs.iter().map(place).filter_map(|place| {
        let real = fs::read_link(&place).ok()?;
        Some((launch::text(&place), launch::text(&real)))
    });
    links.collect()
}

/// What a container sees of the machine: what was built for it, where it was built, with the interpreters that it may
/// have been built with.
fn mounts(virtual_environment: Option<&Path>, pythons: &Path) -> Vec<Mount> {
    let Some(root) = virtual_environment.and_then(Path::parent) else { return Vec::new() };
    let places = [Some(root), pythons.is_dir().then_some(pythons)];
    places.into_iter().flatten().map(|place| Mount::same(launch::text(place), true)).collect()
}

fn temporary_base() -> PathBuf {
    let base = std::env::temp_dir();
    if base.as_os_str().len() > LONGEST_TEMPORARY_BASE { Path::new("/tmp").to_owned() } else { base }
}

async fn flavor(mpirun: &Path, variables: &[(String, String)]) -> io::Result<MpiFlavor> {
    let mut command = Command::new(mpirun);
    command
        .arg("--version")
        .env_clear()
        .envs(variables.iter().filter(|(name, _)| script_environment::is_inherited(name)).cloned());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await?;
    Ok(MpiFlavor::of(&String::from_utf8_lossy(&output.stdout)))
}

/// Starts the supervisor apart from this service; the receiver tells when it has ended.
fn spawn(backend: &ProcessBackend, directory: &AttemptDir) -> io::Result<oneshot::Receiver<ExitStatus>> {
    let log = layout::open_log(&directory.supervisor_log())?;
    let mut command = Command::new(&backend.settings.supervisor);
    command.arg("supervise").arg(directory.root());
    // It needs nothing of the service's environment, and whatever is in there could be read from outside.
    command.env_clear().stdin(Stdio::null());
    command.stdout(OwnedFd::from(log.try_clone()?)).stderr(OwnedFd::from(log));
    let mut child = command.spawn()?;
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        if let Ok(status) = child.wait().await {
            // Nobody may be waiting any more: this task is there so that no zombie is.
            let _ = sender.send(status);
        }
    });
    Ok(receiver)
}

/// Waits until the script runs or never will, or for so long that observing has to tell.
async fn wait_until_started(directory: &AttemptDir, mut ended: Option<oneshot::Receiver<ExitStatus>>) {
    let give_up = Instant::now() + START_TIMEOUT;
    while Instant::now() < give_up {
        if directory.started().exists() || directory.exit().exists() {
            return;
        }
        if let Some(receiver) = &mut ended {
            match receiver.try_recv() {
                Err(oneshot::error::TryRecvError::Empty) => {}
                // Another call was faster: its supervisor will get there.
                Ok(status) if status.code() == Some(i32::from(HELD_BY_ANOTHER)) => ended = None,
                Ok(_) | Err(oneshot::error::TryRecvError::Closed) => return,
            }
        } else if directory.supervisor().exists() && !layout::is_locked(&directory.lock()).unwrap_or(true) {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
