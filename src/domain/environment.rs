//! The environment that a definition asks for: resolved purely, built elsewhere.

use std::{collections::BTreeSet, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::{
    container::ContainerRuntime,
    definition::{Docker, Draft, EnvironmentDefinition, Registry, Variables},
    framework,
    rules::{
        Context,
        grammar::{
            conda::{self, CondaSpec},
            paths, pip,
        },
    },
};

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

/// What else a definition says of its container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContainerDetails {
    /// Host name of the registry that the image is pulled from; null for the image's own.
    pub registry_address: Option<String>,
    /// Who pulls it. The password is kept apart and never shown.
    pub registry_username: Option<String>,
    /// The text of a Dockerfile that the image is built from, in place of a named image.
    pub base_dockerfile: Option<String>,
    /// Further arguments of `docker run`, as they were sent.
    pub arguments: Vec<String>,
}

impl ContainerDetails {
    /// Whether nothing else is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whose the pip packages of an environment are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PipOrigins {
    /// How many of them are the framework's: the first ones.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub framework: u64,
    /// How many of them are the lines of the requirements file: the last ones.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub file_lines: u64,
    /// The requirements file, relative to the source tree.
    #[schema(example = "requirements.txt")]
    pub file: Option<String>,
}

impl PipOrigins {
    /// Whether all packages are the definition's own, and none stands in a file.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
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
    /// What else is said of the container; absent when nothing is.
    #[serde(default, skip_serializing_if = "ContainerDetails::is_empty")]
    #[schema(required = false)]
    pub container: ContainerDetails,
    /// The framework's packages that are in its prebuilt image, which the environment is based on
    /// (`_enable_optimized_mode`); absent where it is not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub prebuilt_packages: Vec<String>,
    /// pip requirements in order: the framework's first, unless a package of the user's replaces one by name.
    pub pip_packages: Vec<String>,
    /// Whose they are; absent when all are the definition's own, and none stands in a file.
    #[serde(default, skip_serializing_if = "PipOrigins::is_empty")]
    #[schema(required = false)]
    pub pip_origins: PipOrigins,
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

/// The container that a run really got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActualContainer {
    /// What started it.
    pub runtime: ContainerRuntime,
    /// The name that its image was pulled or built by.
    #[schema(example = "docker.io/library/python:3.11")]
    pub image: String,
    /// The image's content.
    #[schema(example = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    pub image_id: String,
}

/// The environment that a run really got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ActualEnvironment {
    /// `virtual_environment`, `conda` or `user_managed`.
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
    /// The container that it is in; null where there is none.
    #[serde(default)]
    pub container: Option<ActualContainer>,
    /// The image of the pods that it is in, on Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "docker.io/library/python:3.11")]
    pub image: Option<String>,
}

impl ActualEnvironment {
    /// Where what the service built lies, `<root>/bin/python` being its interpreter; none for what was there before.
    #[must_use]
    pub fn built_root(&self) -> Option<&Path> {
        self.build_key.as_ref().and_then(|_| Path::new(&self.interpreter).parent()?.parent())
    }

    /// Whether the script is in a container.
    #[must_use]
    pub fn is_in_container(&self) -> bool {
        self.container.is_some() || self.image.is_some()
    }

    /// Whether it is one of conda.
    #[must_use]
    pub fn is_conda(&self) -> bool {
        self.kind == "conda"
    }
}

impl Environment {
    /// What an accepted definition asks for.
    pub(in crate::domain) fn resolve(context: &Context<'_>) -> Self {
        let draft = context.draft;
        let mut environment = if let Some(definition) = draft.environment_definition.value() {
            own(definition)
        } else if draft.user_managed.is_true() {
            let mut environment = framework_based(draft);
            environment.kind = EnvironmentKind::UserManaged;
            environment
        } else if let Some(spec) = context.conda_file.sound() {
            let mut environment = framework_based(draft);
            environment.add_conda(spec);
            environment
        } else {
            managed(context)
        };
        environment.hash = environment.content_hash();
        environment
    }

    /// The digest of everything but the hash itself.
    fn content_hash(&mut self) -> String {
        self.hash.clear();
        // Whose a package is changes nothing of what is asked for.
        let framework = std::mem::take(&mut self.pip_origins.framework);
        // Fields are written in the order of their declaration, so equal content is equal text.
        let text = serde_json::to_vec(self).expect("an environment is plain data, which is always JSON");
        self.pip_origins.framework = framework;
        super::ids::SnapshotId::from_digest(Sha256::digest(text).into()).into()
    }

    fn add_conda(&mut self, spec: &CondaSpec) {
        let (packages, python) = spec.split_python();
        self.conda_packages = packages;
        self.python_version = python.flatten();
        self.conda_channels.clone_from(&spec.channels);
        self.pip_packages.clone_from(&spec.pip);
    }
}

/// An environment with the parameters' container and variables, and nothing installed.
fn framework_based(draft: &Draft) -> Environment {
    let docker = !draft.use_docker.is_false();
    let image = draft.image().text().unwrap_or(framework::base_image(draft.use_gpu.is_true()));
    let shm_size = draft.shm_size.text().unwrap_or(framework::DEFAULT_SHM_SIZE);
    Environment {
        kind: EnvironmentKind::Managed,
        interpreter_path: None,
        framework: framework::NAME.to_owned(),
        framework_version: None,
        python_version: None,
        docker,
        image: docker.then(|| image.to_owned()),
        // Without an image of one's own there is nothing that the registry would be used for.
        container: registry_of(
            draft.image_registry_details.value().filter(|_| docker && draft.image().is_given()),
        ),
        prebuilt_packages: Vec::new(),
        pip_packages: Vec::new(),
        pip_origins: PipOrigins::default(),
        conda_packages: Vec::new(),
        conda_channels: Vec::new(),
        environment_variables: variables(draft.environment_variables.value()),
        shm_size: docker.then(|| shm_size.to_owned()),
        hash: String::new(),
    }
}

/// The framework's environment with the user's packages.
fn managed(context: &Context<'_>) -> Environment {
    let (draft, file) = (context.draft, context.pip_file.sound());
    let mut environment = framework_based(draft);
    let version = draft.framework_version.text().unwrap_or(framework::DEFAULT_VERSION);
    environment.framework_version = Some(version.to_owned());
    environment.conda_channels = framework::CONDA_CHANNELS.map(ToOwned::to_owned).to_vec();

    let conda: Vec<String> = draft.conda_packages.value().into_iter().flatten().flatten().cloned().collect();
    let (conda, python) = conda::split_python(&conda);
    environment.python_version = match python {
        Some(pin) => pin,
        None => Some(framework::PYTHON_VERSION.to_owned()),
    };

    let mut names = BTreeSet::new();
    names
        .extend(conda.iter().filter_map(|spec| conda::package_name(spec)).map(|name| pip::normalized(&name)));
    let mut user = Vec::new();
    // A list that an accepted definition holds has only entries that can be read.
    for entry in context.pip_packages.iter().filter_map(|(_, entry)| entry.as_ref().ok()) {
        names.extend(entry.name.clone());
        user.push(entry.text.clone());
    }
    let lines = file.map(Vec::as_slice).unwrap_or_default();
    for line in lines {
        names.extend(line.entry.name.clone());
        user.push(line.text.clone());
    }

    let mut framework = framework::builder_packages(version, draft.use_gpu.is_true());
    framework.retain(|package| !names.contains(package.split("==").next().unwrap_or(package)));
    if draft.enable_optimized_mode.is_true() {
        environment.prebuilt_packages = framework;
    } else {
        environment.pip_packages = framework;
    }
    environment.pip_origins = PipOrigins {
        framework: count(environment.pip_packages.len()),
        file_lines: count(lines.len()),
        file: file.and_then(|_| paths::normalized(draft.pip_file().1.text()?)),
    };
    environment.pip_packages.extend(user);
    environment.conda_packages = conda;
    environment
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The environment that `environment_definition` states.
fn own(definition: &EnvironmentDefinition) -> Environment {
    let docker = &definition.docker;
    let named = docker.base_image.is_given() || docker.base_dockerfile.is_given();
    let in_container = match docker.enabled.value() {
        Some(enabled) => *enabled,
        None => named,
    };
    let image = match docker.base_image.text() {
        // Of neither a name nor a Dockerfile the SDK makes this one.
        None if !docker.base_dockerfile.is_given() => Some(framework::BASE_IMAGE_CPU),
        named => named,
    };
    let mut environment = Environment {
        kind: EnvironmentKind::Managed,
        interpreter_path: None,
        framework: framework::NAME.to_owned(),
        framework_version: None,
        python_version: None,
        docker: in_container,
        image: image.filter(|_| in_container).map(ToOwned::to_owned),
        container: if in_container { container_of(docker) } else { ContainerDetails::default() },
        prebuilt_packages: Vec::new(),
        pip_packages: Vec::new(),
        pip_origins: PipOrigins::default(),
        conda_packages: Vec::new(),
        conda_channels: Vec::new(),
        environment_variables: variables(definition.variables.value()),
        shm_size: in_container
            .then(|| docker.shm_size.text().unwrap_or(framework::DEFAULT_SHM_SIZE).to_owned()),
        hash: String::new(),
    };
    if definition.user_managed_dependencies.is_true() {
        environment.kind = EnvironmentKind::UserManaged;
        environment.interpreter_path = definition.interpreter_path.text().map(ToOwned::to_owned);
        return environment;
    }
    if let Some(map) = definition.conda_dependencies.value()
        && let Ok(spec) = conda::from_json(map)
    {
        environment.add_conda(&spec);
    }
    environment
}

fn registry_of(registry: Option<&Registry>) -> ContainerDetails {
    ContainerDetails {
        registry_address: registry.and_then(|registry| registry.address.text()).map(ToOwned::to_owned),
        registry_username: registry.and_then(|registry| registry.username.text()).map(ToOwned::to_owned),
        ..ContainerDetails::default()
    }
}

/// What an environment of one's own says of its container.
fn container_of(docker: &Docker) -> ContainerDetails {
    ContainerDetails {
        base_dockerfile: docker.base_dockerfile.text().map(ToOwned::to_owned),
        arguments: docker.arguments.value().into_iter().flatten().flatten().cloned().collect(),
        ..registry_of(docker.registry.value())
    }
}

fn variables(given: Option<&Variables>) -> Vec<Variable> {
    let mut list = Vec::new();
    for entry in given.into_iter().flat_map(|variables| &variables.entries) {
        if let Ok(value) = &entry.value {
            list.push(Variable { name: entry.name.clone(), value: value.clone() });
        }
    }
    list
}

/// What the history says of a framework version that was asked for where nothing is installed.
#[must_use]
pub fn unheeded_version(environment: &Environment, definition: &Map<String, Value>) -> Option<String> {
    let version = definition.get("framework_version")?.as_str().filter(|version| !version.is_empty())?;
    let is_built = environment.kind == EnvironmentKind::Managed;
    (!is_built).then(|| {
        format!("`framework_version` `{version}` is not heeded: nothing is installed into an environment of your own")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::rules::testing::verdict;

    fn resolved(members: &Value) -> Environment {
        verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid")).environment
    }

    #[test]
    fn the_framework_is_the_start() {
        let environment = resolved(&json!({"framework_version": null}));
        assert_eq!(environment.framework_version.as_deref(), Some("5.1.0"));
        assert_eq!(environment.python_version.as_deref(), Some("3.6.2"));
        assert_eq!(environment.pip_packages, ["azureml-defaults", "chainer==5.1.0", "mpi4py==3.0.0"]);
        assert_eq!(environment.conda_channels, ["anaconda", "conda-forge"]);
        assert_eq!(environment.image.as_deref(), Some(framework::BASE_IMAGE_CPU));
        assert_eq!(environment.shm_size.as_deref(), Some("2g"));
        let gpu = resolved(&json!({"compute_target": "gpu-cluster", "use_gpu": true}));
        assert_eq!(gpu.image.as_deref(), Some(framework::BASE_IMAGE_GPU));
        assert_eq!(gpu.pip_packages.last().map(String::as_str), Some("cupy-cuda90"));
    }

    #[test]
    fn a_users_package_replaces_the_frameworks() {
        let environment = resolved(&json!({
            "pip_packages": ["Chainer[docs]>=6", "numpy", "--pre"], "pip_requirements_file": "req.txt",
            "conda_packages": ["python=3.7", "scipy", "Azureml_Defaults"],
        }));
        assert_eq!(
            environment.pip_packages,
            ["Chainer[docs]>=6", "numpy", "--pre", "tqdm", "mpi4py==3.1.0"],
            "chainer by pip, mpi4py by the file, azureml-defaults by conda"
        );
        let origins = PipOrigins { framework: 0, file_lines: 2, file: Some("req.txt".into()) };
        assert_eq!(environment.pip_origins, origins);
        assert_eq!(environment.python_version.as_deref(), Some("3.7"));
        assert_eq!(environment.conda_packages, ["scipy", "Azureml_Defaults"]);
        let environment =
            resolved(&json!({"pip_packages": ["chainer>6"], "pip_requirements_file": "./req_options.txt"}));
        assert_eq!(
            environment.pip_packages,
            ["azureml-defaults", "mpi4py==3.0.0", "chainer>6", "--pre", "tqdm"]
        );
        let origins = PipOrigins { framework: 2, file_lines: 2, file: Some("req_options.txt".into()) };
        assert_eq!(environment.pip_origins, origins);
        let wheel = resolved(&json!({"pip_packages": ["https://e.invalid/chainer-6.0.0-py3-none-any.whl"]}));
        assert!(!wheel.pip_packages.contains(&"chainer==7.0.0".to_owned()));
        assert_eq!(resolved(&json!({"conda_packages": ["python"]})).python_version, None);
        let optimized = resolved(&json!({"_enable_optimized_mode": true, "pip_packages": ["numpy"]}));
        assert_eq!(optimized.pip_packages, ["numpy"]);
        assert_eq!(optimized.prebuilt_packages, ["azureml-defaults", "chainer==7.0.0", "mpi4py==3.0.0"]);
    }

    #[test]
    fn containers_and_their_absence() {
        let custom = resolved(&json!({"custom_docker_base_image": "own:1", "shm_size": "8g"}));
        assert_eq!((custom.image.as_deref(), custom.shm_size.as_deref()), (Some("own:1"), Some("8g")));
        let none = resolved(&json!({"use_docker": false, "shm_size": "8g"}));
        assert_eq!((none.docker, none.image, none.shm_size), (false, None, None));
    }

    #[test]
    fn user_managed_and_conda_files_have_no_framework() {
        let own = resolved(&json!({"user_managed": true, "environment_variables": {"B": 1.50, "A": true}}));
        assert_eq!(own.kind, EnvironmentKind::UserManaged);
        assert!(own.pip_packages.is_empty() && own.conda_channels.is_empty() && own.python_version.is_none());
        let names: Vec<_> =
            own.environment_variables.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        assert_eq!(names, [("B", "1.5"), ("A", "True")], "in the order sent");
        let conda = resolved(&json!({"conda_dependencies_file": "conda.yml"}));
        assert_eq!((conda.framework_version, conda.python_version.as_deref()), (None, Some("3.7")));
        assert_eq!(conda.conda_packages, ["numpy"]);
        assert_eq!(conda.pip_packages, ["chainer==6.0.0"]);
        assert_eq!(conda.conda_channels, ["defaults"]);
    }

    #[test]
    fn an_environment_of_ones_own() {
        let environment = resolved(&json!({"environment_definition": {
            "python": {"userManagedDependencies": true, "interpreterPath": "/opt/py"},
            "environmentVariables": {"A": 1},
        }}));
        assert_eq!(environment.kind, EnvironmentKind::UserManaged);
        assert_eq!(environment.interpreter_path.as_deref(), Some("/opt/py"));
        assert!(!environment.docker && environment.environment_variables.len() == 1);
        let environment = resolved(&json!({"environment_definition": {
            "docker": {"base_image": "img:2"},
            "python": {"interpreter_path": "python", "conda_dependencies": {"channels": ["c"], "dependencies": ["python=3.8", {"pip": ["a"]}]}},
        }}));
        assert_eq!((environment.docker, environment.image.as_deref()), (true, Some("img:2")));
        assert_eq!(environment.python_version.as_deref(), Some("3.8"));
        assert_eq!(environment.pip_packages, ["a"]);
        assert_eq!(environment.interpreter_path, None, "it is for those who manage their own");
    }

    #[test]
    fn equal_content_has_an_equal_hash() {
        let first = resolved(&json!({"pip_packages": ["numpy"]}));
        let same =
            resolved(&json!({"pip_packages": ["numpy"], "node_count": 1, "script_params": {"--a": 1}}));
        let other = resolved(&json!({"pip_packages": ["scipy"]}));
        assert_eq!(first.hash, same.hash);
        assert_ne!(first.hash, other.hash);
        assert!(first.hash.starts_with("sha256:") && first.hash.len() == 71);
    }
}
