//! The interpreter and packages of an attempt: built once with uv and kept, or the user's own.

pub(super) mod build;
mod builder;
mod contained;
mod interpreters;
mod requirements;
mod site;
mod substitutions;
mod user_managed;
mod uv;

pub(super) use self::{
    build::{BuildLog, CommandError},
    user_managed::mpirun,
    uv::lock,
};

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::{
    builder::{Builder, installer_environment},
    interpreters::Interpreter,
    requirements::Found,
    site::Site,
    substitutions::Asks,
};
use super::{
    super::{ActualEnvironment, Attempt, PrepareError},
    ProcessBackend, container,
    layout::{self, AttemptDir, BUILD_LOG},
};
use crate::domain::{environment::EnvironmentKind, plan::Launcher};

/// Changes when environments are built differently, so that none of the old ones is taken for a new one.
const RECIPE: u32 = 2;

/// Everything that makes one environment differ from another.
#[derive(Debug, Serialize)]
struct Key<'a> {
    recipe: u32,
    requirements: &'a [String],
    constraints: &'a [String],
    overrides: &'a [String],
    arguments: &'a [String],
    build_options: &'a BTreeSet<String>,
    /// The definition's own file, and all that is included, by their names.
    file: Option<&'a str>,
    files: &'a BTreeMap<String, String>,
    python: &'a Interpreter,
    platform: [&'a str; 2],
    /// Set when requirements come out of the source tree.
    snapshot: Option<&'a str>,
}

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
            return PrepareError::Io { path: backend.settings.data_dir.join("environments"), source };
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
    let asks = substitutions::resolve(environment, &found, attempt.plan.launcher == Launcher::Mpi)
        .map_err(CommandError::Failed)?;
    // One of its own for each build: installers leave locks and the like in there, and all of it goes in the end.
    let temporary = tempfile::tempdir_in(layout::scratch(&backend.settings.data_dir)?)?;
    let mut builder = Builder {
        settings: &backend.settings,
        variables: installer_environment(&backend.service_environment, temporary.path()),
        present: Vec::new(),
        deadline: build::deadline(backend.settings.build_timeout),
    };
    let (python, python_substitution) =
        builder.interpreter(environment.python_version.as_deref(), asks.chainer, log).await?;
    let key = key(&asks, &found, &python, attempt.plan.snapshot_id.as_str());
    let root = backend.settings.data_dir.join("environments").join(&key);
    let site = Site { root, source: directory.work(), builder };
    let (complete, reused) = site.ensure(&asks, &found, &python, log).await?;
    let substitutions = substitutions::with_installed(asks.substitutions, &complete.packages);
    Ok(ActualEnvironment {
        kind: "virtual_environment".to_owned(),
        interpreter: site.interpreter().to_string_lossy().into_owned(),
        python_version: complete.python_version,
        packages: complete.packages,
        substitutions: python_substitution.into_iter().chain(substitutions).collect(),
        build_key: Some(key),
        reused,
        container: None,
    })
}

fn key(asks: &Asks, found: &Found, python: &Interpreter, snapshot: &str) -> String {
    let key = Key {
        recipe: RECIPE,
        requirements: &asks.requirements,
        constraints: &asks.constraints,
        overrides: &asks.overrides,
        arguments: &found.arguments,
        build_options: &found.build_options,
        file: asks.file.as_deref(),
        files: &found.files,
        python,
        platform: [std::env::consts::OS, std::env::consts::ARCH],
        snapshot: found.local.then_some(snapshot),
    };
    // A struct of texts and numbers always serialises.
    let json = serde_json::to_vec(&key).unwrap_or_default();
    digest(&json)
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
