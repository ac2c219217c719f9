//! The interpreter and packages of an attempt that runs in a container.

use tokio::process::Command;

use super::{
    super::{
        super::{ActualEnvironment, Attempt},
        ProcessBackend,
        container::{self, Engine, Having, Image},
        launch,
        layout::{self, AttemptDir},
    },
    BuildLog, CommandError, build,
    interpreters::{Interpreter, QUERY},
};
use crate::domain::{
    container::{Mount, Tool, tool_arguments},
    environment::{ActualContainer, EnvironmentKind},
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

pub(super) async fn prepare(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    engine: &Engine,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
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
    let environment = &attempt.plan.environment;
    let image = container::ensure(environment, &having, log).await?;
    let inside = Inside {
        engine,
        image: &image,
        name: format!("{}-look", container::name(attempt)),
        mounts: vec![Mount::same(launch::text(&directory.work()), true)],
        work: launch::text(&directory.work()),
    };
    match environment.kind {
        EnvironmentKind::UserManaged => user_managed(attempt, &inside, &having).await,
        // Such a run is refused when it is created.
        EnvironmentKind::Managed => Err(CommandError::Failed(
            "this version builds no environment in an image: set user_managed to true and use what the image has, or \
             leave the image out"
                .to_owned(),
        )),
    }
}

/// An image that can be looked into.
struct Inside<'a> {
    engine: &'a Engine,
    image: &'a Image,
    name: String,
    mounts: Vec<Mount>,
    work: String,
}

impl Inside<'_> {
    /// Runs a shell script in the image and answers what it printed.
    async fn ask(&self, having: &Having<'_>, script: &str, words: &[&str]) -> Result<String, CommandError> {
        let tool = Tool {
            name: &self.name,
            label: "estimatord.tool=look",
            image: &self.image.id,
            user: container::user(self.engine.runtime),
            mounts: &self.mounts,
            variables: &[],
            working_directory: &self.work,
        };
        let mut command: Command = self.engine.command(&[]);
        command.args(tool_arguments(&tool, "/bin/sh")).args(["-c", script, "sh"]).args(words);
        let output = tokio::time::timeout_at(having.deadline, command.output())
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
        having: &Having<'_>,
        words: &[&str],
    ) -> Result<Vec<(String, Interpreter)>, CommandError> {
        let arguments: Vec<&str> = std::iter::once(QUERY).chain(words.iter().copied()).collect();
        let said = self.ask(having, PROBE, &arguments).await?;
        let lines: Vec<&str> = said.lines().collect();
        let pairs = lines.as_chunks::<2>().0.iter();
        // What does not answer in JSON is no interpreter.
        Ok(pairs
            .filter_map(|[path, said]| Some(((*path).to_owned(), serde_json::from_str(said).ok()?)))
            .collect())
    }

    fn actual(&self) -> ActualContainer {
        ActualContainer {
            runtime: self.engine.runtime,
            image: self.image.name.clone(),
            image_id: self.image.id.clone(),
        }
    }
}

/// Nothing is built: the image's interpreter runs the script.
async fn user_managed(
    attempt: &Attempt,
    inside: &Inside<'_>,
    having: &Having<'_>,
) -> Result<ActualEnvironment, CommandError> {
    let named = attempt.plan.environment.interpreter_path.as_deref();
    let words = named.map_or(vec!["python", "python3"], |named| vec![named]);
    let found = inside.interpreters(having, &words).await?;
    let Some((path, interpreter)) = found.into_iter().next() else {
        return Err(CommandError::Failed(format!(
            "the image {} has no interpreter {}: name one that it has in python.interpreter_path",
            inside.image.name,
            words.join(" or ")
        )));
    };
    if attempt.plan.launcher == Launcher::Mpi {
        let missing = inside.ask(having, MPI_PROBE, &[&path]).await?;
        if !missing.trim().is_empty() {
            return Err(CommandError::Failed(format!(
                "the definition starts MPI ranks in the image {}: {}. Put an MPI and mpi4py into the image, or let the \
                 service manage the environment (user_managed false)",
                inside.image.name,
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
        container: Some(inside.actual()),
    })
}
