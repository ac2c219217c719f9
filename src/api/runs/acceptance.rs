//! Accepting runs for all requests that wait at the same moment: one question about the queue, one transaction, one commit.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};

use super::Run;
use crate::{
    api::error::ApiError,
    clock::Clock,
    domain::{
        queue_room::QueueRoom,
        run::{Entrant, QueueView, Waiting},
    },
    storage::{
        Storage,
        idempotency::Recorded,
        new_runs::{Inserted, Insertion, NewRun, UNDER_WAY},
        runs::Run as StoredRun,
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
    caller_limit: Option<u32>,
    room: Mutex<QueueRoom>,
    /// How busy the targets were, and when that was looked at.
    view: Mutex<Option<(DateTime<Utc>, QueueView)>>,
}

impl Acceptance {
    /// With no view of the queue yet.
    pub fn new(
        storage: Storage,
        clock: Arc<dyn Clock>,
        max_queued_runs: u32,
        caller_limit: Option<u32>,
    ) -> Self {
        let (room, view) = (Mutex::default(), Mutex::default());
        Self { storage, clock, max_queued_runs, caller_limit, room, view }
    }

    /// What each of the runs waits for, in their order.
    async fn waiting(&self, new: &[Arc<NewRun>], now: DateTime<Utc>) -> Result<Vec<Waiting>, ApiError> {
        let kept = self.view.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (at, mut view) = match kept.filter(|(at, view)| view.is_good_after(now - *at)) {
            Some(kept) => kept,
            None => (now, self.storage.queue_view().await?),
        };
        let enter = |new: &Arc<NewRun>| {
            let StoredRun { compute_target, priority, caller, created_at, .. } = &new.run;
            let entrant = Entrant { compute_target, priority: *priority, caller, created_at: *created_at };
            view.enter(entrant, self.caller_limit)
        };
        let waiting = new.iter().map(enter).collect();
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, view));
        Ok(waiting)
    }

    async fn accept(&self, new: &[Arc<NewRun>]) -> Result<Option<Vec<Accepted>>, ApiError> {
        let now = self.clock.now();
        let waiting = self.waiting(new, now).await?;
        // Only an answer that is to be given again is stored, and has to be there beforehand.
        let answers = new
            .iter()
            .zip(&waiting)
            .map(|(new, waiting)| new.idempotency.as_ref().map(|_| answer(new, waiting)).transpose());
        let answers: Vec<Option<Recorded>> = answers.collect::<Result<_, _>>()?;
        let places = u32::try_from(new.len()).unwrap_or(u32::MAX);
        let is_known = self.room.lock().unwrap_or_else(PoisonError::into_inner).takes(places, now);
        let limit = (!is_known).then_some(self.max_queued_runs);
        let Inserted { each, queued } = self.storage.insert_runs(new, &answers, limit).await?;
        if let Some(queued) = queued {
            let queued = queued.saturating_add(places);
            let room = QueueRoom::counted(queued, self.max_queued_runs, UNDER_WAY, now);
            *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
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
