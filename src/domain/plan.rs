//! What will be started, and where: everything resolved, nothing left to decide.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{compute_target::Containers, environment::Environment, ids::SnapshotId};

/// How the processes of a run are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// One process.
    Single,
    /// MPI ranks: `node_count` × `process_count_per_node` of them (1 × 1 when MPI was asked for explicitly).
    Mpi,
}

/// Azure's word for nodes that may be taken away.
pub const LOW_PRIORITY: &str = "lowpriority";

/// The target that is made for one run alone, when a definition names a size and no target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OneOffTarget {
    /// Azure's name of the size of its nodes, as it was sent.
    #[schema(example = "STANDARD_D2_V2")]
    pub vm_size: String,
    /// `dedicated` or `lowpriority`.
    #[schema(example = "dedicated")]
    pub vm_priority: String,
}

/// What a registered target says of its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TargetNodes {
    /// Their size.
    #[schema(example = "STANDARD_D2_V2")]
    pub vm_size: Option<String>,
    /// `dedicated` or `lowpriority`.
    #[schema(example = "lowpriority")]
    pub vm_priority: Option<String>,
}

/// Which SDK object an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InputKind {
    /// `DataReference`, or the bare name of a datastore: its root.
    DataReference,
    /// `DatasetConsumptionConfig`.
    Dataset,
}

/// How an input gets to the compute, or from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum InputMode {
    /// Read where it lies.
    Mount,
    /// Copied before the start.
    Download,
    /// What the script writes there is sent to the datastore at the end.
    Upload,
    /// A dataset that the script opens by itself.
    Direct,
}

impl InputMode {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mount => "mount",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Direct => "direct",
        }
    }
}

/// Data that a run reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedInput {
    /// The name that it goes by: an identifier, of which there is one in a plan.
    #[schema(example = "training_data")]
    pub name: String,
    /// Which SDK object it is.
    pub kind: InputKind,
    /// The registered datastore.
    pub datastore: String,
    /// Inside the datastore; empty for its root.
    pub path: String,
    /// How it gets there.
    pub mode: InputMode,
    /// Where the definition wants it on the compute.
    pub path_on_compute: Option<String>,
    /// Whether files that are there already may be replaced.
    pub overwrite: bool,
    /// The environment variable that says where it is.
    #[schema(example = "AZUREML_DATAREFERENCE_training_data")]
    pub variable: String,
}

/// A place in a datastore.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataLocation {
    /// The registered datastore.
    pub datastore: String,
    /// Inside the datastore; empty for its root.
    pub path: String,
}

/// An argument in whose place the path of data is put where the run is started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DataArgument {
    /// Its place in `arguments`, counted from 0. What stands there is for reading only.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub index: u64,
    /// The name of the input; null for the checkpoint of `resume_from`.
    pub input: Option<String>,
}

/// What a run has to do with datastores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedData {
    /// Every input once, those of `inputs` first, then those that stand in `script_params` only.
    pub inputs: Vec<PlannedInput>,
    /// Which arguments are paths of data.
    pub arguments: Vec<DataArgument>,
    /// The checkpoint that is staged before the start.
    pub resume_from: Option<DataLocation>,
    /// The datastore that the source tree is staged on; null for the service's own store.
    pub source_datastore: Option<String>,
}

impl PlannedData {
    /// Whether the run has nothing to do with any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The resolved plan of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// The source tree.
    pub snapshot_id: SnapshotId,
    /// Relative to the source tree, with `/`.
    pub entry_script: String,
    /// What the script gets after its name: one element is one argv item.
    pub arguments: Vec<String>,
    /// How the processes are started.
    pub launcher: Launcher,
    /// Nodes.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub node_count: u64,
    /// Processes on each node.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub process_count_per_node: u64,
    /// The target's name; the size of a one-off target when there is none.
    pub compute_target: String,
    /// The target that is made for this run alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_off_target: Option<OneOffTarget>,
    /// What the registered target says of its nodes, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_nodes: Option<TargetNodes>,
    /// Which container runtime the target said it has.
    #[serde(default)]
    #[schema(required = false)]
    pub containers: Containers,
    /// Whether GPUs are asked for.
    pub use_gpu: bool,
    /// How many GPUs of each node: what the target has, one at least where GPUs are asked for; absent where none are.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schema(minimum = 0, maximum = 1024, required = false)]
    pub gpus_per_node: u32,
    /// Seconds in `Running` after which the run is stopped.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub max_run_duration_seconds: Option<u64>,
    /// Data; absent when there is none.
    #[serde(default, skip_serializing_if = "PlannedData::is_empty")]
    #[schema(required = false)]
    pub data: PlannedData,
    /// The environment asked for.
    pub environment: Environment,
}

impl Plan {
    /// Ranks in all; saturates instead of wrapping.
    #[must_use]
    pub const fn process_count(&self) -> u64 {
        self.node_count.saturating_mul(self.process_count_per_node)
    }

    /// Whether the run may have to make room for others.
    #[must_use]
    pub fn is_low_priority(&self) -> bool {
        let one_off = self.one_off_target.as_ref().map(|target| target.vm_priority.as_str());
        let registered = || self.target_nodes.as_ref()?.vm_priority.as_deref();
        one_off.or_else(registered) == Some(LOW_PRIORITY)
    }

    /// The script as an interpreter is told it: a file whose name looks like an option is a file all the same.
    #[must_use]
    pub fn entry_script_word(&self) -> String {
        let entry = &self.entry_script;
        if entry.starts_with('-') { format!("./{entry}") } else { entry.clone() }
    }

    /// The input in whose place the argument at `index` is put: `None` for a plain argument, `Some(None)` for the
    /// checkpoint.
    #[must_use]
    pub fn data_argument(&self, index: usize) -> Option<Option<&PlannedInput>> {
        let found =
            self.data.arguments.iter().find(|argument| usize::try_from(argument.index) == Ok(index))?;
        let named = found.input.as_deref();
        Some(named.and_then(|name| self.data.inputs.iter().find(|input| input.name == name)))
    }
}
