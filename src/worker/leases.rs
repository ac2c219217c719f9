//! The leases that this worker holds: renewed together, and watched for requests to cancel.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{Notify, watch};
use tracing::warn;

use super::Context;
use crate::{domain::ids::RunId, storage::leases::Lease};

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

/// Every lease that this worker holds.
#[derive(Debug, Default)]
pub(in crate::worker) struct HeldLeases {
    entries: Mutex<HashMap<RunId, (Lease, watch::Sender<Signal>)>>,
    renew: Notify,
}

/// A held lease; renewed for as long as this value exists, whatever ends the task that has it.
pub(in crate::worker) struct HeldLease {
    lease: Lease,
    signal: watch::Receiver<Signal>,
    all: Arc<HeldLeases>,
}

impl HeldLease {
    /// What is known now.
    pub(in crate::worker) fn signal(&self) -> Signal {
        *self.signal.borrow()
    }

    /// Waits until the lease is lost or a cancel is requested; at once when that is so already.
    pub(in crate::worker) async fn interrupted(&self) -> Signal {
        let mut signal = self.signal.clone();
        // The sender lives in the table for as long as this value does.
        match signal.wait_for(|s| *s != Signal::Held).await {
            Ok(signal) => *signal,
            Err(_) => Signal::Lost,
        }
    }

    /// Waits until the lease is lost.
    pub(in crate::worker) async fn lost(&self) {
        let mut signal = self.signal.clone();
        // An error means that the sender is gone, which is a lost lease too.
        let _ = signal.wait_for(|s| *s == Signal::Lost).await;
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        let mut entries = self.all.entries.lock().unwrap_or_else(PoisonError::into_inner);
        // Another claim of the same run may stand there by now.
        if entries.get(&self.lease.run_id).is_some_and(|(lease, _)| *lease == self.lease) {
            entries.remove(&self.lease.run_id);
        }
    }
}

impl HeldLeases {
    /// Adds a lease that was just claimed.
    pub(in crate::worker) fn insert(self: &Arc<Self>, lease: Lease, cancel_requested: bool) -> HeldLease {
        let first = if cancel_requested { Signal::CancelRequested } else { Signal::Held };
        let (sender, signal) = watch::channel(first);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.insert(lease.run_id, (lease, sender));
        HeldLease { lease, signal, all: Arc::clone(self) }
    }

    /// Renews soon instead of at the next interval: a cancel may be waiting.
    pub(in crate::worker) fn renew_now(&self) {
        self.renew.notify_one();
    }

    fn all(&self) -> Vec<Lease> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().map(|(lease, _)| *lease).collect()
    }

    fn tell(&self, lease: &Lease, news: Signal) {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((held, sender)) = entries.get(&lease.run_id)
            && held == lease
        {
            sender.send_if_modified(|signal| {
                let changed = *signal != news;
                *signal = news;
                changed
            });
        }
    }
}

/// Renews every held lease at a third of its life until shutdown, and passes on what the database says of it.
///
/// When the database cannot be reached, nothing is told: the processes of a run live on this machine and nobody else can
/// touch them, and every write is fenced. So going on to watch is harmless, and whether the lease was lost shows at the
/// next write.
pub(in crate::worker) async fn keep<B>(context: Arc<Context<B>>, held: Arc<HeldLeases>, wakeup: Arc<Notify>) {
    let ttl = context.settings.lease_ttl;
    loop {
        tokio::select! {
            () = tokio::time::sleep(ttl / 3) => {}
            () = held.renew.notified() => {}
            () = context.shutdown.cancelled() => return,
        }
        let leases = held.all();
        if leases.is_empty() {
            continue;
        }
        match context.storage.renew_leases(&leases, ttl).await {
            Ok(renewed) => {
                for lease in &leases {
                    match renewed.iter().find(|r| r.run_id == lease.run_id) {
                        Some(r) if r.cancel_requested => held.tell(lease, Signal::CancelRequested),
                        Some(_) => {}
                        None => {
                            // A run that ended between the listing and the renewal has no lease either; its task is
                            // ending and does not listen any more.
                            held.tell(lease, Signal::Lost);
                            wakeup.notify_one();
                        }
                    }
                }
            }
            Err(error) => warn!("could not renew {} leases: {error}", leases.len()),
        }
    }
}
