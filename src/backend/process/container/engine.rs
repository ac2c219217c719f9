//! Finding a container runtime, and asking it.

use std::{
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::super::{LOOK_INTERVAL, environment::find_program, script_environment};
use crate::domain::{compute_target::Containers, container::ContainerRuntime};

/// A runtime that takes longer to say its version does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a removal may take until it counts as failed.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);

/// Variables that tell the programs of the runtimes where their service and their settings are.
const STEERING: [&str; 5] = ["DOCKER_", "CONTAINER_", "CONTAINERS_", "XDG_RUNTIME_DIR", "REGISTRY_AUTH_FILE"];

/// A container runtime that answers.
#[derive(Clone, Debug)]
pub(in super::super) struct Engine {
    pub(in super::super) runtime: ContainerRuntime,
    /// Its program, absolute.
    pub(in super::super) program: PathBuf,
    /// The whole environment that the program is started with.
    pub(in super::super) environment: Vec<(String, String)>,
}

impl Engine {
    /// The first runtime that answers, of those that the target admits; else what was found wrong.
    pub(in super::super) async fn find(
        containers: Containers,
        service_environment: &[(String, String)],
    ) -> Result<Self, String> {
        let runtimes: &[ContainerRuntime] = match containers {
            Containers::Auto => &[ContainerRuntime::Docker, ContainerRuntime::Podman],
            Containers::Docker => &[ContainerRuntime::Docker],
            Containers::Podman => &[ContainerRuntime::Podman],
            Containers::Never => return Err("the target says `\"containers\": \"never\"`".to_owned()),
        };
        let mut faults = Vec::new();
        for runtime in runtimes {
            match Self::of(*runtime, service_environment).await {
                Ok(engine) => return Ok(engine),
                Err(said) => faults.push(said),
            }
        }
        Err(faults.join("; "))
    }

    /// The runtime, if it answers; else what is wrong with it.
    pub(in super::super) async fn of(
        runtime: ContainerRuntime,
        service_environment: &[(String, String)],
    ) -> Result<Self, String> {
        let name = runtime.program();
        let program =
            find_program(name, service_environment).ok_or_else(|| format!("{name} is not on PATH"))?;
        let passed_on = |name: &str| {
            script_environment::is_inherited(name) || STEERING.iter().any(|start| name.starts_with(start))
        };
        let environment = service_environment.iter().filter(|(name, _)| passed_on(name)).cloned().collect();
        let engine = Self { runtime, program, environment };
        engine.answers().await.map_err(|said| format!("{name}: {said}"))?;
        Ok(engine)
    }

    async fn answers(&self) -> Result<(), String> {
        // The server's version: the program alone answers also where nothing can be run.
        let question = match self.runtime {
            ContainerRuntime::Docker => ["version", "--format", "{{.Server.Version}}"],
            ContainerRuntime::Podman => ["info", "--format", "{{.Version.Version}}"],
        };
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.command(&question).output()).await;
        match asked {
            Ok(Ok(output)) if output.status.success() => Ok(()),
            Ok(Ok(output)) => {
                let said = String::from_utf8_lossy(&output.stderr);
                Err(said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed").to_owned())
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        }
    }

    /// The program with arguments, and nothing of the service but where its own service is.
    pub(in super::super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

/// What it takes to find a container again and to end it. It is kept in the attempt's directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct ContainerControl {
    /// The runtime's program, absolute.
    pub(in super::super) program: PathBuf,
    /// The environment that it is started with.
    pub(in super::super) environment: Vec<(String, String)>,
    /// The container's name.
    pub(in super::super) name: String,
    /// Where the container writes how it went.
    pub(in super::super) records: PathBuf,
}

/// Why it cannot be said that a container is gone.
#[derive(Debug, thiserror::Error)]
#[error("{program} does not say that the container {name} is gone: {said}", program = program.display())]
pub(in super::super) struct NotGone {
    program: PathBuf,
    name: String,
    said: String,
}

impl ContainerControl {
    /// Kills and removes the container and makes sure that it is gone; says whether there was one.
    ///
    /// # Errors
    /// When the runtime does not answer, or cannot end it.
    pub(in super::super) fn end(&self) -> Result<bool, NotGone> {
        let was_there = self.exists()?;
        if was_there {
            // What it says does not count: whether the container is there afterwards does.
            let removed = self.run(&["rm", "--force", &self.name]);
            // A removal that began before is still under way.
            let give_up = Instant::now() + REMOVAL_TIMEOUT;
            let mut is_there = self.exists()?;
            while is_there && Instant::now() < give_up {
                std::thread::sleep(LOOK_INTERVAL);
                is_there = self.exists()?;
            }
            if is_there {
                let said = match removed {
                    Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
                    Err(error) => error.to_string(),
                };
                return Err(self.not_gone(said));
            }
        }
        Ok(was_there)
    }

    fn exists(&self) -> Result<bool, NotGone> {
        let filter = format!("name=^/?{}$", self.name);
        let output = self
            .run(&["ps", "--all", "--quiet", "--filter", &filter])
            .map_err(|error| self.not_gone(error.to_string()))?;
        if !output.status.success() {
            return Err(self.not_gone(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        Ok(output.stdout.iter().any(|byte| !byte.is_ascii_whitespace()))
    }

    fn not_gone(&self, said: String) -> NotGone {
        NotGone { program: self.program.clone(), name: self.name.clone(), said }
    }

    fn run(&self, arguments: &[&str]) -> std::io::Result<std::process::Output> {
        let mut command = std::process::Command::new(&self.program);
        command.args(arguments).env_clear().envs(self.environment.iter().cloned());
        command.stdin(Stdio::null()).output()
    }
}
