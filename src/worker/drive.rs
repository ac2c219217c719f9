//! One run, from the status in which it was claimed to its end.
//!
//! What is done next, and what that leads to, is decided by a pure machine (`domain::run::Course`); this file only does it. Each
//! act is idempotent: after a crash the next holder of the run does it again.

mod gather;
mod hand_over;
mod prepare;
mod step;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use tracing::{Instrument as _, error, info, warn};

use super::{
    Context,
    collect::Progress,
    jittered,
    leases::{HeldLease, Signal},
    moves::Moves,
    random_fraction,
};
use crate::{
    backend::{Attempt, Backend, ServiceAccess},
    domain::{
        compute_target::Engine,
        ids::{EstimatorId, RunId},
        project::Project,
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
use gather::ship;
use step::{call, outcome};

/// How long to wait before a database, an artifact store or a machine that did not answer is asked again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long moves of a run may not be written yet while the next act is being done.
const UNSEEN: Duration = Duration::from_millis(20);

/// Why driving a run stopped before its end.
enum Stop {
    /// Somebody else has it.
    LeaseLost,
    /// The worker shuts down: let go of it.
    Shutdown,
}

/// Drives a claimed run until it ends, its lease is lost, or the worker shuts down.
pub(in crate::worker) async fn drive<B: Backend>(context: &Context<B>, claimed: Claimed, held: &HeldLease) {
    let Claimed { lease, run, is_adopted } = claimed;
    info!(run.status = %run.status, "run {} attempt {}: claimed in {}", run.id, run.attempt, run.status);
    let course = Course::new(run.status, run.attempt, run.retries());
    let place = place(context, &run).await;
    let access = access(context, &run);
    let attempt = Attempt {
        run_id: run.id,
        number: run.attempt,
        experiment_name: run.experiment_name,
        tags: run.tags,
        plan: run.plan,
        backend: run.backend,
        registry: None,
        access,
    };
    let run = DrivenRun {
        id: run.id,
        project: run.project,
        estimator_id: run.estimator_id,
        compute_target: run.compute_target,
        created_at: run.created_at,
        definition: if course.act() == Act::Prepare { run.definition } else { Map::new() },
        actual_environment: run.actual_environment,
    };
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

/// What is needed of a run besides its attempt. A worker may hold ten thousand for days: nothing else is kept of them.
struct DrivenRun {
    id: RunId,
    project: Project,
    estimator_id: EstimatorId,
    compute_target: String,
    created_at: DateTime<Utc>,
    /// Until it is prepared, and empty then.
    definition: Map<String, Value>,
    /// Once it is prepared.
    actual_environment: Option<Value>,
}

struct Driver<'a, B> {
    context: &'a Context<B>,
    lease: Lease,
    held: &'a HeldLease,
    attempt: Attempt,
    run: DrivenRun,
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
                Box::pin(self.clean_up()).await;
                return Ok(status);
            }
            if self.context.shutdown.is_cancelled() {
                return Err(Stop::Shutdown);
            }
            // What is written carries the lease's token; what is done to the compute cannot, so the lease must be good now.
            self.trusted().await?;
            match self.course.act() {
                Act::Wait(pause) => {
                    self.pause(self.length_of(pause)).await;
                    self.course.waited();
                }
                // Most runs wait at any time: what the acts need in memory is there only while they are done. Looking, which is done
                // most often, needs the least, and is by itself.
                act @ (Act::Watch | Act::Verify) => Box::pin(self.watch(&act)).await?,
                act => Box::pin(self.take(act)).await?,
            }
        }
    }

    /// Does an act, and tells the course what came of it.
    async fn take(&mut self, act: Act) -> Result<(), Stop> {
        match act {
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
            Act::Stop => self.stop().await?,
            Act::Gather => {
                let step = self.step(Step::Collect);
                let mut progress = self.progress.take();
                let gathering = self.gather(&mut progress).instrument(step.span());
                let gathered = self.beside_writing(gathering).await;
                self.progress = progress;
                let Beside { answer, written } = gathered?;
                self.course_written(written);
                let Some(gathered) = answer else { return Ok(()) };
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
                let Some(unsent) = answer else { return Ok(()) };
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
            // Seen to by the caller.
            Act::Wait(_) | Act::Leave(_) | Act::Watch | Act::Verify => {}
        }
        Ok(())
    }

    /// Looks at what has become of the attempt, and brings over what it wrote where that is asked for.
    async fn watch(&mut self, act: &Act) -> Result<(), Stop> {
        if *act == Act::Watch {
            ship(self.context, &self.lease, &self.attempt, &mut self.progress).await?;
        }
        self.look().await
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
        let DrivenRun { compute_target, created_at, .. } = &self.run;
        let one_off = self.attempt.plan.one_off_target.is_some();
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

    async fn wait_a_little(&self) -> Result<(), Stop> {
        tokio::select! {
            () = tokio::time::sleep(jittered(RETRY_PAUSE)) => Ok(()),
            () = self.held.lost() => Err(Stop::LeaseLost),
            () = self.context.shutdown.cancelled() => Err(Stop::Shutdown),
        }
    }

    /// The attempt's directory is only a copy now. When it cannot be removed the disk says so, not the run.
    async fn clean_up(&self) {
        if let Err(error) = self.context.backend.remove(&self.attempt).await {
            warn!("run {}: could not remove what attempt {} left: {error}", self.run.id, self.attempt.number);
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
