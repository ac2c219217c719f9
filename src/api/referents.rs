//! What is there of what bodies refer to: asked for all requests that wait at the same moment in one question each.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::error::ApiError;
use crate::{
    domain::{compute_target::ComputeTarget, ids::SnapshotId, project::Project},
    storage::{Storage, StorageError},
    together::Work,
};

/// What one body refers to.
#[derive(Clone, Debug)]
pub struct Referents {
    /// In whose name it is asked.
    pub project: Project,
    /// The snapshot, if it names one.
    pub snapshot: Option<SnapshotId>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The targets that the project may use.
    pub targets: Arc<Vec<ComputeTarget>>,
    /// Whether the project has the snapshot.
    pub has_snapshot: bool,
}

/// Looks.
pub struct Search(pub Storage);

impl Search {
    async fn look(&self, wanted: &[Referents]) -> Result<Vec<Found>, StorageError> {
        let snapshots: HashSet<(&Project, &SnapshotId)> =
            wanted.iter().filter_map(|one| Some((&one.project, one.snapshot.as_ref()?))).collect();
        let (all, kept) = self.0.targets_and_snapshots(&snapshots).await?;
        let all: Vec<ComputeTarget> = all.into_iter().map(|stored| stored.target).collect();
        let may_use = |project: &Project| {
            let of =
                all.iter().filter(|target| target.projects.is_empty() || target.projects.contains(project));
            Arc::new(of.cloned().collect::<Vec<_>>())
        };
        let mut targets: BTreeMap<&Project, Arc<Vec<ComputeTarget>>> = BTreeMap::new();
        let found = wanted.iter().map(|one| {
            let targets = targets.entry(&one.project).or_insert_with(|| may_use(&one.project));
            let has_snapshot = one.snapshot.as_ref().is_some_and(|id| kept.contains(&(&one.project, id)));
            Found { targets: Arc::clone(targets), has_snapshot }
        });
        Ok(found.collect())
    }
}

impl Work for Search {
    type Item = Referents;
    type Done = Result<Found, ApiError>;

    async fn for_all(&self, wanted: &[Referents]) -> Option<Vec<Self::Done>> {
        Some(self.look(wanted).await.ok()?.into_iter().map(Ok).collect())
    }

    async fn for_one(&self, wanted: Referents) -> Self::Done {
        let found = self.look(std::slice::from_ref(&wanted)).await?;
        found.into_iter().next().ok_or_else(|| ApiError::Internal("nothing was looked for".to_owned()))
    }
}
