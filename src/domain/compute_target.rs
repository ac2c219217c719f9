//! Compute targets: a type (Azure ML's word, which the rules look at) and a backend (how this service reaches it).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    kubernetes::KubernetesSettings,
    node_size::{NodeSize, NodeSizes},
    project::Project,
};

/// The name of the target that exists from the start.
pub const LOCAL: &str = "local";

/// How many runs may be active at once on a cluster that sets no limit: it has a queue of its own, which is there to be used.
pub const DEFAULT_CLUSTER_LIMIT: u32 = 1000;

/// Azure ML's words for kinds of compute. `KubernetesCompute` is read as `Kubernetes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum ComputeTargetType {
    /// The machine of the service.
    #[serde(rename = "local")]
    Local,
    /// A cluster: the only type that runs more than one process.
    AmlCompute,
    /// A machine of the user's own.
    RemoteCompute,
    /// A Kubernetes cluster.
    #[serde(alias = "KubernetesCompute")]
    Kubernetes,
    /// Azure Kubernetes Service.
    #[serde(alias = "AKS")]
    AksCompute,
    /// Azure Batch.
    BatchCompute,
    /// Databricks.
    DatabricksCompute,
    /// Data Factory.
    DataFactoryCompute,
    /// Data Lake Analytics.
    AdlaCompute,
    /// A Data Science Virtual Machine.
    DsvmCompute,
    /// HDInsight: runs no estimator.
    HDInsightCompute,
    /// A single managed machine.
    ComputeInstance,
    /// Synapse Spark.
    SynapseCompute,
    /// Azure Container Instances.
    ContainerInstance,
}

impl ComputeTargetType {
    /// Every type, in the order of the documentation.
    pub const ALL: [Self; 14] = [
        Self::Local,
        Self::AmlCompute,
        Self::RemoteCompute,
        Self::Kubernetes,
        Self::AksCompute,
        Self::BatchCompute,
        Self::DatabricksCompute,
        Self::DataFactoryCompute,
        Self::AdlaCompute,
        Self::DsvmCompute,
        Self::HDInsightCompute,
        Self::ComputeInstance,
        Self::SynapseCompute,
        Self::ContainerInstance,
    ];

    /// The word as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::AmlCompute => "AmlCompute",
            Self::RemoteCompute => "RemoteCompute",
            Self::Kubernetes => "Kubernetes",
            Self::AksCompute => "AksCompute",
            Self::BatchCompute => "BatchCompute",
            Self::DatabricksCompute => "DatabricksCompute",
            Self::DataFactoryCompute => "DataFactoryCompute",
            Self::AdlaCompute => "AdlaCompute",
            Self::DsvmCompute => "DsvmCompute",
            Self::HDInsightCompute => "HDInsightCompute",
            Self::ComputeInstance => "ComputeInstance",
            Self::SynapseCompute => "SynapseCompute",
            Self::ContainerInstance => "ContainerInstance",
        }
    }
}

impl fmt::Display for ComputeTargetType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which container runtime a target says it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Containers {
    /// Docker or Podman, if one answers where the run is started.
    #[default]
    Auto,
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// None: definitions that name an image are refused.
    Never,
}

impl Containers {
    /// Every word.
    pub const ALL: [Self; 4] = [Self::Auto, Self::Docker, Self::Podman, Self::Never];

    /// The word as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Never => "never",
        }
    }
}

/// Whether a target says it has conda.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Conda {
    /// If one is found where the run is started.
    #[default]
    Auto,
    /// None: definitions that ask for conda packages are refused.
    Never,
}

impl Conda {
    /// Every word.
    pub const ALL: [Self; 2] = [Self::Auto, Self::Never];

    /// The word as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Never => "never",
        }
    }
}

/// Where Slurm's commands are; those on the service's `PATH` when absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SlurmCommands {
    /// Hands a job in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sbatch: Option<String>,
    /// Tells of all jobs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub squeue: Option<String>,
    /// Ends a job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scancel: Option<String>,
    /// Tells of one job.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scontrol: Option<String>,
    /// Tells of ended jobs, where the cluster has accounting.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sacct: Option<String>,
}

impl SlurmCommands {
    /// Whether all are looked for on `PATH`.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A partition of a Slurm cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct SlurmSettings {
    /// A directory that the service and every node see under this absolute path: runs, environments and logs are in it.
    #[schema(example = "/shared/estimatord")]
    pub shared_dir: String,
    /// `--partition`; the cluster's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// `--account`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// `--qos`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// `--qos` of runs whose target is of low priority: jobs that may be pre-empted. Without it no target for one run can be of low
    /// priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_priority_qos: Option<String>,
    /// What jobs ask of each node for Azure's sizes, by their names; Azure's own numbers for what is not there.
    #[serde(default, skip_serializing_if = "NodeSizes::is_empty")]
    #[schema(required = false)]
    pub vm_sizes: NodeSizes,
    /// How `srun` starts MPI ranks (`srun --mpi`); `pmix` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mpi: Option<String>,
    /// Where Slurm's commands are.
    #[serde(default, skip_serializing_if = "SlurmCommands::is_default")]
    #[schema(required = false)]
    pub commands: SlurmCommands,
}

/// How this service reaches a target.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Engine {
    /// Processes on the worker's own machine.
    Process,
    /// Jobs of a Slurm cluster.
    Slurm(Box<SlurmSettings>),
    /// Jobs and MPIJobs of a Kubernetes cluster.
    Kubernetes(Box<KubernetesSettings>),
}

impl Engine {
    /// The word of its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Slurm(_) => "slurm",
            Self::Kubernetes(_) => "kubernetes",
        }
    }
}

/// The backend of a target and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// Which backend, and what it has to know.
    #[serde(flatten)]
    pub engine: Engine,
    /// How many runs may be active on the target at once. When absent: the worker's default for processes, 1000 for a cluster,
    /// which has a queue of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub max_concurrent_runs: Option<u32>,
    /// The interpreter that runs `user_managed` definitions (absolute path, or a name looked up on PATH);
    /// `python3` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
}

impl Backend {
    /// What stands for a size that a definition asks for; none when it is in no table that counts here.
    #[must_use]
    pub fn size(&self, name: &str) -> Option<NodeSize> {
        match &self.engine {
            Engine::Process => NodeSizes::default().standing_for(name),
            Engine::Slurm(settings) => settings.vm_sizes.standing_for(name),
            Engine::Kubernetes(settings) => settings.vm_sizes.standing_for(name),
        }
    }

    /// The sizes that the operator's table has.
    pub fn own_sizes(&self) -> impl Iterator<Item = &str> {
        let sizes = match &self.engine {
            Engine::Process => None,
            Engine::Slurm(settings) => Some(&settings.vm_sizes),
            Engine::Kubernetes(settings) => Some(&settings.vm_sizes),
        };
        sizes.into_iter().flat_map(NodeSizes::names)
    }

    /// Processes on the worker's own machine, with defaults for the rest.
    #[must_use]
    pub const fn process() -> Self {
        Self { engine: Engine::Process, max_concurrent_runs: None, python: None }
    }
}

/// A registered compute target, as it is sent and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ComputeTarget {
    /// Its name: `[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}`.
    pub name: ComputeTargetName,
    /// Azure ML's word for it.
    #[serde(rename = "type")]
    pub kind: ComputeTargetType,
    /// How it is reached.
    pub backend: Backend,
    /// The most nodes that one run may ask for.
    #[schema(minimum = 1, maximum = 100_000)]
    pub max_nodes: u32,
    /// The size of its nodes: on a cluster with an entry for it in `vm_sizes` what jobs ask for, elsewhere for information.
    pub vm_size: Option<String>,
    /// The priority of its nodes: on a cluster whose backend says what low priority is (`low_priority_qos`, `low_priority`),
    /// `lowpriority` is that; elsewhere for information.
    pub vm_priority: Option<String>,
    /// How many GPUs each of its nodes has.
    #[schema(minimum = 0, maximum = 1024)]
    pub gpus_per_node: u32,
    /// Which container runtime it has.
    #[serde(default)]
    pub containers: Containers,
    /// Whether it has conda.
    #[serde(default)]
    pub conda: Conda,
    /// The projects that may see and use it; all when there are none.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub projects: Vec<Project>,
}

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 63 characters: a letter or digit, then letters, digits, `_`, `-`")]
pub struct NameError;

/// The name of a compute target (and of a datastore): `[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[a-zA-Z0-9][a-zA-Z0-9_-]{0,62}$", example = "cpu-cluster")]
pub struct ComputeTargetName(String);

impl ComputeTargetName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ComputeTargetName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if first && rest && text.len() <= 63 { Ok(Self(text.to_owned())) } else { Err(NameError) }
    }
}

impl TryFrom<String> for ComputeTargetName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<ComputeTargetName> for String {
    fn from(name: ComputeTargetName) -> Self {
        name.0
    }
}

impl fmt::Display for ComputeTargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
