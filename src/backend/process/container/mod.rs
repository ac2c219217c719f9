//! Containers on the worker's own machine, started through the command line of Docker or Podman.

pub(super) mod contained;
mod credentials;
mod engine;
mod image;

use std::path::PathBuf;

use super::{super::Attempt, layout::AttemptDir};
use crate::domain::{
    compute_target::Containers,
    container::{ContainerRuntime, check_arguments},
    environment::Environment,
    framework::{BASE_IMAGE_CPU, BASE_IMAGE_GPU},
};

pub use self::credentials::{HELPER, credential_helper};
pub(super) use self::{
    engine::{ContainerControl, Engine},
    image::{Having, Image, ensure},
};

/// Where an attempt runs.
pub(super) enum Choice {
    /// In a container, started by this runtime.
    Container {
        engine: Engine,
        /// Whether it can run nowhere else. The documented base images have nothing in them but an MPI and a miniconda,
        /// which the machine itself can stand in for where the target does not promise containers.
        is_required: bool,
    },
    /// Without one, and why there is none where one was asked for.
    Machine { instead_because: Option<String> },
}

/// Decides where an attempt runs.
///
/// # Errors
/// When the definition cannot do without a container, or the target promises a runtime, and none answers.
pub(super) async fn choose(
    attempt: &Attempt,
    service_environment: &[(String, String)],
) -> Result<Choice, String> {
    let environment = &attempt.plan.environment;
    if !environment.docker {
        return Ok(Choice::Machine { instead_because: None });
    }
    check_arguments(&environment.container.arguments).map_err(|stray| stray.to_string())?;
    let containers = attempt.plan.containers;
    let promised = matches!(containers, Containers::Docker | Containers::Podman);
    let needed = needed(environment);
    match Engine::find(containers, service_environment).await {
        Ok(engine) => Ok(Choice::Container { engine, is_required: promised || needed.is_some() }),
        Err(found) if promised => {
            let runtime = containers.as_str();
            Err(format!("this compute target runs containers with {runtime}, which does not answer: {found}"))
        }
        Err(found) => match needed {
            None => Ok(Choice::Machine {
                instead_because: Some(format!(
                    "there is no container runtime on this compute target: {found}"
                )),
            }),
            Some(what) => Err(format!(
                "the definition {what}, and there is no container runtime on this compute target: {found}. Install \
                 Docker or Podman there, or leave it out: framework and packages are then installed into a virtual \
                 environment, or, with user_managed, an interpreter of the machine is used"
            )),
        },
    }
}

/// What only a container can give, if anything: an image that is none of the documented ones, arguments of its own.
fn needed(environment: &Environment) -> Option<String> {
    let container = &environment.container;
    if container.base_dockerfile.is_some() {
        return Some("has a Dockerfile of its own".to_owned());
    }
    if !container.arguments.is_empty() {
        return Some("has docker arguments".to_owned());
    }
    let image = environment.image.as_deref()?;
    let is_documented = [BASE_IMAGE_CPU, BASE_IMAGE_GPU].contains(&image);
    (!is_documented).then(|| format!("names the image {image}"))
}

/// The name of an attempt's container.
pub(super) fn name(attempt: &Attempt) -> String {
    format!("estimatord-{}-{}", attempt.run_id, attempt.number)
}

/// Where a container writes how it went, below the attempt's directory.
pub(super) fn records(directory: &AttemptDir) -> PathBuf {
    directory.root().join("container")
}

/// The user that a container's processes run as, whatever the image says: the service's own, so that they can read what it
/// prepares, and it can read and remove what they write. Podman without root makes the container's root that user by itself.
pub(super) fn user(runtime: ContainerRuntime) -> Option<(u32, u32)> {
    match runtime {
        ContainerRuntime::Podman => Some((0, 0)),
        ContainerRuntime::Docker => Some((nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw())),
    }
}
