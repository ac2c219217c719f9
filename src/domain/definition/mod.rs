//! The 34 parameters as received → a value that, if it exists, is valid.

mod data;
mod draft;
mod objects;
mod planned;
mod reading;
pub(in crate::domain) mod redaction;
mod signature;

pub(crate) use data::{Argument, Reference, ReferenceKind};
pub(crate) use draft::Draft;
pub(crate) use objects::{Docker, EnvironmentDefinition, Registry, Training, Variables};
pub(crate) use reading::{Fault, Given, listed, shortened};
pub use signature::{Kind, Parameter, SIGNATURE, is_near, nearest, rank};

use serde_json::{Map, Value};

use super::{framework, ids::SnapshotId, plan::PlannedData};

/// A valid definition.
///
/// It is made by [`judge`](crate::domain::judge::judge) only, when no rule refuses the body. It holds no secret.
#[derive(Clone, Debug)]
pub struct Definition {
    body: Map<String, Value>,
    draft: Draft,
    snapshot: SnapshotId,
    entry_script: String,
}

impl Definition {
    /// Wraps a draft that no rule refuses. Nothing when it lacks what every definition has.
    pub(in crate::domain) fn from_judged(
        body: &Map<String, Value>,
        draft: Draft,
        entry_script: Option<String>,
    ) -> Option<Self> {
        let snapshot = draft.source_directory.text()?.parse().ok()?;
        let body = redaction::redacted(body);
        Some(Self { body, draft, snapshot, entry_script: entry_script? })
    }

    /// The definition as it was sent, key for key in order, with its secrets replaced.
    #[must_use]
    pub const fn body(&self) -> &Map<String, Value> {
        &self.body
    }

    pub(in crate::domain) const fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The source tree.
    #[must_use]
    pub const fn source_directory(&self) -> &SnapshotId {
        &self.snapshot
    }

    /// The script, relative to the source tree, without `.` and empty components.
    #[must_use]
    pub fn entry_script(&self) -> &str {
        &self.entry_script
    }

    /// The named compute target; none when a one-off target is asked for.
    #[must_use]
    pub fn compute_target(&self) -> Option<&str> {
        self.draft.compute_target.text()
    }

    /// The size of the one-off target; none when a compute target is named, which wins.
    #[must_use]
    pub fn vm_size(&self) -> Option<&str> {
        if self.draft.compute_target.is_given() { None } else { self.draft.vm_size.text() }
    }

    /// The priority of the one-off target; none when there is none.
    #[must_use]
    pub fn vm_priority(&self) -> Option<&str> {
        self.vm_size()?;
        Some(self.draft.vm_priority.text().unwrap_or("dedicated"))
    }

    /// Nodes.
    #[must_use]
    pub fn node_count(&self) -> u64 {
        positive(self.draft.node_count.or(1))
    }

    /// Processes on each node: the `Mpi` object's count, else the deprecated parameter's where the deprecated
    /// backend word is given, else 1.
    #[must_use]
    pub fn process_count_per_node(&self) -> u64 {
        match self.draft.distributed_training.value() {
            Some(Training::Mpi(count)) => positive(count.or(1)),
            _ if self.is_mpi() => positive(self.draft.process_count_per_node.or(1)),
            _ => 1,
        }
    }

    /// Whether MPI was stated.
    #[must_use]
    pub fn is_mpi(&self) -> bool {
        matches!(self.draft.distributed_training.value(), Some(Training::Mpi(_)))
            || self.draft.distributed_backend.text().is_some_and(|word| word.eq_ignore_ascii_case("mpi"))
    }

    /// Whether GPUs are asked for.
    #[must_use]
    pub const fn use_gpu(&self) -> bool {
        self.draft.use_gpu.is_true()
    }

    /// The framework version, the default included.
    #[must_use]
    pub fn framework_version(&self) -> &str {
        self.draft.framework_version.text().unwrap_or(framework::DEFAULT_VERSION)
    }

    /// Seconds in `Running` after which the run is stopped.
    #[must_use]
    pub fn max_run_duration_seconds(&self) -> Option<u64> {
        self.draft.max_run_duration_seconds.value().and_then(|seconds| u64::try_from(*seconds).ok())
    }

    /// The arguments of the script (keys and values in the order sent, lists expanded in place, null and empty texts left
    /// out; no shell ever sees them), and what the run has to do with datastores.
    #[must_use]
    pub fn arguments_and_data(&self) -> (Vec<String>, PlannedData) {
        planned::planned(&self.draft)
    }
}

/// What the rules have made sure of: a count of at least 1.
fn positive(count: Option<i64>) -> u64 {
    count.and_then(|count| u64::try_from(count).ok()).unwrap_or(1)
}
