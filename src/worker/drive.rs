//! One run, from the status in which it was claimed to its end.
//!
//! Each turn of the loop takes one idempotent step and writes where that leads. What a step finds is turned into the next
//! status by pure functions (`domain::run`); this file only asks and writes.

mod hand_over;
mod prepare;

use std::time::Duration;

use tracing::{error, info, warn};

use super::{
    Context,
    collect::{CollectError, Progress, collect_outputs},
    jittered,
    leases::{HeldLease, Signal},
    random_fraction,
    staging::{self, StagingError},
};
use crate::{
    backend::{Attempt, Backend},
    domain::{
        compute_target::Engine,
        run::{
            Cause, Circumstances, Move, Observation, Status, conclude_exit, conclude_failure,
            conclude_refusal,
        },
    },
    storage::{
        StorageError,
        leases::{Claimed, Lease},
        runs::Run,
        transitions::Written,
    },
};

/// How long to wait before a database, an artifact store or a machine that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How often collecting logs and outputs is tried before the run ends without them.
const COLLECT_TRIES: u32 = 20;

/// Why driving a run stopped before its end.
enum Stop {
    /// Somebody else has it.
    LeaseLost,
    /// The worker shuts down: let go of it.
    Shutdown,
}

/// What a turn led to.
enum Turn {
    /// The run is in this status now.
    Status(Status),
    /// Nothing changed; look again after a pause.
    Wait(Duration),
}

/// Drives a claimed run until it ends, its lease is lost, or the worker shuts down.
pub(in crate::worker) async fn drive<B: Backend>(context: &Context<B>, claimed: Claimed, held: &HeldLease) {
    let Claimed { lease, run } = claimed;
    let attempt = Attempt {
        run_id: run.id,
        number: run.attempt,
        experiment_name: run.experiment_name.clone(),
        tags: run.tags.clone(),
        plan: run.plan.clone(),
        backend: run.backend.clone(),
        registry: None,
    };
    info!(run.status = %run.status, "run {} attempt {}: claimed in {}", run.id, run.attempt, run.status);
    let mut driver =
        Driver { context, lease, held, attempt, run, progress: None, stop_sent: false, waits_for: None };
    match driver.drive_to_the_end().await {
        Ok(status) => info!(run.status = %status, "run {}: {status}", lease.run_id),
        Err(Stop::LeaseLost) => warn!("run {}: the lease was lost; another worker has it", lease.run_id),
        Err(Stop::Shutdown) => {
            if let Err(error) = context.storage.release_lease(&lease, Duration::ZERO).await {
                warn!("run {}: could not give the lease back, it ends by itself: {error}", lease.run_id);
            }
        }
    }
}

struct Driver<'a, B> {
    context: &'a Context<B>,
    lease: Lease,
    held: &'a HeldLease,
    attempt: Attempt,
    run: Run,
    /// Read from the database when first needed.
    progress: Option<Progress>,
    /// Whether this worker has told the backend to stop the run.
    stop_sent: bool,
    /// What was last recorded of what it waits for on the compute.
    waits_for: Option<String>,
}

impl<B: Backend> Driver<'_, B> {
    async fn drive_to_the_end(&mut self) -> Result<Status, Stop> {
        let mut status = self.run.status;
        loop {
            if status.is_terminal() || status == Status::Queued {
                self.clean_up().await;
                return Ok(status);
            }
            match self.held.signal() {
                Signal::Lost => return Err(Stop::LeaseLost),
                // The database said so: the API has written that status.
                Signal::CancelRequested => status = Status::CancelRequested,
                Signal::Held => {}
            }
            if self.context.shutdown.is_cancelled() {
                return Err(Stop::Shutdown);
            }
            let turn = match status {
                Status::Provisioning => self.provision().await?,
                Status::Preparing => self.prepare().await?,
                Status::Starting => self.start().await?,
                Status::Running | Status::NotResponding => self.watch(status).await?,
                Status::Finalizing => self.finish(status).await?,
                Status::CancelRequested => self.cancel().await?,
                Status::NotStarted
                | Status::Queued
                | Status::Completed
                | Status::Failed
                | Status::Canceled => return Ok(status),
            };
            match turn {
                Turn::Status(next) => status = next,
                Turn::Wait(pause) => self.pause(status, pause).await,
            }
        }
    }

    /// Waits, but not longer than until something happens that this run must know of.
    async fn pause(&self, status: Status, pause: Duration) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Once the cancel is being carried out only the lease's loss is news.
            _ = self.held.interrupted(), if status != Status::CancelRequested => {}
            () = self.held.lost(), if status == Status::CancelRequested => {}
            () = self.context.shutdown.cancelled() => {}
        }
    }

    /// Writes a move and answers the status that the run is in then.
    async fn write(&mut self, from: Status, step: Move) -> Result<Turn, Stop> {
        loop {
            match self.context.storage.move_run(&self.lease, from, &step, self.context.clock.now()).await {
                Ok(Written::Done) => {
                    self.count(from, &step);
                    return Ok(Turn::Status(step.status()));
                }
                // Our own earlier write whose reply was lost, or somebody's cancel.
                Ok(Written::StatusIs(status)) => return Ok(Turn::Status(status)),
                Ok(Written::LeaseLost) => return Err(Stop::LeaseLost),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// Counts what a move did, for those who watch the service.
    fn count(&self, from: Status, step: &Move) {
        let Run { compute_target, plan, created_at, .. } = &self.run;
        let one_off = plan.one_off_target.is_some();
        let figures = &self.context.settings.figures;
        match (from, step) {
            (_, Move::End { status, ending }) => {
                let cause = ending.cause.map_or("", Cause::as_str);
                figures.ended(compute_target, one_off, status.as_str(), cause);
            }
            // What a later attempt waited for is not the queue.
            (Status::Preparing, Move::To { status: Status::Starting, .. }) if self.attempt.number == 1 => {
                let waited = (self.context.clock.now() - *created_at).to_std().unwrap_or_default();
                figures.dispatched(compute_target, one_off, waited);
            }
            (_, Move::To { .. } | Move::Requeue { .. }) => {}
        }
    }

    /// After a failed write: waits a little, unless waiting cannot help.
    async fn wait_out(&self, error: &StorageError) -> Result<(), Stop> {
        match error {
            StorageError::Unavailable(_) => {
                warn!("run {}: {error}", self.lease.run_id);
            }
            StorageError::Refused(_) | StorageError::Inconsistent(_) => {
                error!("run {}: {error}", self.lease.run_id);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(jittered(RETRY_PAUSE)) => Ok(()),
            () = self.held.lost() => Err(Stop::LeaseLost),
            () = self.context.shutdown.cancelled() => Err(Stop::Shutdown),
        }
    }

    /// Has the backend make the target of this one run.
    async fn provision(&mut self) -> Result<Turn, Stop> {
        match self.context.backend.provision(&self.attempt).await {
            Ok(detail) => self.write(Status::Provisioning, Move::because(Status::Preparing, detail)).await,
            Err(error) => self.fail(Status::Provisioning, Cause::DispatchFailed, error.to_string()).await,
        }
    }

    /// Between two looks.
    const fn interval(&self) -> Duration {
        match self.attempt.backend.engine {
            Engine::Process => self.context.settings.observe_interval,
            Engine::Slurm(_) | Engine::Kubernetes(_) => self.context.settings.cluster_interval,
        }
    }

    /// One look at a run that was handed to the backend.
    async fn watch(&mut self, status: Status) -> Result<Turn, Stop> {
        let interval = self.interval();
        ship(self.context, &self.lease, &self.attempt, &mut self.progress).await?;
        match self.context.backend.observe(&self.attempt).await {
            Ok(Observation::Queued { .. } | Observation::Starting) if status == Status::NotResponding => {
                self.write(status, Move::to(Status::Starting)).await
            }
            Ok(Observation::Queued { reason }) => self.waits(Some(reason)).await,
            Ok(Observation::Starting) => self.waits(None).await,
            Ok(Observation::Running { .. }) if status == Status::Running => Ok(Turn::Wait(interval)),
            Ok(Observation::Running { started_at }) => self.write(status, Move::running(started_at)).await,
            Ok(Observation::Exited(exit)) => {
                if status == Status::Starting
                    && let Some(started_at) = exit.started_at
                {
                    // It was quick: its having run is written all the same.
                    return self.write(status, Move::running(started_at)).await;
                }
                self.write(status, Move::to(Status::Finalizing)).await
            }
            Ok(Observation::Lost { .. } | Observation::Preempted { .. }) => {
                self.write(status, Move::to(Status::Finalizing)).await
            }
            // It did not get there before the backend fell silent.
            Ok(Observation::NotFound) if status == Status::NotResponding => {
                match self.submit(status).await? {
                    Some(turn) => Ok(turn),
                    None => self.write(status, Move::to(Status::Starting)).await,
                }
            }
            Ok(Observation::NotFound) => {
                let detail = "the backend knows nothing of it any more".to_owned();
                self.fail(status, Cause::ComputeLost, detail).await
            }
            Err(error) => self.no_answer(status, &error.to_string()).await,
        }
    }

    /// Ends an attempt that has no exit of its own.
    async fn fail(&mut self, status: Status, cause: Cause, detail: String) -> Result<Turn, Stop> {
        self.bar().await?;
        let step = conclude_failure(cause, detail, &self.circumstances(status));
        self.write(status, step).await
    }

    /// Ends an attempt that can never be prepared as it is defined.
    async fn refuse(&mut self, status: Status, cause: Cause, detail: String) -> Result<Turn, Stop> {
        self.bar().await?;
        let step = conclude_refusal(cause, detail, &self.circumstances(status));
        self.write(status, step).await
    }

    /// Makes sure that nothing of an attempt can start later, and brings over what there is of it.
    async fn bar(&mut self) -> Result<(), Stop> {
        if let Err(error) = self.context.backend.cancel(&self.attempt).await {
            warn!("run {}: could not bar a failed attempt from starting: {error}", self.run.id);
        }
        // Barred or told to stop: the end is written when nothing of it is left, and not before.
        loop {
            match self.context.backend.observe(&self.attempt).await {
                Ok(
                    Observation::Exited(_)
                    | Observation::Lost { .. }
                    | Observation::Preempted { .. }
                    | Observation::NotFound,
                ) => break,
                Ok(Observation::Queued { .. } | Observation::Starting | Observation::Running { .. }) => {}
                Err(error) => warn!("run {}: the backend cannot be asked: {error}", self.run.id),
            }
            self.wait_a_little().await?;
        }
        self.gather().await
    }

    async fn cancel(&mut self) -> Result<Turn, Stop> {
        if !self.stop_sent {
            if let Err(error) = self.context.backend.cancel(&self.attempt).await {
                warn!("run {}: could not be told to stop, trying again: {error}", self.run.id);
                return Ok(Turn::Wait(jittered(RETRY_PAUSE)));
            }
            self.stop_sent = true;
        }
        ship(self.context, &self.lease, &self.attempt, &mut self.progress).await?;
        match self.context.backend.observe(&self.attempt).await {
            Ok(
                Observation::Exited(_)
                | Observation::Lost { .. }
                | Observation::Preempted { .. }
                | Observation::NotFound,
            ) => self.finish(Status::CancelRequested).await,
            // `Canceled` is never written on suspicion: only when the backend says that nothing is left.
            Ok(Observation::Queued { .. } | Observation::Starting | Observation::Running { .. }) => {
                Ok(Turn::Wait(self.interval()))
            }
            Err(error) => {
                warn!("run {}: the backend cannot be asked: {error}", self.run.id);
                Ok(Turn::Wait(jittered(RETRY_PAUSE)))
            }
        }
    }

    /// Everything of the attempt has ended: collects, then writes the end.
    async fn finish(&mut self, status: Status) -> Result<Turn, Stop> {
        self.gather().await?;
        let mut circumstances = self.circumstances(status);
        circumstances.reported_failure = self.reported_failure().await?;
        let step = match self.context.backend.observe(&self.attempt).await {
            Ok(Observation::Exited(exit)) => {
                if exit.has_begun() && !circumstances.cancel_requested {
                    circumstances.unsent = self.send_data().await?;
                }
                conclude_exit(&exit, &circumstances)
            }
            Ok(Observation::Lost { detail }) => conclude_failure(Cause::ComputeLost, detail, &circumstances),
            Ok(Observation::Preempted { detail }) => {
                conclude_failure(Cause::Preempted, detail, &circumstances)
            }
            Ok(Observation::NotFound) => {
                let detail = "nothing was started".to_owned();
                conclude_failure(Cause::ComputeLost, detail, &circumstances)
            }
            Ok(Observation::Queued { .. } | Observation::Starting | Observation::Running { .. }) => {
                return Ok(Turn::Wait(self.interval()));
            }
            Err(error) => {
                warn!("run {}: the backend cannot be asked: {error}", self.run.id);
                return Ok(Turn::Wait(jittered(RETRY_PAUSE)));
            }
        };
        self.write(status, step).await
    }

    fn circumstances(&self, status: Status) -> Circumstances {
        Circumstances {
            // What the database said counts, not what a heartbeat will say in a moment.
            cancel_requested: status == Status::CancelRequested,
            attempt: self.attempt.number,
            max_attempts: self.run.max_attempts,
            now: self.context.clock.now(),
            jitter: random_fraction(),
            reported_failure: None,
            unsent: None,
        }
    }

    /// Sends what the script wrote for datastores. A store that fails is asked again for a while; the answer is why not
    /// everything is there.
    async fn send_data(&self) -> Result<Option<String>, Stop> {
        let mut tries = 0;
        loop {
            match staging::send(self.context, &self.attempt).await {
                Ok(()) => return Ok(None),
                Err(StagingError::Storage(error)) => self.wait_out(&error).await?,
                Err(StagingError::Data(error)) => {
                    tries += 1;
                    if error.is_permanent() || tries >= COLLECT_TRIES {
                        self.note("data", &format!("not everything could be sent: {error}")).await?;
                        return Ok(Some(error.to_string()));
                    }
                    warn!("run {}: {error}; trying again", self.run.id);
                    self.wait_a_little().await?;
                }
            }
        }
    }

    /// Puts something into the run's history.
    async fn note(&self, kind: &'static str, note: &str) -> Result<(), Stop> {
        loop {
            let now = self.context.clock.now();
            match self.context.storage.note_run_event(&self.lease, kind, note, now).await {
                Ok(Written::LeaseLost) => return Err(Stop::LeaseLost),
                Ok(Written::Done | Written::StatusIs(_)) => return Ok(()),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// What the script said when it called its run failed; known once its records were gathered.
    async fn reported_failure(&self) -> Result<Option<String>, Stop> {
        loop {
            match self.context.storage.reported_failure(self.attempt.run_id, self.attempt.number).await {
                Ok(said) => return Ok(said),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// Brings over the rest of the logs, and the outputs. A store that fails is asked again for a while; after that the
    /// run ends without what could not be had, and its history says so.
    async fn gather(&mut self) -> Result<(), Stop> {
        let mut tries = 0;
        loop {
            let Err(error) = self.try_to_gather().await else { return Ok(()) };
            tries += 1;
            match error {
                CollectError::LeaseLost => return Err(Stop::LeaseLost),
                CollectError::Storage(error) => self.wait_out(&error).await?,
                CollectError::Read { .. } | CollectError::Store { .. } if tries < COLLECT_TRIES => {
                    warn!("run {}: {error}", self.run.id);
                    self.wait_a_little().await?;
                }
                CollectError::Read { .. } | CollectError::Store { .. } => {
                    error!("run {}: ends without all of its files: {error}", self.run.id);
                    self.note("collection", &format!("not everything could be collected: {error}")).await?;
                    return Ok(());
                }
            }
        }
    }

    async fn wait_a_little(&self) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(jittered(RETRY_PAUSE)) => Ok(()),
            () = self.held.lost() => Err(Stop::LeaseLost),
            () = self.context.shutdown.cancelled() => Err(Stop::Shutdown),
        }
    }

    async fn try_to_gather(&mut self) -> Result<(), CollectError> {
        let progress = resumed(self.context, &self.attempt, &mut self.progress).await?;
        progress.advance(self.context, &self.lease, &self.attempt, true).await?;
        collect_outputs(self.context, &self.lease, &self.attempt).await
    }

    /// The attempt's directory is only a copy now. When it cannot be removed the disk says so, not the run.
    async fn clean_up(&self) {
        if let Err(error) = self.context.backend.remove(&self.attempt).await {
            warn!("run {}: could not remove what attempt {} left: {error}", self.run.id, self.attempt.number);
        }
    }
}

async fn resumed<'p, B>(
    context: &Context<B>,
    attempt: &Attempt,
    progress: &'p mut Option<Progress>,
) -> Result<&'p mut Progress, StorageError> {
    if progress.is_none() {
        *progress = Some(Progress::resume(context, attempt).await?);
    }
    Ok(progress.get_or_insert_default())
}

/// Brings over what logs and records have grown by. What fails now is tried again at the next look, and in earnest at the end.
async fn ship<B: Backend>(
    context: &Context<B>,
    lease: &Lease,
    attempt: &Attempt,
    progress: &mut Option<Progress>,
) -> Result<(), Stop> {
    let shipped = match resumed(context, attempt, progress).await {
        Ok(progress) => progress.advance(context, lease, attempt, false).await,
        Err(error) => Err(error.into()),
    };
    match shipped {
        Ok(()) => Ok(()),
        Err(CollectError::LeaseLost) => Err(Stop::LeaseLost),
        Err(error) => {
            warn!("run {}: {error}", attempt.run_id);
            Ok(())
        }
    }
}
