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
};

pub use self::credentials::{HELPER, credential_helper};
pub(super) use self::{
    engine::{ContainerControl, Engine},
    image::{Having, Image, ensure},
};

/// Microsoft's base images: nothing in them but an MPI and a miniconda, which a virtual environment can replace.
const BASE_IMAGES: &str = "mcr.microsoft.com/azureml/";

/// The runtime that the attempt's container is started with; none where it runs without one.
///
/// # Errors
/// When the definition cannot do without a container, or the target promises a runtime, and none answers.
pub(super) async fn engine(
    attempt: &Attempt,
    service_environment: &[(String, String)],
) -> Result<Option<Engine>, String> {
    let environment = &attempt.plan.environment;
    if !environment.docker {
        return Ok(None);
    }
    // The documented base images are replaced by an environment of the machine's.
    let Some(image) = named_image(environment) else { return Ok(None) };
    check_arguments(&environment.container.arguments).map_err(|stray| stray.to_string())?;
    let containers = attempt.plan.containers;
    Engine::find(containers, service_environment).await.map(Some).map_err(|found| match containers {
        Containers::Docker | Containers::Podman => {
            let runtime = containers.as_str();
            format!("this compute target runs containers with {runtime}, which does not answer: {found}")
        }
        Containers::Auto | Containers::Never => format!(
            "the definition names {image}, and there is no container runtime on this compute target: {found}. Install \
             Docker or Podman there, or leave the image out: framework and packages are then installed into a virtual \
             environment, or, with user_managed, an interpreter of the machine is used"
        ),
    })
}

/// What only a container can give: an image that is none of the documented base images.
fn named_image(environment: &Environment) -> Option<String> {
    if environment.container.base_dockerfile.is_some() {
        return Some("an image of its own Dockerfile".to_owned());
    }
    let image = environment.image.as_ref()?;
    (!image.starts_with(BASE_IMAGES)).then(|| format!("the image {image}"))
}

/// The name of an attempt's container.
pub(super) fn name(attempt: &Attempt) -> String {
    format!("estimatord-{}-{}", attempt.run_id, attempt.number)
}

/// Where a container writes how it went, below the attempt's directory.
pub(super) fn records(directory: &AttemptDir) -> PathBuf {
    directory.root().join("container")
}

/// The user that a container's processes run as, so that the service can read and remove what they write: root's service
/// leaves it to the image, and Podman without root makes the container's root the service's user by itself.
pub(super) fn user(runtime: ContainerRuntime) -> Option<(u32, u32)> {
    let (user, group) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let is_mapped = user.is_root() || runtime == ContainerRuntime::Podman;
    (!is_mapped).then(|| (user.as_raw(), group.as_raw()))
}
