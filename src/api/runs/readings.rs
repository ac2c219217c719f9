//! Reading runs for all requests that wait at the same moment: one question for all of them.

use crate::{
    api::error::ApiError,
    domain::{ids::RunId, project::Project},
    storage::{Storage, shown_runs::ShownRun},
    together::Work,
};

/// Reads runs, each for the project that asks for it.
pub(in crate::api) struct Readings(pub(in crate::api) Storage);

impl Work for Readings {
    type Item = (Project, RunId);
    type Done = Result<Option<ShownRun>, ApiError>;

    async fn for_all(&self, wanted: &[Self::Item]) -> Option<Vec<Self::Done>> {
        // What makes no sense in one row is that run's affair: then each is read by itself.
        Some(self.0.shown_runs(wanted).await.ok()?.into_iter().map(Ok).collect())
    }

    async fn for_one(&self, wanted: Self::Item) -> Self::Done {
        Ok(self.0.shown_runs(&[wanted]).await?.into_iter().next().flatten())
    }
}
