//! How busy the targets are, for runs that are about to be accepted: looked at before each while that costs little, and now and then, by
//! a task of its own, where thousands are live. Nobody waits while a long queue is counted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tracing::warn;

use crate::{
    clock::Clock,
    domain::{
        queue_room::QueueRoom,
        run::{Entrant, QueueView, Waiting},
    },
    storage::{
        Storage, StorageError,
        new_runs::{NewRun, UNDER_WAY},
        runs::Run as StoredRun,
    },
};

/// What is known of the queue and of those who are active.
pub(super) struct Outlook {
    storage: Storage,
    clock: Arc<dyn Clock>,
    max_queued_runs: u32,
    caller_limit: Option<u32>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// With when it was looked at.
    view: Option<(DateTime<Utc>, QueueView)>,
    /// How much longer the queue may get for certain.
    room: QueueRoom,
    /// While somebody looks again: how many runs came since that began, which the look may miss.
    missed: Option<u32>,
}

impl Outlook {
    /// Nothing is known yet.
    pub(super) fn new(
        storage: Storage,
        clock: Arc<dyn Clock>,
        max_queued_runs: u32,
        caller_limit: Option<u32>,
    ) -> Arc<Self> {
        Arc::new(Self { storage, clock, max_queued_runs, caller_limit, known: Mutex::default() })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // At worst a look is missing, whoever panicked.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each of the runs waits for, in their order.
    pub(super) async fn waiting(
        self: &Arc<Self>,
        new: &[Arc<NewRun>],
        now: DateTime<Utc>,
    ) -> Result<Vec<Waiting>, StorageError> {
        if let Some(waiting) = self.waiting_as_known(new, now) {
            return Ok(waiting);
        }
        let mut view = self.storage.queue_view().await?;
        let waiting = self.enter(&mut view, new);
        self.known().view = Some((now, view));
        Ok(waiting)
    }

    fn waiting_as_known(self: &Arc<Self>, new: &[Arc<NewRun>], now: DateTime<Utc>) -> Option<Vec<Waiting>> {
        let mut known = self.known();
        let (at, view) = known.view.as_mut()?;
        let age = now - *at;
        if !view.is_good_after(age) {
            return None;
        }
        let is_aging = view.is_aging_after(age);
        let waiting = self.enter(view, new);
        if is_aging && known.missed.is_none() {
            known.missed = Some(0);
            tokio::spawn(Arc::clone(self).look_again());
        }
        Some(waiting)
    }

    fn enter(&self, view: &mut QueueView, new: &[Arc<NewRun>]) -> Vec<Waiting> {
        new.iter().map(|new| view.enter(entrant(new), self.caller_limit)).collect()
    }

    /// Takes out runs that were not accepted: nobody waits for them.
    pub(super) fn leave<'a>(&self, refused: impl Iterator<Item = &'a Arc<NewRun>>) {
        if let Some((_, view)) = &mut self.known().view {
            refused.for_each(|new| view.leave(entrant(new)));
        }
    }

    async fn look_again(self: Arc<Self>) {
        let at = self.clock.now();
        let looked = self.storage.queue_view().await;
        let mut known = self.known();
        let missed = known.missed.take().unwrap_or_default();
        match looked {
            Ok(view) => {
                let queued = u32::try_from(view.queued_in_all).unwrap_or(u32::MAX);
                known.room = QueueRoom::counted(queued, self.max_queued_runs, UNDER_WAY, at).without(missed);
                known.view = Some((at, view));
            }
            // What is known is gone by as long as it may be; then whoever comes looks, and is told.
            Err(error) => warn!("the queue cannot be looked at: {error}"),
        }
    }

    /// Whether there is certainly room in the queue for so many, which take it. If not, it has to be counted.
    pub(super) fn takes(&self, places: u32, now: DateTime<Utc>) -> bool {
        let mut known = self.known();
        let is_taken = known.room.takes(places, now);
        if is_taken && let Some(missed) = &mut known.missed {
            *missed = missed.saturating_add(places);
        }
        is_taken
    }

    /// Keeps that the queue was counted, `queued` runs long, before so many took places.
    pub(super) fn counted(&self, queued: u32, places: u32, now: DateTime<Utc>) {
        let mut known = self.known();
        known.room = QueueRoom::counted(queued.saturating_add(places), self.max_queued_runs, UNDER_WAY, now);
        if let Some(missed) = &mut known.missed {
            *missed = missed.saturating_add(places);
        }
    }
}

fn entrant(new: &NewRun) -> Entrant<'_> {
    let StoredRun { compute_target, priority, caller, created_at, .. } = &new.run;
    Entrant { compute_target, priority: *priority, caller, created_at: *created_at }
}
