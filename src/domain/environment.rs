//! The environment that a definition asks for: resolved purely, built elsewhere.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Who provides the interpreter and the packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EnvironmentKind {
    /// The service builds it: framework packages and the definition's own.
    Managed,
    /// Nothing is built; the interpreter that is there runs the script.
    UserManaged,
}

/// One environment variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Variable {
    /// `[A-Za-z_][A-Za-z0-9_]*`.
    pub name: String,
    /// As it is set: booleans are `True` and `False`, numbers keep their JSON spelling.
    pub value: String,
}

/// What a definition asks for. What is really used is reported per run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Environment {
    /// Who provides it.
    pub kind: EnvironmentKind,
    /// The interpreter that a user-managed environment names, if any.
    pub interpreter_path: Option<String>,
    /// `Chainer`.
    pub framework: String,
    /// `5.1.0` or `7.0.0`; null where the environment is not the framework's (user managed, a conda file).
    pub framework_version: Option<String>,
    /// The Python version asked for, e.g. `3.6.2`; null when nothing asks for one.
    pub python_version: Option<String>,
    /// Whether a container was asked for (`use_docker`, on by default).
    pub docker: bool,
    /// The container image asked for (the documented base image, or the definition's own); null without docker.
    pub image: Option<String>,
    /// pip requirements in order: the framework's first, unless a package of the user's replaces one by name.
    pub pip_packages: Vec<String>,
    /// conda packages in order, `python` excluded.
    pub conda_packages: Vec<String>,
    /// conda channels in order.
    pub conda_channels: Vec<String>,
    /// Set on the process that runs the script, on every rank.
    pub environment_variables: Vec<Variable>,
    /// `/dev/shm` in a container, e.g. `2g`; null without docker.
    pub shm_size: Option<String>,
    /// `sha256:` and the digest of everything above: equal content, equal hash.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub hash: String,
}

/// One thing that was asked for and could not be had as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Substitution {
    /// What the definition or the documentation asks for, e.g. `python 3.6.2`.
    #[schema(example = "python 3.6.2")]
    pub asked: String,
    /// What is used, e.g. `python 3.11.7`; null when it is left out.
    #[schema(example = "python 3.11.7")]
    pub used: Option<String>,
    /// Why.
    pub reason: String,
}

/// The environment that a run really got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActualEnvironment {
    /// `virtual_environment` or `user_managed`.
    pub kind: String,
    /// The interpreter's path on the compute.
    pub interpreter: String,
    /// Its version, e.g. `3.11.7`.
    pub python_version: String,
    /// Installed distributions as `name==version`, sorted; empty when user managed.
    pub packages: Vec<String>,
    /// What differs from what was asked.
    pub substitutions: Vec<Substitution>,
    /// The key under which the built environment is kept and reused; null when user managed.
    pub build_key: Option<String>,
    /// Whether an environment that was there already was used.
    pub reused: bool,
}
