//! The interpreter and packages of an attempt: built once with uv and kept, or the user's own.

pub(super) mod build;
mod builder;
mod conda;
mod contained;
mod evict;
mod interpreters;
mod kept;
mod requirements;
mod resolution;
mod site;
mod substitutions;
mod user_managed;
mod uv;
mod wanted;

pub(super) use self::{
    build::{BuildLog, CommandError},
    interpreters::Known as KnownInterpreters,
    user_managed::mpirun,
    uv::lock,
};

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use self::{
    builder::{Builder, installer_environment},
    kept::Complete,
    resolution::Memory,
    site::Site,
    wanted::Wanted,
};
use super::{
    super::{ActualEnvironment, Attempt, BuiltEnvironment, PrepareError},
    ProcessBackend, Settings, container,
    layout::{self, AttemptDir, BUILD_LOG},
};
use crate::domain::{self, environment::EnvironmentKind, plan::Launcher};

/// Makes the environment of an attempt whose source tree is in place.
pub(super) async fn prepare(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
) -> Result<ActualEnvironment, PrepareError> {
    let refuse = |message: String| PrepareError::EnvironmentBuild { message };
    let engine = container::engine(attempt, &backend.service_environment).await.map_err(refuse)?;
    if engine.is_none() && attempt.plan.environment.kind == EnvironmentKind::UserManaged {
        return user_managed::prepare(backend, attempt, directory).await;
    }
    let log_path = directory.logs().join(BUILD_LOG);
    let mut log =
        BuildLog::open(&log_path).map_err(|source| PrepareError::Io { path: log_path.clone(), source })?;
    let result = match &engine {
        Some(engine) => contained::prepare(backend, attempt, directory, engine, &mut log).await,
        None => managed(backend, attempt, directory, &mut log).await,
    };
    result.map_err(|error| explain(error, &mut log, backend))
}

fn explain(error: CommandError, log: &mut BuildLog, backend: &ProcessBackend) -> PrepareError {
    let message = match error {
        CommandError::Failed(message) => message,
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

async fn managed(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
    let environment = &attempt.plan.environment;
    let file = environment.pip_origins.file.as_deref();
    let listed = substitutions::listed(environment);
    let found = requirements::inspect(&directory.work(), listed, file).map_err(CommandError::Failed)?;
    let asks = substitutions::resolve(environment, &found, attempt.plan.launcher == Launcher::Mpi);
    // One of its own for each build: installers leave locks and the like in there, and all of it goes in the end.
    let temporary = tempfile::tempdir_in(layout::scratch(&backend.settings.data_dir)?)?;
    let mut builder = Builder {
        settings: &backend.settings,
        variables: installer_environment(&backend.service_environment, temporary.path()),
        known: &backend.interpreters,
        present: Vec::new(),
        deadline: build::deadline(backend.settings.build_timeout),
    };
    if domain::conda::is_needed(environment) {
        return conda::prepare(attempt, directory, &builder, asks, found, log).await;
    }
    let (python, python_substitution) =
        builder.interpreter(environment.python_version.as_deref(), asks.chainer, log).await?;
    let wanted = Wanted { asks, found, python, source: directory.work() };
    let snapshot = attempt.plan.snapshot_id.as_str();
    let (site, complete, reused) =
        ensure(&wanted, &builder, directory, snapshot, temporary.path(), log).await?;
    let substitutions = substitutions::with_installed(wanted.asks.substitutions, &complete.packages);
    Ok(ActualEnvironment {
        kind: complete.kind,
        interpreter: site.interpreter().to_string_lossy().into_owned(),
        python_version: complete.python_version,
        packages: complete.packages,
        substitutions: python_substitution.into_iter().chain(substitutions).collect(),
        build_key: Some(site.key().to_owned()),
        reused,
        container: None,
    })
}

/// Reuses what an identical request led to, else resolves it, and builds what that leads to if nobody did before.
async fn ensure(
    wanted: &Wanted,
    builder: &Builder<'_>,
    directory: &AttemptDir,
    snapshot: &str,
    temporary: &Path,
    log: &mut BuildLog,
) -> Result<(Site, Complete, bool), CommandError> {
    let environments = layout::environments(&builder.settings.data_dir);
    layout::create_private_dir(&environments)?;
    let memory = Memory::new(&environments, resolution::request_key(wanted, &builder.variables, snapshot));
    let site = |key: String| Site::new(&environments, key, directory.clone());
    let deadline = builder.deadline;
    if let Some(known) = memory.recall().map(site)
        && let Some(complete) = known.reuse(deadline, log).await?
    {
        return Ok((known, complete, true));
    }
    // Held until the environment is there: who asks for the same meanwhile asks no index, and builds nothing.
    let mut waited = false;
    let held = uv::lock(&memory.lock_path(), deadline, || {
        waited = true;
        log.line("Another run is building this environment: waiting for it.")
    })
    .await?;
    if let Some(known) = memory.recall().map(site)
        && let Some(complete) = known.reuse(deadline, log).await?
    {
        if waited {
            known.repeat_log(log)?;
        }
        return Ok((known, complete, true));
    }
    let resolving = temporary.join("resolving");
    layout::create_private_dir(&resolving)?;
    let lock = resolution::resolve(wanted, builder, &resolving, &held, log).await?;
    let site = site(lock.key(wanted, snapshot));
    let (complete, reused) = site.ensure(wanted, &lock, builder, log).await?;
    memory.keep(site.key())?;
    Ok((site, complete, reused))
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
pub(super) fn find_program(name: &str, environment: &[(String, String)]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str())?;
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}
