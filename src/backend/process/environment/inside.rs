//! An image, looked into: which interpreters it has, and which C library.

use std::path::{Path, PathBuf};

use tokio::{process::Command, time::Instant};

use super::{
    super::{
        super::{ActualEnvironment, Attempt, Substitution},
        ProcessBackend,
        container::{self, Engine, Having, Image},
        files, launch,
        layout::{self, AttemptDir},
    },
    BuildLog, CommandError, build,
    builder::Builder,
    interpreters::{self, Interpreter, QUERY},
    workshop::own_pythons,
};
use crate::domain::{
    container::{Mount, Tool, tool_arguments},
    environment::ActualContainer,
    plan::Launcher,
};

/// Prints, for each word that names an interpreter, where it is and what it says of itself.
const PROBE: &str = r#"question=$1
shift
for word do
    if path=$(command -v "$word") && said=$("$path" -I -c "$question"); then
        printf '%s\n%s\n' "$path" "$said"
    fi
done
exit 0"#;

/// Says what is missing for MPI ranks.
const MPI_PROBE: &str = r#"command -v mpirun >/dev/null || { echo "it has no mpirun"; exit 0; }
"$1" -c "import mpi4py" || echo "$1 in it has no mpi4py""#;

/// An image that can be looked into.
pub(super) struct Inside<'a> {
    pub(super) engine: &'a Engine,
    pub(super) image: Image,
    name: String,
    mounts: Vec<Mount>,
    work: String,
    /// Where the service keeps interpreters of its own.
    pythons: PathBuf,
    deadline: Instant,
}

impl<'a> Inside<'a> {
    /// Makes sure that the image of an attempt is there.
    pub(super) async fn have(
        backend: &ProcessBackend,
        attempt: &Attempt,
        directory: &AttemptDir,
        engine: &'a Engine,
        log: &mut BuildLog,
    ) -> Result<Self, CommandError> {
        let data_dir = &backend.settings.data_dir;
        let (locks, scratch) = (layout::environments(data_dir), layout::scratch(data_dir)?);
        layout::create_private_dir(&locks)?;
        let having = Having {
            engine,
            own_binary: &backend.settings.supervisor,
            locks: &locks,
            scratch: &scratch,
            login: attempt.registry.as_ref(),
            deadline: build::deadline(backend.settings.build_timeout),
        };
        Ok(Self {
            engine,
            image: container::ensure(&attempt.plan.environment, &having, log).await?,
            name: format!("{}-look", container::name(attempt)),
            mounts: vec![Mount::same(launch::text(&directory.work()), true)],
            work: launch::text(&directory.work()),
            pythons: own_pythons(data_dir),
            deadline: having.deadline,
        })
    }

    /// Runs a shell script in the image and answers what it printed.
    async fn ask(&self, script: &str, words: &[&str], more: &[Mount]) -> Result<String, CommandError> {
        let mounts: Vec<Mount> = self.mounts.iter().chain(more).cloned().collect();
        let tool = Tool {
            name: &self.name,
            label: "estimatord.tool=look",
            image: &self.image.id,
            user: container::user(self.engine.runtime),
            mounts: &mounts,
            variables: &[],
            working_directory: &self.work,
        };
        let mut command: Command = self.engine.command(&[]);
        command.args(tool_arguments(&tool, "/bin/sh")).args(["-c", script, "sh"]).args(words);
        let output = tokio::time::timeout_at(self.deadline, command.output())
            .await
            .map_err(|_| CommandError::TimedOut)??;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = build::meaningful(&String::from_utf8_lossy(&output.stderr));
        Err(CommandError::Failed(format!("nothing can be run in the image {}: {said}", self.image.name)))
    }

    /// The interpreters that the words name, with the paths that they are found at.
    async fn interpreters(
        &self,
        words: &[&str],
        more: &[Mount],
    ) -> Result<Vec<(String, Interpreter)>, CommandError> {
        let arguments: Vec<&str> = std::iter::once(QUERY).chain(words.iter().copied()).collect();
        let said = self.ask(PROBE, &arguments, more).await?;
        let lines: Vec<&str> = said.lines().collect();
        let pairs = lines.as_chunks::<2>().0.iter();
        // What does not answer in JSON is no interpreter.
        Ok(pairs
            .filter_map(|[path, said]| Some(((*path).to_owned(), serde_json::from_str(said).ok()?)))
            .collect())
    }

    /// What an interpreter that was made for the image, below `root`, says of itself.
    pub(super) async fn query(&self, interpreter: &Path, root: &Path) -> Result<Interpreter, CommandError> {
        let path = launch::text(interpreter);
        let found = self.interpreters(&[&path], &[Mount::same(launch::text(root), true)]).await?;
        let first = found.into_iter().next();
        first.map(|(_, interpreter)| interpreter).ok_or_else(|| {
            CommandError::Failed(format!("{path} does not run in the image {}", self.image.name))
        })
    }

    /// The interpreter to build with: one that the image has, else one that the service has or gets.
    pub(super) async fn interpreter(
        &self,
        builder: &Builder<'_>,
        asked: Option<&str>,
        chainer: bool,
        log: &mut BuildLog,
    ) -> Result<(Interpreter, Option<Substitution>), CommandError> {
        let place = format!("in the image {}", self.image.name);
        let names: Vec<String> = ["python3".to_owned(), "python".to_owned()]
            .into_iter()
            .chain((8..=20).map(|minor| format!("python3.{minor}")))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut present: Vec<Interpreter> = Vec::new();
        present.extend(self.interpreters(&names, &[]).await?.into_iter().map(|(_, found)| found));
        if let Ok(chosen) = interpreters::choose(asked, chainer, &present, &place) {
            return Ok(chosen);
        }
        // Those that uv gets bring all that they need with them but a C library, and not a new one.
        present.extend(self.of_service().await?);
        let none = match interpreters::choose(asked, chainer, &present, &place) {
            Ok(chosen) => return Ok(chosen),
            Err(none) => none,
        };
        builder.get_interpreter(&none, log).await?;
        present.extend(self.of_service().await?);
        interpreters::choose(asked, chainer, &present, &place).map_err(CommandError::Failed)
    }

    /// The interpreters of the service itself that run in the image.
    async fn of_service(&self) -> Result<Vec<Interpreter>, CommandError> {
        if !self.pythons.is_dir() {
            return Ok(Vec::new());
        }
        let paths: Vec<String> = files::entries(&self.pythons)?
            .into_iter()
            .map(|entry| launch::text(&entry.path().join("bin/python3")))
            .collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let mounted = [Mount::same(launch::text(&self.pythons), true)];
        Ok(self.interpreters(&paths, &mounted).await?.into_iter().map(|(_, found)| found).collect())
    }

    /// The image's C library, where it is glibc.
    pub(super) async fn glibc(&self) -> Result<Option<String>, CommandError> {
        let said = self.ask("getconf GNU_LIBC_VERSION 2>/dev/null; exit 0", &[], &[]).await?;
        Ok(said.trim().strip_prefix("glibc ").map(str::to_owned))
    }

    pub(super) fn actual(&self) -> ActualContainer {
        ActualContainer {
            runtime: self.engine.runtime,
            image: self.image.name.clone(),
            image_id: self.image.id.clone(),
        }
    }

    /// Nothing is built: the image's interpreter runs the script.
    pub(super) async fn user_managed(&self, attempt: &Attempt) -> Result<ActualEnvironment, CommandError> {
        let named = attempt.plan.environment.interpreter_path.as_deref();
        let words = named.map_or(vec!["python", "python3"], |named| vec![named]);
        let found = self.interpreters(&words, &[]).await?;
        let Some((path, interpreter)) = found.into_iter().next() else {
            return Err(CommandError::Failed(format!(
                "the image {} has no interpreter {}: name one that it has in python.interpreter_path",
                self.image.name,
                words.join(" or ")
            )));
        };
        if attempt.plan.launcher == Launcher::Mpi {
            let missing = self.ask(MPI_PROBE, &[&path], &[]).await?;
            if !missing.trim().is_empty() {
                return Err(CommandError::Failed(format!(
                    "the definition starts MPI ranks in the image {}: {}. Put an MPI and mpi4py into the image, or let \
                     the service manage the environment (user_managed false)",
                    self.image.name,
                    missing.trim()
                )));
            }
        }
        Ok(ActualEnvironment {
            kind: "user_managed".to_owned(),
            interpreter: path,
            python_version: interpreter.version_text(),
            packages: Vec::new(),
            substitutions: Vec::new(),
            build_key: None,
            reused: false,
            container: Some(self.actual()),
            image: None,
        })
    }
}
