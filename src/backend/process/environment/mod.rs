//! The interpreter and packages of an attempt: built once with uv and kept, or the user's own.

mod account;
pub(super) mod build;
mod builder;
mod conda;
mod evict;
mod inside;
mod interpreters;
mod kept;
mod managed;
mod requirements;
mod resolution;
mod site;
mod substitutions;
mod user_managed;
mod uv;
mod wanted;
mod workshop;

pub(super) use self::{
    build::{BuildLog, CommandError},
    interpreters::Known as KnownInterpreters,
    user_managed::mpirun,
    uv::lock,
    workshop::own_pythons,
};

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use self::inside::Inside;
use super::{
    super::{ActualEnvironment, Attempt, BuiltEnvironment, PrepareError},
    ProcessBackend, Settings, confinement,
    container::{self, Choice},
    layout::{self, AttemptDir, BUILD_LOG},
};
use crate::domain::environment::EnvironmentKind;

/// Makes the environment of an attempt whose source tree is in place.
pub(super) async fn prepare(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
) -> Result<ActualEnvironment, PrepareError> {
    let refuse = |message: String| PrepareError::EnvironmentBuild { message };
    let choice = container::choose(attempt, &backend.service_environment).await.map_err(refuse)?;
    let is_managed = attempt.plan.environment.kind == EnvironmentKind::Managed;
    // Where nothing is pulled or built there is no log of it.
    let log_path = match choice {
        Choice::Machine { .. } if !is_managed => PathBuf::from("/dev/null"),
        _ => directory.logs().join(BUILD_LOG),
    };
    let mut log =
        BuildLog::open(&log_path).map_err(|source| PrepareError::Io { path: log_path.clone(), source })?;
    if let Some(login) = &attempt.registry {
        // Runtimes have no business to repeat it, and it is not theirs to decide.
        log.hide(&login.password);
    }
    let result = match choice {
        Choice::Container { engine, is_required } => {
            in_image(backend, attempt, directory, &engine, is_required, &mut log).await
        }
        Choice::Machine { instead_because } => {
            on_machine(backend, attempt, directory, instead_because.as_deref(), &mut log).await
        }
    };
    let opened = result.and_then(|actual| {
        open_to_users(backend, &actual)?;
        Ok(actual)
    });
    opened.map_err(|error| explain(error, &mut log, backend))
}

/// What uv leaves in an environment, writable by everybody.
const UV_LOCK: &str = ".lock";

/// Where runs have users of their own, these must get to what was built; or it is said what is in the way.
fn open_to_users(backend: &ProcessBackend, actual: &ActualEnvironment) -> Result<(), CommandError> {
    if backend.settings.isolation.users.is_none() || actual.container.is_some() {
        return Ok(());
    }
    let Some((built, root)) = actual.built_root().and_then(|built| Some((built, built.parent()?))) else {
        return Ok(());
    };
    let interpreter = Path::new(&actual.interpreter);
    let data_dir = &backend.settings.data_dir;
    // A package may have put a link in the place of what was built: nothing is opened that it leads to.
    let real = fs::canonicalize(interpreter)?;
    let whole = fs::canonicalize(root)?;
    let (own_data, tools) = (fs::canonicalize(data_dir)?, data_dir.join("tools"));
    let is_own =
        real.starts_with(&whole) || fs::canonicalize(tools).is_ok_and(|tools| real.starts_with(tools));
    if fs::canonicalize(built)?.parent() != Some(&*whole) || (real.starts_with(&own_data) && !is_own) {
        let said = format!("the interpreter of the environment, {}, leads out of it", interpreter.display());
        return Err(CommandError::Failed(said));
    }
    confinement::open_to_all(root)?;
    confinement::close_to_others(&built.join(UV_LOCK))?;
    confinement::open_way(data_dir, interpreter)?;
    confinement::open_way(data_dir, &real)?;
    match confinement::why_closed(interpreter)? {
        None => Ok(()),
        Some(why) => Err(CommandError::Failed(format!(
            "the user of the run cannot reach the interpreter of its environment, {}: {why}",
            interpreter.display()
        ))),
    }
}

fn explain(error: CommandError, log: &mut BuildLog, backend: &ProcessBackend) -> PrepareError {
    let message = match error {
        CommandError::Failed(message) => log.masked(&message),
        CommandError::TimedOut => {
            format!("not finished after {} s: stopped", backend.settings.build_timeout.as_secs())
        }
        CommandError::Io(source) => {
            return PrepareError::Io { path: layout::environments(&backend.settings.data_dir), source };
        }
    };
    // The message is returned in any case.
    let _ = log.line(&format!("The environment could not be built: {message}"));
    PrepareError::EnvironmentBuild { message }
}

async fn in_image(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    engine: &container::Engine,
    is_required: bool,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
    let inside = match Inside::have(backend, attempt, directory, engine, log).await {
        Ok(inside) => inside,
        Err(CommandError::Failed(said)) if !is_required => {
            log.line("The documented image is not to be had: this machine stands in for it.")?;
            let because = format!("the image is not to be had: {said}");
            return on_machine(backend, attempt, directory, Some(&because), log).await;
        }
        Err(error) => return Err(error),
    };
    match attempt.plan.environment.kind {
        EnvironmentKind::UserManaged => inside.user_managed(attempt).await,
        EnvironmentKind::Managed => {
            managed::prepare(backend, attempt, directory, Some(&inside), Vec::new(), log).await
        }
    }
}

async fn on_machine(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    instead_because: Option<&str>,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
    let environment = &attempt.plan.environment;
    let instead = instead_because
        .map_or_else(Vec::new, |because| substitutions::without_container(environment, because));
    match environment.kind {
        EnvironmentKind::UserManaged => user_managed::prepare(backend, attempt, directory, instead).await,
        EnvironmentKind::Managed => managed::prepare(backend, attempt, directory, None, instead, log).await,
    }
}

/// Removes environments over the limit that nobody uses, and answers which are kept.
pub(super) async fn tidy(settings: &Settings) -> io::Result<Vec<BuiltEnvironment>> {
    let (data_dir, limit) = (settings.data_dir.clone(), settings.max_environments_bytes);
    tokio::task::spawn_blocking(move || evict::tidy(&data_dir, limit)).await.map_err(io::Error::other)?
}

/// The SHA-256 of some content, in hexadecimal digits.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The first program of that name on `PATH`.
pub(in crate::backend) fn find_program(name: &str, environment: &[(String, String)]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str())?;
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}
