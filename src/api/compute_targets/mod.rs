//! Compute targets: where runs go.

mod backend;
mod body;
pub mod delete;
pub mod get;
mod kubernetes;
pub mod list;
pub mod put;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    domain::{
        access::{Principal, Scope},
        compute_target::{Backend, ComputeTargetName, ComputeTargetType, Conda, Containers},
    },
    storage::compute_targets as stored,
};

pub use body::ComputeTargetBody;

/// Whether a target can be reached.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TargetHealth {
    /// Whether it can.
    pub reachable: bool,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// Why not, or what was found.
    pub detail: Option<String>,
}

/// A compute target.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ComputeTarget {
    /// Its name.
    pub name: ComputeTargetName,
    /// Azure ML's word for it; the rules look at it.
    #[serde(rename = "type")]
    pub kind: ComputeTargetType,
    /// How this service reaches it.
    pub backend: Backend,
    /// The most nodes that one run may ask for.
    #[schema(minimum = 1, maximum = 100_000, example = 4)]
    pub max_nodes: u32,
    /// The size of its nodes, for information.
    pub vm_size: Option<String>,
    /// The priority of its nodes, for information.
    pub vm_priority: Option<String>,
    /// How many GPUs each of its nodes has.
    #[schema(minimum = 0, maximum = 1024, example = 0)]
    pub gpus_per_node: u32,
    /// Which container runtime it says it has.
    pub containers: Containers,
    /// Whether it says it has conda.
    pub conda: Conda,
    /// The projects that may see and use it; all when there are none. Who may not change it is shown at most its own.
    pub projects: Vec<String>,
    /// What the last worker that looked found; null until one has.
    pub health: Option<TargetHealth>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last put.
    pub updated_at: DateTime<Utc>,
}

impl ComputeTarget {
    /// As a caller is shown it: of other projects nobody but an administrator hears.
    fn shown(mut self, to: &Principal) -> Self {
        if to.scope < Scope::Admin {
            self.projects.retain(|project| project == to.project.as_str());
        }
        self
    }
}

impl From<stored::StoredComputeTarget> for ComputeTarget {
    fn from(stored: stored::StoredComputeTarget) -> Self {
        let target = stored.target;
        let health = stored.health.map(|health| TargetHealth {
            reachable: health.reachable,
            since: health.since,
            detail: health.detail,
        });
        Self {
            name: target.name,
            kind: target.kind,
            backend: target.backend,
            max_nodes: target.max_nodes,
            vm_size: target.vm_size,
            vm_priority: target.vm_priority,
            gpus_per_node: target.gpus_per_node,
            containers: target.containers,
            conda: target.conda,
            projects: target.projects.iter().map(|project| project.as_str().to_owned()).collect(),
            health,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}
