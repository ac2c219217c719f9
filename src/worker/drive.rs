//! One run, from the status in which it was claimed to its end.
//!
//! What is done next, and what that leads to, is decided by a pure machine (`domain::run::Course`); this file only does it. Each
//! act is idempotent: after a crash the next holder of the run does it again.

mod hand_over;
mod prepare;
mod step;

use std::time::Duration;

use tracing::{Instrument as _, error, info, warn};

use super::{
    Context,
    collect::{CollectError, Progress, collect_outputs},
    jittered,
    leases::{HeldLease, Signal},
    moves::Moves,
    random_fraction,
    staging::{self, StagingError},
};
use crate::{
    backend::{Attempt, Backend, ServiceAccess},
    domain::{
        compute_target::Engine,
        run::{Act, Cause, Course, Move, Observation, Pause, Status},
        trace_parent::TraceParent,
    },
    figures::{Outcome, Step},
    storage::{
        StorageError,
        leases::{Claimed, Lease},
        moves::Transition,
        runs::Run,
        transitions::Written,
    },
    together::{BrokenOff, Work as _},
    traces,
};
use step::{call, outcome};

/// How long to wait before a database, an artifact store or a machine that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How often collecting logs and outputs is tried before the run ends without them.
const COLLECT_TRIES: u32 = 20;

/// How long moves of a run may not be written yet while the next act is being done.
const UNSEEN: Duration = Duration::from_millis(20);

/// Why driving a run stopped before its end.
enum Stop {
    /// Somebody else has it.
    LeaseLost,
    /// The worker shuts down: let go of it.
    Shutdown,
}

/// What was brought over of logs and outputs.
enum Gathered {
    All,
    Some,
}

/// Drives a claimed run until it ends, its lease is lost, or the worker shuts down.
pub(in crate::worker) async fn drive<B: Backend>(context: &Context<B>, claimed: Claimed, held: &HeldLease) {
    let Claimed { lease, run, is_adopted } = claimed;
    let attempt = Attempt {
        run_id: run.id,
        number: run.attempt,
        experiment_name: run.experiment_name.clone(),
        tags: run.tags.clone(),
        plan: run.plan.clone(),
        backend: run.backend.clone(),
        registry: None,
        access: access(context, &run),
    };
    info!(run.status = %run.status, "run {} attempt {}: claimed in {}", run.id, run.attempt, run.status);
    let course = Course::new(run.status, run.attempt, run.retries());
    let place = place(context, &run).await;
    // Of an attempt that nobody had before nothing was brought over yet.
    let progress = (!is_adopted).then(Progress::default);
    let mut driver = Driver { context, lease, held, attempt, run, course, place, progress, waits_for: None };
    match driver.drive_to_the_end().await {
        Ok(status) => info!(run.status = %status, "run {}: {status}", lease.run_id),
        Err(Stop::LeaseLost) => {
            context.settings.figures.lost();
            warn!("run {}: the lease was lost; another worker has it", lease.run_id);
        }
        Err(Stop::Shutdown) => {
            if let Err(error) = context.storage.release_lease(&lease, Duration::ZERO).await {
                warn!("run {}: could not give the lease back, it ends by itself: {error}", lease.run_id);
            }
        }
    }
}

/// What is to be done next, with what is known of the lease.
fn next(course: &mut Course, signal: Signal) -> Result<Act, Stop> {
    // What was written last gave the lease back: that it is not renewed any more is no news.
    if let leave @ Act::Leave(_) = course.act() {
        return Ok(leave);
    }
    match signal {
        Signal::Lost => return Err(Stop::LeaseLost),
        // The database said so: the API has written that status.
        Signal::CancelRequested => course.cancel_requested(),
        Signal::Held => {}
    }
    Ok(course.act())
}

/// How the script of a run reaches the service.
fn access<B>(context: &Context<B>, run: &Run) -> Option<ServiceAccess> {
    let settings = &context.settings;
    let vault = settings.vault.as_ref()?;
    let token = vault.script_token(run.id, run.attempt);
    Some(ServiceAccess { token, addresses: settings.service_addresses.clone() })
}

/// Where in its trace a run is, where anybody wants to know. Without it the run's spans stand alone.
async fn place<B>(context: &Context<B>, run: &Run) -> Option<TraceParent> {
    if !traces::are_wanted() {
        return None;
    }
    let place = context.storage.trace_parent(run.id).await.unwrap_or_else(|error| {
        warn!("run {}: its trace is not known, its spans stand alone: {error}", run.id);
        None
    });
    // It was taken from the queue, just now.
    let _claimed =
        traces::of_step("claim", run.id, run.attempt, &run.compute_target, place.as_ref()).entered();
    place
}

/// What came of an act, and of what was written beside it.
struct Beside<T> {
    /// None when it was left.
    answer: Option<T>,
    /// The status that the run turned out to be in, where anything was written.
    written: Option<Status>,
}

struct Driver<'a, B> {
    context: &'a Context<B>,
    lease: Lease,
    held: &'a HeldLease,
    attempt: Attempt,
    run: Run,
    /// Decides what is done next.
    course: Course,
    /// Where in its trace the run is.
    place: Option<TraceParent>,
    /// Of an adopted attempt: read from the database when first needed.
    progress: Option<Progress>,
    /// What was last recorded of what it waits for on the compute.
    waits_for: Option<String>,
}

impl<B: Backend> Driver<'_, B> {
    async fn drive_to_the_end(&mut self) -> Result<Status, Stop> {
        loop {
            if let Act::Leave(status) = next(&mut self.course, self.held.signal())? {
                self.clean_up().await;
                return Ok(status);
            }
            if self.context.shutdown.is_cancelled() {
                return Err(Stop::Shutdown);
            }
            // What is written carries the lease's token; what is done to the compute cannot, so the lease must be good now.
            self.trusted().await?;
            match self.course.act() {
                Act::Provision => {
                    let step = self.step(Step::Provision);
                    let call = step.span().in_scope(|| call("provision", &self.attempt));
                    let answer = self.context.backend.provision(&self.attempt).instrument(call).await;
                    step.ends(if answer.is_ok() { Outcome::Ok } else { Outcome::Failed });
                    self.course.provisioned(answer.map_err(|error| error.to_string()));
                }
                Act::Prepare => {
                    let step = self.step(Step::Prepare);
                    let answer = self.prepare().instrument(step.span()).await;
                    step.ends(outcome(&answer));
                    self.course.prepared(answer?);
                }
                Act::Submit => {
                    let step = self.step(Step::Submit);
                    let answer = self.submit().instrument(step.span()).await;
                    step.ends(outcome(&answer));
                    self.course.submitted(answer?);
                }
                Act::Watch => {
                    ship(self.context, &self.lease, &self.attempt, &mut self.progress).await?;
                    self.look().await?;
                }
                Act::Verify => self.look().await?,
                Act::Stop => self.stop().await?,
                Act::Gather => {
                    let step = self.step(Step::Collect);
                    let mut progress = self.progress.take();
                    let gathering = self.gather(&mut progress).instrument(step.span());
                    let gathered = self.beside_writing(gathering).await;
                    self.progress = progress;
                    let Beside { answer, written } = gathered?;
                    self.course_written(written);
                    let Some(gathered) = answer else { continue };
                    step.ends(outcome(&gathered));
                    gathered?;
                    let said = self.reported_failure().await?;
                    self.course.gathered(said, random_fraction());
                }
                Act::Send => {
                    let step = self.step(Step::Send);
                    let sending = self.send_data().instrument(step.span());
                    let Beside { answer, written } = self.beside_writing(sending).await?;
                    self.course_written(written);
                    let Some(unsent) = answer else { continue };
                    step.ends(match &unsent {
                        Ok(Some(_)) => Outcome::Failed,
                        Ok(None) => Outcome::Ok,
                        Err(stop) => Outcome::from(stop),
                    });
                    self.course.sent(unsent?, random_fraction());
                }
                Act::Write { from, steps } => {
                    let status = self.write(from, steps).await?;
                    self.course.written(status);
                }
                Act::Wait(pause) => {
                    self.pause(self.length_of(pause)).await;
                    self.course.waited();
                }
                // Seen to before anything else.
                Act::Leave(status) => return Ok(status),
            }
        }
    }

    /// Waits while nobody can be sure that the lease is still held: the database was not reached for too long, or the whole
    /// worker stood still.
    async fn trusted(&self) -> Result<(), Stop> {
        tokio::select! {
            signal = self.held.trusted() => match signal {
                Signal::Lost => Err(Stop::LeaseLost),
                Signal::Held | Signal::CancelRequested => Ok(()),
            },
            () = self.context.shutdown.cancelled() => Err(Stop::Shutdown),
        }
    }

    /// Does an act that may be done while moves before it are not written yet. When it takes so long that somebody may wait to see
    /// them they are written meanwhile; should the run turn out to be in another status then, the act is left.
    async fn beside_writing<T>(&self, act: impl Future<Output = T>) -> Result<Beside<T>, Stop> {
        let Some(Act::Write { from, steps }) = self.course.unwritten() else {
            return Ok(Beside { answer: Some(act.await), written: None });
        };
        tokio::pin!(act);
        tokio::select! {
            answer = &mut act => return Ok(Beside { answer: Some(answer), written: None }),
            () = tokio::time::sleep(UNSEEN) => {}
        }
        let status = self.write(from, steps).await?;
        let goes_on = status == self.course.status();
        let answer = if goes_on { Some(act.await) } else { None };
        Ok(Beside { answer, written: Some(status) })
    }

    fn course_written(&mut self, status: Option<Status>) {
        if let Some(status) = status {
            self.course.written(status);
        }
    }

    /// Asks the backend what has become of the attempt.
    async fn look(&mut self) -> Result<(), Stop> {
        let step = self.step(Step::Observe);
        let answer = self.context.backend.observe(&self.attempt).await.map_err(|error| error.to_string());
        step.ends(if answer.is_ok() { Outcome::Ok } else { Outcome::Unavailable });
        match &answer {
            // It has not begun; what it waits for on the compute, if it does, is for people to see.
            Ok(Observation::Queued { reason }) => self.waits(Some(reason.clone())).await?,
            Ok(Observation::Starting) => self.waits(None).await?,
            Ok(_) => {}
            Err(why) => warn!("run {}: the backend cannot be asked: {why}", self.run.id),
        }
        self.course.observed(answer, random_fraction());
        Ok(())
    }

    /// Has the backend end the attempt, and keeps that it took the order.
    async fn stop(&mut self) -> Result<(), Stop> {
        let step = self.step(Step::Cancel);
        let call = step.span().in_scope(|| call("cancel", &self.attempt));
        let answer = self.context.backend.cancel(&self.attempt).instrument(call).await;
        step.ends(if answer.is_ok() { Outcome::Ok } else { Outcome::Unavailable });
        let answer = answer.map_err(|error| error.to_string());
        match &answer {
            Ok(()) if self.course.status() == Status::CancelRequested => self.record_stop().await?,
            Ok(()) => {}
            Err(why) => warn!("run {}: could not be told to stop, trying again: {why}", self.run.id),
        }
        self.course.stopped(answer);
        Ok(())
    }

    async fn record_stop(&self) -> Result<(), Stop> {
        loop {
            match self.context.storage.record_stop_sent(&self.lease, self.context.clock.now()).await {
                Ok(Written::LeaseLost) => return Err(Stop::LeaseLost),
                Ok(Written::Done | Written::StatusIs(_)) => return Ok(()),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    fn length_of(&self, pause: Pause) -> Duration {
        match (pause, &self.attempt.backend.engine) {
            (Pause::Interval, Engine::Process) => self.context.settings.observe_interval,
            (Pause::Interval, Engine::Slurm(_) | Engine::Kubernetes(_)) => {
                self.context.settings.cluster_interval
            }
            (Pause::Retry, _) => jittered(RETRY_PAUSE),
            (Pause::Silence, _) => jittered(RETRY_PAUSE * 4),
        }
    }

    /// Waits, but not longer than until something happens that this run must know of.
    async fn pause(&self, pause: Duration) {
        // Once the cancel is being carried out only the lease's loss is news.
        let canceling = self.course.status() == Status::CancelRequested;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = self.held.interrupted(), if !canceling => {}
            () = self.held.lost(), if canceling => {}
            () = self.context.shutdown.cancelled() => {}
        }
    }

    /// Writes moves and answers the status that the run is in then.
    async fn write(&self, from: Status, steps: Vec<Move>) -> Result<Status, Stop> {
        loop {
            let now = self.context.clock.now();
            let transition = Transition { lease: self.lease, from, steps: steps.clone(), now };
            let written = match self.context.moves.done_for(transition.clone()).await {
                Ok(written) => written,
                // Whatever it was with the others: these can be tried by themselves.
                Err(BrokenOff) => Moves(self.context.storage.clone()).for_one(transition).await,
            };
            match written {
                Ok(Written::Done) => {
                    let mut at = from;
                    for step in &steps {
                        self.count(at, step);
                        at = step.status();
                    }
                    return Ok(at);
                }
                // Our own earlier write whose reply was lost, or somebody's cancel.
                Ok(Written::StatusIs(status)) => return Ok(status),
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

    /// Sends what the script wrote for datastores. A store that fails is asked again for a while; the answer is why not
    /// everything is there.
    async fn send_data(&self) -> Result<Option<String>, Stop> {
        let mut tries = 0;
        loop {
            match staging::send(self.context, &self.run.project, &self.attempt).await {
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
        if self.progress.as_ref().is_some_and(|progress| !progress.has_records()) {
            return Ok(None);
        }
        loop {
            match self.context.storage.reported_failure(self.attempt.run_id, self.attempt.number).await {
                Ok(said) => return Ok(said),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// Brings over the rest of the logs, and the outputs. A store that fails is asked again for a while; after that the
    /// run ends without what could not be had, and its history says so.
    async fn gather(&self, progress: &mut Option<Progress>) -> Result<Gathered, Stop> {
        let mut tries = 0;
        loop {
            let Err(error) = self.try_to_gather(progress).await else { return Ok(Gathered::All) };
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
                    return Ok(Gathered::Some);
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

    async fn try_to_gather(&self, progress: &mut Option<Progress>) -> Result<(), CollectError> {
        let progress = resumed(self.context, &self.attempt, progress).await?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::run::Retries;

    #[test]
    fn whose_run_has_ended_loses_no_lease() {
        let retries = Retries { max_attempts: 1, on_script_failure: false };
        let course = |status| Course::new(status, 1, retries);
        for ended in [Status::Completed, Status::Failed, Status::Canceled, Status::Queued] {
            for signal in [Signal::Held, Signal::CancelRequested, Signal::Lost] {
                let found = next(&mut course(ended), signal).ok();
                assert_eq!(found, Some(Act::Leave(ended)), "{signal:?}");
            }
        }
        assert!(matches!(next(&mut course(Status::Running), Signal::Lost), Err(Stop::LeaseLost)));
        assert_eq!(next(&mut course(Status::Running), Signal::Held).ok(), Some(Act::Watch));
        assert_eq!(next(&mut course(Status::Running), Signal::CancelRequested).ok(), Some(Act::Stop));
    }
}
