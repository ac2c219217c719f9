//! What will be started, and where: everything resolved, nothing left to decide.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{environment::Environment, ids::SnapshotId};

/// How the processes of a run are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Launcher {
    /// One process.
    Single,
    /// MPI ranks: `node_count` × `process_count_per_node` of them (1 × 1 when MPI was asked for explicitly).
    Mpi,
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
    /// The target's name.
    pub compute_target: String,
    /// Whether GPUs are asked for.
    pub use_gpu: bool,
    /// Seconds in `Running` after which the run is stopped.
    #[schema(minimum = 1, maximum = 9_223_372_036_854_775_807_i64)]
    pub max_run_duration_seconds: Option<u64>,
    /// The environment asked for.
    pub environment: Environment,
}

impl Plan {
    /// Ranks in all; saturates instead of wrapping.
    #[must_use]
    pub const fn process_count(&self) -> u64 {
        self.node_count.saturating_mul(self.process_count_per_node)
    }
}
