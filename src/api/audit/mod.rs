//! The audit trail: every request that was to change something, and those that were not let in, with what came of them.
//!
//! An answer goes out when the trail has its row. Requests that end at the same time share one statement: whoever comes first
//! writes for all who wait.

mod draft;
pub mod list;

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use governor::{Quota, RateLimiter, clock::MonotonicClock, state::keyed::HashMapStateStore};

pub use self::draft::{Draft, Slip};
use super::rate::Party;
use crate::{domain::audit::AuditEvent, storage::Storage};

/// How many requests that were not let in are recorded of one address a minute: who knocks a million times is known after a few.
const REFUSALS_A_MINUTE: NonZeroU32 = NonZeroU32::new(60).expect("not 0");
/// After how many refusals the addresses that have been silent are forgotten.
const TIDY_EVERY: usize = 10_000;

/// What waits to be written.
#[derive(Default)]
struct Waiting {
    events: Vec<AuditEvent>,
    /// How many have come in all.
    come: u64,
}

struct Shared {
    storage: Storage,
    waiting: Mutex<Waiting>,
    /// How many of those that came are written. Held by whoever writes.
    written: tokio::sync::Mutex<u64>,
    refusals: RateLimiter<Party, HashMapStateStore<Party>, MonotonicClock>,
}

/// Writes the trail.
pub struct AuditTrail(Arc<Shared>);

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every event is whole, whoever panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn append(&self, event: AuditEvent) {
        let mine = {
            let mut waiting = self.waiting();
            waiting.events.push(event);
            waiting.come += 1;
            waiting.come
        };
        let mut written = self.written.lock().await;
        if *written >= mine {
            return;
        }
        let (events, come) = {
            let mut waiting = self.waiting();
            (std::mem::take(&mut waiting.events), waiting.come)
        };
        if let Err(error) = self.storage.append_audit_events(&events).await {
            // What was done is done: the log has what the trail has not.
            for event in &events {
                tracing::error!(?event, "the audit trail could not be written: {error}");
            }
        }
        *written = come;
    }
}

impl AuditTrail {
    /// One in this database.
    #[must_use]
    pub fn new(storage: Storage) -> Self {
        let refusals = RateLimiter::hashmap_with_clock(Quota::per_minute(REFUSALS_A_MINUTE), MonotonicClock);
        let (waiting, written) = (Mutex::default(), tokio::sync::Mutex::default());
        Self(Arc::new(Shared { storage, waiting, written, refusals }))
    }

    /// Adds to the trail; it is written when this returns, whatever becomes of the caller meanwhile.
    pub async fn append(&self, event: AuditEvent) {
        let shared = Arc::clone(&self.0);
        let writing = tokio::spawn(async move { shared.append(event).await });
        if let Err(error) = writing.await {
            tracing::error!("the audit trail could not be written: {error}");
        }
    }

    /// Whether another refusal of this party is worth a row.
    #[must_use]
    pub fn takes_refusal(&self, party: &Party) -> bool {
        if self.0.refusals.len() > TIDY_EVERY {
            self.0.refusals.retain_recent();
        }
        self.0.refusals.check_key(party).is_ok()
    }
}
