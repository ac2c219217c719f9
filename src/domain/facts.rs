//! What the rules need to know of the world, collected before they are asked.
//!
//! The rules are pure: whoever calls them first asks [`wanted`](crate::domain::judge::wanted) what a body
//! refers to, looks that up, and passes the answer in.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    compute_target::{Backend, ComputeTarget, ComputeTargetName},
    plan::Plan,
};

/// What a body refers to and somebody has to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The text of `source_directory`, when it has the form of a snapshot id.
    pub snapshot: Option<super::ids::SnapshotId>,
    /// Files of the snapshot whose content the rules read (conda and requirements files, the script when it
    /// is to be parsed). Not every one need exist. Never absolute, never with `..`.
    pub contents: BTreeSet<String>,
    /// Whether the body names any datastore.
    pub datastores: bool,
}

/// The files of one snapshot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Path (with `/`, relative) to size in bytes, of every regular file.
    pub files: BTreeMap<String, u64>,
    /// The bytes of those wanted files that exist (at most 1 MiB each are read).
    pub contents: BTreeMap<String, Vec<u8>>,
}

/// How large a source directory may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceLimits {
    /// Bytes of all files together, unpacked.
    pub max_bytes: u64,
    /// Files.
    pub max_files: u64,
}

impl Default for SourceLimits {
    /// The SDK's limits: 300 MiB and 2000 files.
    fn default() -> Self {
        Self { max_bytes: 300 << 20, max_files: 2000 }
    }
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What the operator allows.
    pub limits: SourceLimits,
    /// The snapshot, when it exists.
    pub snapshot: Option<Arc<SnapshotFacts>>,
    /// Every registered target, `local` included.
    pub targets: Arc<Vec<ComputeTarget>>,
    /// The target whose backend is that of targets which are made for one run; the worker's machine when absent.
    pub one_off_target: Option<ComputeTargetName>,
    /// The names of the registered datastores; needed only when the body names one.
    pub datastores: BTreeSet<String>,
}

impl Facts {
    /// The registered target of a name.
    #[must_use]
    pub fn registered(&self, name: &str) -> Option<&ComputeTarget> {
        self.targets.iter().find(|target| target.name.as_str() == name)
    }

    /// The backend of a target that is made for one run; none when the target that lends it is not registered.
    #[must_use]
    pub fn one_off_backend(&self) -> Option<Backend> {
        match &self.one_off_target {
            None => Some(Backend::process()),
            Some(name) => self.registered(name.as_str()).map(|target| target.backend.clone()),
        }
    }

    /// The registered target of a plan; none for a one-off target, which has only a size.
    #[must_use]
    pub fn target_of(&self, plan: &Plan) -> Option<&ComputeTarget> {
        self.registered(&plan.compute_target).filter(|_| plan.one_off_target.is_none())
    }
}
