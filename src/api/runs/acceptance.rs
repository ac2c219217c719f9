//! Accepting runs for all requests that wait at the same moment: one question about the queue, one transaction, one commit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use chrono::{DateTime, Utc};

use super::Run;
use crate::{
    api::error::ApiError,
    clock::Clock,
    domain::{
        queue_room::QueueRoom,
        run::{Entrant, QueueView, Waiting},
        trace_parent::TraceParent,
    },
    storage::{
        Storage,
        estimators::Estimator,
        idempotency::{Idempotency, Recorded},
        new_runs::{Inserted, Insertion, NewRun, UNDER_WAY},
        runs::Run as StoredRun,
    },
    together::Work,
};

/// A run that was judged, and is to be accepted.
#[derive(Clone, Debug)]
pub(in crate::api) struct Candidate {
    pub run: StoredRun,
    /// Its estimator, when it came inline.
    pub estimator: Option<Estimator>,
    /// The key that makes the request safe to repeat.
    pub idempotency: Option<Idempotency>,
    /// The body's hash, where the client chose the run's id.
    pub put_hash: Option<[u8; 32]>,
    /// Where in its trace the request is.
    pub trace_parent: Option<TraceParent>,
}

impl Candidate {
    /// With what its client is answered, as far as that can be said beforehand.
    fn with_answer(&self, waiting: &Waiting) -> Result<NewRun, ApiError> {
        let view = Run::new(self.run.clone(), Vec::new(), BTreeMap::new(), Some(waiting));
        let body = serde_json::to_value(view).map_err(|error| ApiError::Internal(error.to_string()))?;
        let location = Some(format!("/v1/runs/{}", self.run.id));
        Ok(NewRun {
            run: self.run.clone(),
            estimator: self.estimator.clone(),
            idempotency: self.idempotency.clone(),
            put_hash: self.put_hash,
            trace_parent: self.trace_parent,
            answer: Recorded { status: 201, location, body },
        })
    }
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

    async fn with_answers(
        &self,
        candidates: &[Candidate],
        now: DateTime<Utc>,
    ) -> Result<Vec<NewRun>, ApiError> {
        let kept = self.view.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (at, mut view) = match kept.filter(|(at, view)| view.is_good_after(now - *at)) {
            Some(kept) => kept,
            None => (now, self.storage.queue_view().await?),
        };
        let with_answer = |candidate: &Candidate| {
            let StoredRun { compute_target, priority, caller, created_at, .. } = &candidate.run;
            let entrant = Entrant { compute_target, priority: *priority, caller, created_at: *created_at };
            candidate.with_answer(&view.enter(entrant, self.caller_limit))
        };
        let new = candidates.iter().map(with_answer).collect();
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, view));
        new
    }

    async fn accept(&self, candidates: &[Candidate]) -> Result<Option<Vec<Insertion>>, ApiError> {
        let now = self.clock.now();
        let new = self.with_answers(candidates, now).await?;
        let places = u32::try_from(new.len()).unwrap_or(u32::MAX);
        let is_known = self.room.lock().unwrap_or_else(PoisonError::into_inner).takes(places, now);
        let limit = (!is_known).then_some(self.max_queued_runs);
        let Inserted { each, queued } = self.storage.insert_runs(&new, limit).await?;
        if let Some(queued) = queued {
            let queued = queued.saturating_add(places);
            let room = QueueRoom::counted(queued, self.max_queued_runs, UNDER_WAY, now);
            *self.room.lock().unwrap_or_else(PoisonError::into_inner) = room;
        }
        Ok(each)
    }
}

impl Work for Acceptance {
    type Item = Candidate;
    type Done = Result<Insertion, ApiError>;

    async fn for_all(&self, candidates: &[Candidate]) -> Option<Vec<Self::Done>> {
        // One that the database refuses takes the others with it: then each is tried by itself, and told what is wrong with it.
        let each = self.accept(candidates).await.ok()??;
        Some(each.into_iter().map(Ok).collect())
    }

    async fn for_one(&self, candidate: Candidate) -> Self::Done {
        let each = self.accept(std::slice::from_ref(&candidate)).await?;
        each.and_then(|each| each.into_iter().next())
            .ok_or_else(|| ApiError::Internal(format!("nothing became of the run {}", candidate.run.id)))
    }
}
