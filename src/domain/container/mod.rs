//! Containers: what a runtime is told, as pure functions of what is to run.

mod command;
mod reference;
mod script;

pub use self::{
    command::{Container, Mount, StrayArgument, Tool, check_arguments, run_arguments, tool_arguments},
    reference::{pull_name, registry_of},
    script::{Script, launch_script, rank_script},
};

/// A program that runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ContainerRuntime {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
}

impl ContainerRuntime {
    /// The name of its command line program.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
        }
    }
}
