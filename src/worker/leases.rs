//! The leases that this worker holds: renewed together, and watched for requests to cancel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{Notify, watch};
use tracing::warn;

use super::{Context, jittered};
use crate::{domain::ids::RunId, figures::RunFigures, storage::leases::Lease};

/// What the holder of a lease must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Signal {
    /// Go on.
    Held,
    /// Go on, towards the run's end: somebody asked for it.
    CancelRequested,
    /// Drop the work: somebody else has the run.
    Lost,
}

/// What is known of a held lease.
#[derive(Clone, Copy, Debug)]
struct Known {
    signal: Signal,
    /// Until when it is held for certain, by this machine's own clock.
    until: Instant,
}

/// Every lease that this worker holds.
#[derive(Debug, Default)]
pub(in crate::worker) struct HeldLeases {
    figures: RunFigures,
    entries: Mutex<HashMap<RunId, (Lease, watch::Sender<Known>)>>,
    renew: Notify,
}

/// A held lease; renewed for as long as this value exists, whatever ends the task that has it.
pub(in crate::worker) struct HeldLease {
    lease: Lease,
    known: watch::Receiver<Known>,
    all: Arc<HeldLeases>,
}

impl HeldLease {
    /// What is known now.
    pub(in crate::worker) fn signal(&self) -> Signal {
        self.known.borrow().signal
    }

    /// Waits until the lease is lost or a cancel is requested; at once when that is so already.
    pub(in crate::worker) async fn interrupted(&self) -> Signal {
        let mut known = self.known.clone();
        // The sender lives in the table for as long as this value does.
        match known.wait_for(|known| known.signal != Signal::Held).await {
            Ok(known) => known.signal,
            Err(_) => Signal::Lost,
        }
    }

    /// Waits until the lease is lost.
    pub(in crate::worker) async fn lost(&self) {
        let mut known = self.known.clone();
        // An error means that the sender is gone, which is a lost lease too.
        let _ = known.wait_for(|known| known.signal == Signal::Lost).await;
    }

    /// Waits until the lease is held for certain, or lost; at once when it is.
    pub(in crate::worker) async fn trusted(&self) -> Signal {
        let mut known = self.known.clone();
        loop {
            let now = *known.borrow_and_update();
            if now.signal == Signal::Lost || Instant::now() < now.until {
                return now.signal;
            }
            self.all.renew_now();
            if known.changed().await.is_err() {
                return Signal::Lost;
            }
        }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.all.figures.held(-1);
        let mut entries = self.all.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Another claim of the same run may stand there by now.
        if entries.get(&self.lease.run_id).is_some_and(|(lease, _)| *lease == self.lease) {
            entries.remove(&self.lease.run_id);
        }
    }
}

impl HeldLeases {
    /// None yet.
    pub(in crate::worker) fn new(figures: RunFigures) -> Self {
        Self { figures, ..Self::default() }
    }

    /// Adds a lease that was claimed by a request sent at `asked`.
    pub(in crate::worker) fn insert(
        self: &Arc<Self>,
        lease: Lease,
        cancel_requested: bool,
        asked: Instant,
        ttl: Duration,
    ) -> HeldLease {
        let signal = if cancel_requested { Signal::CancelRequested } else { Signal::Held };
        let (sender, known) = watch::channel(Known { signal, until: trusted_until(asked, ttl) });
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(lease.run_id, (lease, sender));
        self.figures.held(1);
        HeldLease { lease, known, all: Arc::clone(self) }
    }

    /// Renews soon instead of at the next interval: a cancel may be waiting.
    pub(in crate::worker) fn renew_now(&self) {
        self.renew.notify_one();
    }

    fn all(&self) -> Vec<Lease> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().map(|(lease, _)| *lease).collect()
    }

    /// Passes on what the database says of a lease: a signal where it is news, and until when it is held.
    fn tell(&self, lease: &Lease, news: Option<Signal>, until: Option<Instant>) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, sender)) = entries.get(&lease.run_id)
            && held == lease
        {
            sender.send_modify(|known| {
                known.signal = news.unwrap_or(known.signal);
                known.until = until.unwrap_or(known.until);
            });
        }
    }
}

/// A lease is given by the database's clock, after it was asked for: so it lasts longer than this, as seen from here. What is left
/// out is for the act that is begun just before.
fn trusted_until(asked: Instant, ttl: Duration) -> Instant {
    asked + ttl.mul_f64(0.8)
}

/// Renews every held lease at a third of its life until shutdown, and passes on what the database says of it.
///
/// When the database cannot be reached, the holders stop by themselves once the lease can no longer be trusted, and go on when it
/// could be renewed: nobody else may have taken it.
pub(in crate::worker) async fn keep<B>(context: Arc<Context<B>>, held: Arc<HeldLeases>, wakeup: Arc<Notify>) {
    let ttl = context.settings.lease_ttl;
    let mut pause = ttl / 3;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = held.renew.notified() => {}
            () = context.shutdown.cancelled() => return,
        }
        pause = ttl / 3;
        let leases = held.all();
        if leases.is_empty() {
            continue;
        }
        let asked = Instant::now();
        match context.storage.renew_leases(&leases, ttl).await {
            Ok(renewed) => {
                context.settings.figures.renewed(renewed.len());
                let renewed: HashMap<RunId, bool> =
                    renewed.into_iter().map(|one| (one.run_id, one.cancel_requested)).collect();
                for lease in &leases {
                    match renewed.get(&lease.run_id) {
                        Some(cancel) => {
                            let news = cancel.then_some(Signal::CancelRequested);
                            held.tell(lease, news, Some(trusted_until(asked, ttl)));
                        }
                        None => {
                            // A run that ended between the listing and the renewal has no lease either; its task is
                            // ending and does not listen any more.
                            held.tell(lease, Some(Signal::Lost), None);
                            wakeup.notify_one();
                        }
                    }
                }
            }
            Err(error) => {
                warn!(leases = leases.len(), "could not renew {} leases: {error}", leases.len());
                pause = jittered(ttl / 15);
            }
        }
    }
}
