//! Starting the supervisor of an attempt, as often as it is asked for and still only once.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{ChildStdin, ChildStdout, Command},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};

use super::{
    super::{ActualEnvironment, Attempt, BackendError},
    ProcessBackend,
    confinement::{self, Confinement, Limits, Program},
    container::{self, Engine},
    descendants, environment,
    launch::{self, Machine, MpiFlavor, OwnPlaces, Place, Planned},
    layout::{self, AttemptDir},
    records::Begun,
    script_environment, script_module,
    supervisor::{BEGIN, HELD_BY_ANOTHER, PLANNED},
};
use crate::domain::{container::Mount, plan::Launcher, staging::staged_place};

/// How long a supervisor may take until the script runs.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `mpirun` may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);
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
    let boot = descendants::boot_id().map_err(|e| io_error("start", e))?;
    if matches!(Begun::of(&directory, &boot)?, Begun::BeforeRestart(_)) {
        // What has become of it observing will tell.
        return Ok(());
    }
    if directory.supervisor().exists() {
        // Another call started it; its script is on the way, or it is lost and observing will tell.
        until_another_started(&directory).await;
        return Ok(());
    }
    if directory.cancel().exists() {
        return Ok(());
    }
    if !directory.work().is_dir() {
        let missing = io::Error::new(io::ErrorKind::NotFound, "the attempt was not prepared");
        return Err(io_error("start", missing));
    }
    // Making a process takes as long as planning what it is to start.
    let mut supervisor = Beginning::spawn(&backend.settings.supervisor, &directory)
        .map_err(|e| io_error("start the supervisor", e))?;
    let planned = plan_launch(backend, attempt, environment, &directory, &boot).await?;
    for (path, content) in &planned.files {
        layout::write_whole(path, content.as_bytes()).map_err(|e| io_error("write a script", e))?;
    }
    layout::write_json_whole(&directory.launch(), &planned.launch)
        .map_err(|e| io_error("write launch.json", e))?;
    supervisor.tell(PLANNED).await;
    if planned.launch.container.is_some() {
        // It is looked for after a restart of the machine too.
        layout::sync(&directory.launch()).map_err(|e| io_error("keep launch.json", e))?;
    }
    // From here on a restart of the machine finds that it was begun.
    backend.keep_names(attempt).await?;
    supervisor.tell(BEGIN).await;
    let end = supervisor.begins(&directory).await;
    let files = [directory.exit(), directory.started(), directory.supervisor(), directory.cancel()];
    if files.iter().any(|file| file.exists()) {
        return Ok(());
    }
    let said = fs::read_to_string(directory.supervisor_log()).unwrap_or_default();
    Err(io_error("start the supervisor", io::Error::other(why_not_started(&said, end))))
}

async fn plan_launch(
    backend: &ProcessBackend,
    attempt: &Attempt,
    environment: &ActualEnvironment,
    directory: &AttemptDir,
    boot: &str,
) -> Result<Planned, BackendError> {
    let interpreter = PathBuf::from(&environment.interpreter);
    let links = data_links(attempt, directory);
    let real: Vec<PathBuf> = links.iter().map(|(_, real)| real.into()).collect();
    let confinement = match environment.container {
        // It has means of its own, and the service's user; what it writes is measured.
        Some(_) => {
            let Limits { disk_bytes, .. } = backend.settings.isolation.limits;
            Confinement { limits: Limits { disk_bytes, ..Limits::default() }, ..Confinement::default() }
        }
        None => backend.confinement(attempt, &interpreter, &real).await?,
    };
    leads_where_it_did(&links)?;
    if confinement.user.is_some() {
        reaches_data(&links)?;
    }
    let failed =
        |source| BackendError::Io { action: format!("start in {}", directory.root().display()), source };
    let confined = Confined { confinement, links: &links, boot };
    plan_confined(backend, attempt, environment, directory, confined).await.map_err(failed)
}

/// Whether the data still lie where they were found. A container's runtime mounts them, and Landlock's rules are made, as the service:
/// another script may have put a link on the way since.
fn leads_where_it_did(links: &[(String, String)]) -> Result<(), BackendError> {
    for (_, real) in links {
        let now = fs::canonicalize(real);
        let now = now.map_err(|source| BackendError::Io { action: format!("look at {real}"), source })?;
        if now != Path::new(real) {
            return Err(BackendError::Refused(format!(
                "the run's data were found in {real}, and by now there is a symbolic link on the way there"
            )));
        }
    }
    Ok(())
}

/// Whether the run's user gets to the folders that its data are links to; it has the rights that everybody has.
fn reaches_data(links: &[(String, String)]) -> Result<(), BackendError> {
    for (_, real) in links {
        let closed = confinement::why_closed(Path::new(real));
        let closed =
            closed.map_err(|source| BackendError::Io { action: format!("look at {real}"), source })?;
        if let Some(why) = closed {
            return Err(BackendError::Refused(format!(
                "the user of the run cannot reach its data in {real}: {why}. Let everybody read it, or use it as a download"
            )));
        }
    }
    Ok(())
}

/// What an attempt is kept within, and begun in.
struct Confined<'a> {
    confinement: Confinement,
    links: &'a [(String, String)],
    boot: &'a str,
}

async fn plan_confined(
    backend: &ProcessBackend,
    attempt: &Attempt,
    environment: &ActualEnvironment,
    directory: &AttemptDir,
    Confined { confinement, links, boot }: Confined<'_>,
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
    let data_dir = &backend.settings.data_dir;
    let python_site = script_module::place(data_dir)?;
    let (home, temporary) = (directory.home(), directory.temporary());
    let has_own_home = place.is_none() && backend.has_own_home();
    let own_places = has_own_home.then_some(OwnPlaces { home: &home, temporary: &temporary });
    if own_places.is_some() {
        layout::create_private_dir(&home)?;
        layout::create_private_dir(&temporary)?;
    }
    if confinement.user.is_some() {
        confinement::open_way(data_dir, &python_site)?;
    }
    let mpirun = match attempt.plan.launcher {
        Launcher::Single => None,
        Launcher::Mpi if place.is_some() => None,
        Launcher::Mpi => match environment::mpirun(&interpreter, variables) {
            Some(path) => Some((path.clone(), flavor(backend, &confinement, &path).await?)),
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
        data_links: links,
        python_site: &python_site,
        temporary_base: &temporary_base(),
        cancel_grace: backend.settings.cancel_grace,
        confinement,
        own_places,
        container: place,
        boot,
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

/// Asked by the run's own user: `mpirun` may be a file of the source tree, beside an interpreter in it.
async fn flavor(backend: &ProcessBackend, confinement: &Confinement, mpirun: &Path) -> io::Result<MpiFlavor> {
    let variables = backend.service_environment.iter();
    let program = Program {
        path: mpirun.to_owned(),
        arguments: vec!["--version".to_owned()],
        environment: variables.filter(|(name, _)| script_environment::is_inherited(name)).cloned().collect(),
    };
    let own = &backend.settings.supervisor;
    let said = confinement::output(own, confinement.clone(), program, VERSION_TIMEOUT).await?;
    Ok(MpiFlavor::of(&said.unwrap_or_default()))
}

/// A supervisor that was started, and waits for what it is told.
struct Beginning {
    listens: ChildStdin,
    /// Ends when the script runs, or never will.
    until_begun: ChildStdout,
    /// How it has ended.
    ended: oneshot::Receiver<ExitStatus>,
}

impl Beginning {
    /// Starts it apart from this service.
    fn spawn(own: &Path, directory: &AttemptDir) -> io::Result<Self> {
        let mut command = Command::new(own);
        command.arg("supervise").arg(directory.root());
        // It needs nothing of the service's environment, and whatever is in there could be read from outside.
        command.env_clear().stdin(Stdio::piped()).stdout(Stdio::piped());
        command.stderr(OwnedFd::from(layout::open_log(&directory.supervisor_log())?));
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (listens, until_begun) = pipes.ok_or_else(|| io::Error::other("it has no pipes"))?;
        let (sender, ended) = oneshot::channel();
        tokio::spawn(async move {
            if let Ok(status) = child.wait().await {
                // Nobody may be waiting any more: this task is there so that no zombie is.
                let _ = sender.send(status);
            }
        });
        Ok(Self { listens, until_begun, ended })
    }

    async fn tell(&mut self, word: u8) {
        // It may have ended, and how says more than that it did not listen.
        let _ = self.listens.write_all(&[word]).await;
    }

    /// Waits until the script runs or never will, or for so long that observing has to tell. Tells how the supervisor ended, if it
    /// did.
    async fn begins(mut self, directory: &AttemptDir) -> Option<ExitStatus> {
        let begins = async {
            // Nothing is ever written to it: however it ends, it is no more.
            let _ = self.until_begun.read_to_end(&mut Vec::new()).await;
            if directory.started().exists() || directory.exit().exists() {
                return None;
            }
            let status = self.ended.await.ok()?;
            if status.code() == Some(i32::from(HELD_BY_ANOTHER)) {
                // Another call was faster: its supervisor will get there.
                until_another_started(directory).await;
                return None;
            }
            Some(status)
        };
        timeout(START_TIMEOUT, begins).await.ok().flatten()
    }
}

/// Waits until the script runs that another call starts, or never will, or for so long that observing has to tell.
async fn until_another_started(directory: &AttemptDir) {
    let give_up = Instant::now() + START_TIMEOUT;
    while Instant::now() < give_up {
        if directory.started().exists() || directory.exit().exists() {
            return;
        }
        if directory.supervisor().exists() && !layout::is_locked(&directory.lock()).unwrap_or(true) {
            return;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// What a supervisor said last of why it did not start the script; if it could not say, how it ended.
fn why_not_started(said: &str, end: Option<ExitStatus>) -> String {
    match (said.lines().next_back(), end) {
        (Some(line), _) => line.to_owned(),
        (None, Some(status)) => format!("it ended before it started the script ({status})"),
        (None, None) => format!("it said nothing for {} s", START_TIMEOUT.as_secs()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_supervisor_that_did_not_start_the_script_is_explained() {
        let killed = Some(ExitStatus::from_raw(9));
        assert_eq!(why_not_started("one\nno such file\n", killed), "no such file");
        let silent = why_not_started("", killed);
        assert!(
            silent.starts_with("it ended before it started the script") && silent.contains("9"),
            "{silent}"
        );
        assert_eq!(why_not_started("", None), "it said nothing for 30 s");
    }
}
