//! Having an image: found, pulled, or built of a definition's own Dockerfile.

use std::{fs, path::Path};

use tokio::{process::Command, time::Instant};

use super::{credentials::Login, engine::Engine};
use crate::{
    backend::{
        RegistryLogin,
        process::environment::{BuildLog, CommandError, build, digest, lock},
    },
    domain::{
        container::{pull_name, registry_of},
        environment::Environment,
    },
};

/// An image that is on the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Image {
    /// The name that it was pulled or built by.
    pub(in super::super) name: String,
    /// Its content: `sha256:…`.
    pub(in super::super) id: String,
}

/// What it takes to have an image.
pub(in super::super) struct Having<'a> {
    pub(in super::super) engine: &'a Engine,
    /// Our own executable, the credential helper.
    pub(in super::super) own_binary: &'a Path,
    /// Where locks are.
    pub(in super::super) locks: &'a Path,
    /// Where a Dockerfile can be put.
    pub(in super::super) scratch: &'a Path,
    pub(in super::super) login: Option<&'a RegistryLogin>,
    pub(in super::super) deadline: Instant,
}

/// Makes sure that the image of an environment is on the machine: one pull or build at a time for each.
pub(in super::super) async fn ensure(
    environment: &Environment,
    having: &Having<'_>,
    log: &mut BuildLog,
) -> Result<Image, CommandError> {
    let details = &environment.container;
    let (name, dockerfile) = match (&details.base_dockerfile, &environment.image) {
        (Some(text), _) => {
            (format!("localhost/estimatord-base:{}", &digest(text.as_bytes())[..32]), Some(text))
        }
        (None, Some(image)) => (pull_name(image, details.registry_address.as_deref()), None),
        (None, None) => {
            return Err(CommandError::Failed(
                "the definition asks for a container and names no image: name one in docker.base_image, or set \
                 docker.enabled to false"
                    .to_owned(),
            ));
        }
    };
    let path = having.locks.join(format!("image-{}.lock", &digest(name.as_bytes())[..32]));
    let lock =
        lock(&path, having.deadline, || log.line("Another run gets this image: waiting for it.")).await?;
    let there = inspect(having, &name).await?;
    let id = match (there, dockerfile) {
        // A built image is named by its Dockerfile's content.
        (Some(id), Some(_)) => id,
        (Some(id), None) if !may_change(&name) => id,
        (there, _) => {
            let got = match dockerfile {
                Some(text) => build_image(having, &name, text, &lock, log).await,
                None => pull(having, &name, &lock, log).await,
            };
            match (got, there) {
                (Ok(()), _) => inspect(having, &name).await?.ok_or_else(|| vanished(&name))?,
                (Err(CommandError::Failed(said)), Some(id)) => {
                    log.line(&format!("{name} could not be pulled ({said}); the one that is here is used."))?;
                    id
                }
                (Err(error), _) => return Err(error),
            }
        }
    };
    log.line(&format!("Image {name}: {id}"))?;
    Ok(Image { name, id })
}

fn vanished(name: &str) -> CommandError {
    CommandError::Failed(format!("the image {name} is not there although it was pulled or built"))
}

/// Whether another image may have this name tomorrow without anybody having said so: no tag, or `latest`. What has a digest
/// or a tag of its own is used as it lies here.
fn may_change(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    !last.contains('@') && last.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

async fn inspect(having: &Having<'_>, name: &str) -> Result<Option<String>, CommandError> {
    let mut command = having.engine.command(&["image", "inspect", "--format", "{{.Id}}", name]);
    let output = tokio::time::timeout_at(having.deadline, command.output())
        .await
        .map_err(|_| CommandError::TimedOut)??;
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    // Docker says `sha256:…`, Podman the digits alone.
    let id = if id.starts_with("sha256:") { id } else { format!("sha256:{id}") };
    Ok(output.status.success().then_some(id))
}

/// Runs a command that may have to get at a private registry. The login lives as long as the command.
async fn run_with_login(
    having: &Having<'_>,
    mut command: Command,
    image: Option<&str>,
    lock: &fs::File,
    log: &mut BuildLog,
) -> Result<(), CommandError> {
    let usual = &having.engine.environment;
    let login = match (image, having.login) {
        (Some(image), Some(login)) => Some(Login::new(having.own_binary, registry_of(image), login, usual)?),
        _ => None,
    };
    if let Some(login) = &login {
        command.envs(login.environment(usual));
    }
    build::run(command, lock, log, having.deadline).await.map(|_| ())
}

async fn pull(
    having: &Having<'_>,
    name: &str,
    lock: &fs::File,
    log: &mut BuildLog,
) -> Result<(), CommandError> {
    log.line(&format!("Pulling {name} with {}.", having.engine.runtime.program()))?;
    run_with_login(having, having.engine.command(&["pull", name]), Some(name), lock, log).await
}

async fn build_image(
    having: &Having<'_>,
    name: &str,
    dockerfile: &str,
    lock: &fs::File,
    log: &mut BuildLog,
) -> Result<(), CommandError> {
    log.line(&format!("Building {name} of the definition's own Dockerfile."))?;
    // A directory of its own: what lies in it is sent to the runtime.
    let context = tempfile::tempdir_in(having.scratch)?;
    let file = context.path().join("Dockerfile");
    fs::write(&file, dockerfile)?;
    let mut command = having.engine.command(&["build", "--network", "host", "--tag", name, "--file"]);
    command.arg(&file).arg(context.path());
    run_with_login(having, command, base_of(dockerfile), lock, log).await
}

/// The image that a Dockerfile starts from, for its registry.
fn base_of(dockerfile: &str) -> Option<&str> {
    dockerfile.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let is_from = words.next()?.eq_ignore_ascii_case("FROM");
        words.find(|word| !word.starts_with("--")).filter(|_| is_from)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_without_a_tag_of_their_own_change() {
        for name in ["a", "r:5000/a", "r/a:latest"] {
            assert!(may_change(name), "{name}");
        }
        for name in ["a:1", "r:5000/a:1", "a@sha256:00", "r/a:latest@sha256:00"] {
            assert!(!may_change(name), "{name}");
        }
    }

    #[test]
    fn the_base_of_a_dockerfile_is_found() {
        let text = "# syntax\nARG X\nfrom --platform=linux/amd64 r:5000/base:1 AS b\nFROM other\n";
        assert_eq!(base_of(text), Some("r:5000/base:1"));
        assert_eq!(base_of("RUN x"), None);
    }
}
