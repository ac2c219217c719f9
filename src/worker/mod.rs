//! The worker pool: claims runs, drives each through its life, and lets go of them cleanly.
//!
//! Why nothing is lost or doubled, in the order of what can go wrong:
//!
//! - Two workers, one run: a claim writes a fresh lease token; every later write carries it and the status it starts
//!   from. Whoever was overtaken writes nothing (`storage::leases`, `storage::transitions`).
//! - A worker dies: its leases end by themselves, and a successor on the same data directory releases them at its
//!   start, since the lock on the directory proves the death. The run is adopted in the status in which it was left;
//!   every step may be taken again.
//! - A reply is lost: the same move is written again; finding the run already there counts as done.
//! - A wake-up is lost: they are hints. The loop below also looks by itself, at jittered intervals.
//! - A process is started twice: the backend looks the attempt's name up first (`backend::Backend::ensure_submitted`).

mod collect;
mod drive;
mod environments;
mod leases;
mod moves;
mod node;
mod records;
mod retention;
mod staging;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument as _, error_span, info, warn};

pub use node::node_id;

use crate::{
    artifacts::Artifacts,
    backend::{Backend, ServiceAddresses},
    clock::{Clock, entropy},
    domain::{collection::Limits, compute_target::Engine, datastore_places::Places, retention::KeepRuns},
    figures::RunFigures,
    storage::{
        Storage, StorageError,
        admission::Order,
        leases::{Claimant, Claimed},
        notifications::Hint,
    },
    together::Together,
    vault::Vault,
};
use leases::HeldLeases;
use moves::{MAX_MOVES_TOGETHER, Moves, WRITING_AT_ONCE};

/// How the worker behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This worker node's name.
    pub node: String,
    /// The name of the machine that it is on.
    pub host: String,
    /// How long a lease lasts unless renewed. It is renewed at a third of this.
    pub lease_ttl: Duration,
    /// How often the worker looks for work by itself, ± 20 %.
    pub poll_interval: Duration,
    /// How often the processes and logs of a running run are looked at.
    pub observe_interval: Duration,
    /// The same for runs on clusters.
    pub cluster_interval: Duration,
    /// How many runs this worker holds at once.
    pub slots: u32,
    /// Active runs on a target that sets no limit of its own.
    pub default_target_limit: u32,
    /// Active runs that one caller may have; any number when none.
    pub caller_limit: Option<u32>,
    /// Whether the database's notifications are waited for. Without them work is found by looking.
    pub listens: bool,
    /// How much of what a run wrote is kept.
    pub limits: Limits,
    /// How much is kept of data from remote datastores.
    pub max_data_cache_bytes: u64,
    /// Where datastores may lead.
    pub datastore_places: Places,
    /// How long runs are kept after their end; for ever when none.
    pub keep_runs: Option<KeepRuns>,
    /// Opens what is kept encrypted; without it runs that need such a thing fail.
    pub vault: Option<Vault>,
    /// Where scripts reach the service.
    pub service_addresses: ServiceAddresses,
    /// What this worker does is counted here.
    pub figures: RunFigures,
}

/// What every part of the worker needs.
pub(in crate::worker) struct Context<B> {
    pub storage: Storage,
    pub moves: Together<Moves>,
    pub artifacts: Artifacts,
    pub backend: B,
    pub clock: Arc<dyn Clock>,
    pub settings: Settings,
    pub shutdown: CancellationToken,
}

/// A worker.
pub struct Worker<B> {
    context: Arc<Context<B>>,
    wakeup: Arc<Notify>,
    held: Arc<HeldLeases>,
}

/// How often old answers are forgotten and the health of targets is recorded.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);

/// How many runs that waited too long are ended in one look at the queue.
const EXPIRED_AT_ONCE: u32 = 100;

/// How many runs are claimed in one look: the first are begun while the next are claimed.
const CLAIMED_AT_ONCE: u32 = 256;

/// After how much of the poll interval a look is a round: all of those that nobody asked for are, jittered as they are. What a round sees to
/// becomes due with time; a run that has just come does not wait for it.
const ROUND: f64 = 0.8;

/// How often places are given by age and not by priority.
const OLDEST_FIRST: f64 = 0.2;

impl<B: Backend + 'static> Worker<B> {
    /// A worker that ends when `shutdown` is cancelled. `wakeup` is notified by an API in the same process.
    #[must_use]
    pub fn new(
        storage: Storage,
        artifacts: Artifacts,
        backend: B,
        clock: Arc<dyn Clock>,
        settings: Settings,
        wakeup: Arc<Notify>,
        shutdown: CancellationToken,
    ) -> Self {
        let moves = Together::new(Moves(storage.clone()), MAX_MOVES_TOGETHER, WRITING_AT_ONCE);
        let context = Context { storage, moves, artifacts, backend, clock, settings, shutdown };
        let held = Arc::new(HeldLeases::new(context.settings.figures.clone()));
        Self { context: Arc::new(context), wakeup, held }
    }

    /// Works until shutdown. Runs that are under way then are let go of: their processes go on, and the next worker
    /// takes them over.
    pub async fn run(self) {
        let context = &self.context;
        match context.storage.release_leases_of(&context.settings.node).await {
            Ok(0) => {}
            Ok(released) => info!(runs = released, "took back {released} runs that a predecessor had held"),
            // They end by themselves, a little later.
            Err(error) => warn!("could not take back a predecessor's runs: {error}"),
        }
        let helpers = TaskTracker::new();
        helpers.spawn(leases::keep(Arc::clone(context), Arc::clone(&self.held), Arc::clone(&self.wakeup)));
        if context.settings.listens {
            helpers.spawn(listen(
                context.storage.clone(),
                Arc::clone(&self.wakeup),
                Arc::clone(&self.held),
                context.shutdown.clone(),
            ));
        }
        helpers.spawn(keep_house(Arc::clone(context)));
        helpers.spawn(retention::keep(Arc::clone(context)));
        helpers.close();

        let runs = TaskTracker::new();
        let slots = Arc::new(Semaphore::new(context.settings.slots as usize));
        let mut last_round: Option<Instant> = None;
        while !context.shutdown.is_cancelled() {
            // The future exists before the database is asked, so a wake-up in between is not lost.
            let woken = self.wakeup.notified();
            let asked = Instant::now();
            let is_due = |last: Instant| last.elapsed() >= context.settings.poll_interval.mul_f64(ROUND);
            let is_round = last_round.is_none_or(is_due);
            match self.claim(&slots, is_round).await {
                Ok((claimed, is_seen_to)) => {
                    if is_seen_to {
                        last_round = Some(asked);
                    }
                    let is_all = claimed.len() < CLAIMED_AT_ONCE as usize;
                    for claim in claimed {
                        self.start(claim, asked, &runs, &slots);
                    }
                    if !is_all {
                        continue;
                    }
                }
                Err(error) => warn!("could not look for work: {error}"),
            }
            // Every end of a run is a reason to look again. For as long as the look took the next ones are waited for, so that under
            // load they share one; when there is nothing else to do nobody notices.
            tokio::select! {
                () = tokio::time::sleep(asked.elapsed().min(context.settings.poll_interval)) => {}
                () = context.shutdown.cancelled() => {}
            }
            tokio::select! {
                () = woken => {}
                () = tokio::time::sleep(jittered(context.settings.poll_interval)) => {}
                () = context.shutdown.cancelled() => {}
            }
        }
        runs.close();
        runs.wait().await;
        helpers.wait().await;
    }

    /// Claims as many runs as there are free slots, so that none is held without being worked on. In a round it also sees to runs that
    /// waited too long or whose worker is gone. Adoption comes first: those runs have waited longer and hold places on their targets.
    /// Answers too whether all that a round sees to was seen to: there may have been no slot for it, or more than one look takes.
    async fn claim(&self, slots: &Semaphore, is_round: bool) -> Result<(Vec<Claimed>, bool), StorageError> {
        let context = &self.context;
        let claimant = Claimant {
            node: context.settings.node.clone(),
            host: context.settings.host.clone(),
            ttl: context.settings.lease_ttl,
            default_target_limit: context.settings.default_target_limit,
            caller_limit: context.settings.caller_limit,
        };
        let expired = match is_round {
            true => context.storage.expire_queued_runs(EXPIRED_AT_ONCE, context.clock.now()).await?,
            false => 0,
        };
        if expired > 0 {
            info!(runs = expired, "{expired} runs had waited in the queue for too long");
        }
        let room = u32::try_from(slots.available_permits()).unwrap_or(u32::MAX).min(CLAIMED_AT_ONCE);
        if room == 0 {
            return Ok((Vec::new(), false));
        }
        let now = context.clock.now();
        let mut claimed =
            if is_round { context.storage.adopt_runs(&claimant, room).await? } else { Vec::new() };
        let adopted = claimed.len();
        let left = room.saturating_sub(u32::try_from(claimed.len()).unwrap_or(u32::MAX));
        if left > 0 {
            // Nobody waits for ever behind others that keep coming with a higher priority.
            let order = if random_fraction() < OLDEST_FIRST { Order::Age } else { Order::Priority };
            claimed.extend(context.storage.admit_runs(&claimant, order, left, now).await?);
        }
        context.settings.figures.claimed(claimed.len() - adopted, adopted);
        let is_seen_to = is_round && left > 0 && expired < u64::from(EXPIRED_AT_ONCE);
        Ok((claimed, is_seen_to))
    }

    fn start(&self, claimed: Claimed, asked: Instant, runs: &TaskTracker, slots: &Arc<Semaphore>) {
        // Only this task takes permits, and it claimed no more runs than there were.
        let Ok(permit) = Arc::clone(slots).try_acquire_owned() else {
            return;
        };
        let run_id = claimed.run.id;
        // On every line, whatever the level is.
        let (attempt, target) = (claimed.run.attempt, claimed.run.compute_target.as_str());
        let span = error_span!("run", run.id = %run_id, run.attempt = attempt, run.target = target);
        let ttl = self.context.settings.lease_ttl;
        let held = self.held.insert(claimed.lease, claimed.run.cancel_requested_at.is_some(), asked, ttl);
        let context = Arc::clone(&self.context);
        let wakeup = Arc::clone(&self.wakeup);
        runs.spawn(
            async move {
                drive::drive(&context, claimed, &held).await;
                drop(held);
                drop(permit);
                // A slot is free, and perhaps a place on the target.
                wakeup.notify_one();
            }
            .instrument(span),
        );
    }
}

/// Passes the database's wake-ups on. When the connection breaks it is made anew; polling covers the gap.
async fn listen(storage: Storage, wakeup: Arc<Notify>, held: Arc<HeldLeases>, shutdown: CancellationToken) {
    let pause = Duration::from_secs(5);
    let forever = async {
        loop {
            match storage.listen().await {
                Ok(mut wakeups) => {
                    while let Ok(hint) = wakeups.next().await {
                        wakeup.notify_one();
                        if hint == Hint::Cancel {
                            held.renew_now();
                        }
                    }
                }
                Err(error) => warn!("cannot listen for wake-ups, polling meanwhile: {error}"),
            }
            tokio::time::sleep(jittered(pause)).await;
        }
    };
    tokio::select! {
        () = forever => {}
        () = shutdown.cancelled() => {}
    }
}

async fn keep_house<B: Backend>(context: Arc<Context<B>>) {
    let detail = format!("worker node {} runs here", context.settings.node);
    while !context.shutdown.is_cancelled() {
        let now = context.clock.now();
        if let Err(error) = context
            .storage
            .record_process_health(true, &detail, context.settings.default_target_limit, now)
            .await
        {
            warn!("could not record the health of targets: {error}");
        }
        reach(&context).await;
        if let Err(error) = context.storage.forget_old_answers().await {
            warn!("could not forget old idempotency keys: {error}");
        }
        if let Err(error) = context.storage.forget_old_deliveries().await {
            warn!("could not forget old deliveries of webhooks: {error}");
        }
        sweep(&context).await;
        environments::record(&context).await;
        tokio::select! {
            () = tokio::time::sleep(jittered(HOUSEKEEPING_INTERVAL)) => {}
            () = context.shutdown.cancelled() => {}
        }
    }
}

/// Asks every cluster whether it can be reached, and records the answers.
async fn reach<B: Backend>(context: &Context<B>) {
    let targets = match context.storage.list_compute_targets().await {
        Ok(targets) => targets,
        Err(error) => return warn!("could not list the compute targets: {error}"),
    };
    let clusters = targets.into_iter().map(|stored| stored.target);
    for target in clusters.filter(|target| target.backend.engine != Engine::Process) {
        let found = context.backend.reach(&target.backend).await;
        let (reachable, detail) = match &found {
            Ok(detail) => (true, detail),
            Err(why) => (false, why),
        };
        let now = context.clock.now();
        if let Err(error) = context.storage.record_cluster_health(&target.name, reachable, detail, now).await
        {
            let target = target.name;
            warn!(target.name = %target, "could not record the health of the target {target}: {error}");
        }
    }
}

/// Removes what ended runs left on the compute: a worker that dies between writing an end and cleaning up leaves it behind.
/// Runs that the database does not know are left alone: it may be another one than last time.
async fn sweep<B: Backend>(context: &Context<B>) {
    let runs = match context.backend.remaining_runs().await {
        Ok(runs) => runs,
        Err(error) => return warn!("could not look for what ended runs left: {error}"),
    };
    for run in runs {
        match context.storage.get_run_status(run).await {
            Ok(Some(status)) if status.is_terminal() => {}
            Ok(_) => continue,
            Err(error) => return warn!(run.id = %run, "could not ask for the status of run {run}: {error}"),
        }
        if let Err(error) = context.backend.remove_run(run).await {
            warn!(run.id = %run, "could not remove what run {run} left: {error}");
        }
    }
}

/// The interval ± 20 %, so that replicas do not move in step.
pub(in crate::worker) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * random_fraction())
}

/// 0 to 1.
pub(in crate::worker) fn random_fraction() -> f64 {
    f64::from(u32::from_le_bytes(entropy())) / f64::from(u32::MAX)
}
