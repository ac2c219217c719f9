//! Accepting runs for all requests that wait at the same moment: one question about the queue, one transaction, one commit.

use std::sync::Arc;

use super::{Run, outlook::Outlook};
use crate::{
    api::error::ApiError,
    clock::Clock,
    domain::run::Waiting,
    storage::{
        Storage,
        idempotency::{Keyed, Recorded},
        new_runs::{Inserted, Insertion, NewRun},
        shown_runs::ShownRun,
    },
    together::Work,
};

/// What the client of a new run is answered.
///
/// # Errors
/// When it has no JSON form: a fault of ours.
pub(in crate::api) fn answer(new: &NewRun, waiting: &Waiting) -> Result<Recorded, ApiError> {
    let view = Run::new(ShownRun::new(&new.run, new.json.clone()), Some(waiting))?;
    let body = serde_json::to_string(&view).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(Recorded { status: 201, location: Some(format!("/v1/runs/{}", new.run.id)), body })
}

/// Accepts runs.
pub(in crate::api) struct Acceptance {
    storage: Storage,
    clock: Arc<dyn Clock>,
    max_queued_runs: u32,
    outlook: Arc<Outlook>,
}

impl Acceptance {
    /// With no view of the queue yet.
    pub fn new(
        storage: Storage,
        clock: Arc<dyn Clock>,
        max_queued_runs: u32,
        caller_limit: Option<u32>,
    ) -> Self {
        let outlook = Outlook::new(storage.clone(), Arc::clone(&clock), max_queued_runs, caller_limit);
        Self { storage, clock, max_queued_runs, outlook }
    }

    async fn accept(&self, new: &[Arc<NewRun>]) -> Result<Option<Vec<Accepted>>, ApiError> {
        let now = self.clock.now();
        let waiting = self.outlook.waiting(new, now).await?;
        // Only an answer that is to be given again is stored, and has to be there beforehand.
        let answers = new
            .iter()
            .zip(&waiting)
            .map(|(new, waiting)| new.idempotency.as_ref().map(|_| answer(new, waiting)).transpose());
        let answers: Vec<Option<Recorded>> = answers.collect::<Result<_, _>>()?;
        let places = u32::try_from(new.len()).unwrap_or(u32::MAX);
        let limit = (!self.outlook.takes(places, now)).then_some(self.max_queued_runs);
        let inserted = self.storage.insert_runs(new, &answers, limit).await;
        let each = inserted.as_ref().ok().and_then(|inserted| inserted.each.as_deref()).unwrap_or_default();
        let is_accepted = |one: Option<&Insertion>| {
            matches!(one, Some(Insertion::Accepted | Insertion::Keyed(Keyed::Done(_))))
        };
        self.outlook
            .leave((0..).zip(new).filter(|(place, _)| !is_accepted(each.get(*place))).map(|(_, new)| new));
        let Inserted { each, queued } = inserted?;
        if let Some(queued) = queued {
            self.outlook.counted(queued, places, now);
        }
        Ok(each.map(|each| each.into_iter().zip(waiting).collect()))
    }
}

/// What became of a run, and what it waits for.
pub(in crate::api) type Accepted = (Insertion, Waiting);

impl Work for Acceptance {
    type Item = Arc<NewRun>;
    type Done = Result<Accepted, ApiError>;

    async fn for_all(&self, new: &[Arc<NewRun>]) -> Option<Vec<Self::Done>> {
        // One that the database refuses takes the others with it: then each is tried by itself, and told what is wrong with it.
        let each = self.accept(new).await.ok()??;
        Some(each.into_iter().map(Ok).collect())
    }

    async fn for_one(&self, new: Arc<NewRun>) -> Self::Done {
        let each = self.accept(std::slice::from_ref(&new)).await?;
        each.and_then(|each| each.into_iter().next())
            .ok_or_else(|| ApiError::Internal(format!("nothing became of the run {}", new.run.id)))
    }
}
