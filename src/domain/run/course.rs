//! What the holder of a run's lease does with it, one act at a time.
//!
//! A pure machine: [`Course::act`] says what is to be done next, whoever does it tells what came of it, and nothing else
//! decides. The worker does the acts on the real database and the real compute (`worker::drive`); the simulation
//! (`tests/simulation`) does them on a simulated one, in every order and with every failure. Each act may be done again: after
//! a crash the next holder begins a new course from the run's status.

use super::{
    Cause, Circumstances, Exit, Move, Observation, Retries, Status, conclude_exit, conclude_failure,
    conclude_refusal,
};

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Have the backend make the target of this one run.
    Provision,
    /// Make everything ready that must be there before the start.
    Prepare,
    /// Hand the attempt to the backend, which knows whether it was before.
    Submit,
    /// Ask the backend what has become of the attempt, after bringing over what logs have grown by.
    Watch,
    /// The same when everything was brought over.
    Verify,
    /// Ask the backend to end the attempt, and that it never begin.
    Stop,
    /// Bring over the rest of logs and records, and the outputs.
    Gather,
    /// Send what the script wrote for datastores.
    Send,
    /// Write moves, all at once, of which the first starts from this status.
    Write {
        /// The status.
        from: Status,
        /// The moves, in their order; at least one.
        steps: Vec<Move>,
    },
    /// Wait, then go on.
    Wait(Pause),
    /// The run needs nobody any more, or is back in the queue: remove what the attempt left.
    Leave(Status),
}

impl Act {
    /// Whether it may be done while moves before it are not written yet. It reads what the attempt left and keeps that under the
    /// lease: whoever takes the run over from the status before does it again. Writing takes them along.
    const fn may_precede_writing(&self) -> bool {
        matches!(self, Self::Gather | Self::Verify | Self::Send | Self::Write { .. })
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// Until the next look at a run that is where it should be.
    Interval,
    /// Until something that failed is tried again.
    Retry,
    /// Until compute that has been silent for a while is asked again.
    Silence,
}

/// What came of preparing.
#[derive(Clone, Debug, PartialEq)]
pub enum Prepared {
    /// All is there; the environment as it is to be recorded.
    Ready(serde_json::Value),
    /// It could not be asked for everything: once more.
    Again,
    /// It failed.
    Failed(Failure),
}

/// An attempt that failed without an exit of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// In words.
    pub detail: String,
    /// Whether trying again would end the same.
    pub is_permanent: bool,
}

/// What came of handing an attempt in.
#[derive(Clone, Debug, PartialEq)]
pub enum Submitted {
    /// The backend has it.
    Accepted,
    /// Whatever is needed for it could not be asked for: once more.
    Again,
    /// The backend does not answer.
    Silent(String),
    /// The backend will not, or cannot.
    Failed(Failure),
}

/// Where a course is.
#[derive(Clone, Debug, PartialEq)]
enum Stage {
    /// At what the status asks for.
    Begin,
    /// Handed in by this holder: look at it.
    Look,
    /// The backend was silent and knows nothing of it: hand it in again.
    HandInAgain,
    /// The attempt has failed: nothing of it may start later.
    Bar(Failure),
    /// Barred: the end is written when nothing of it is left, and not before.
    Barred(Failure),
    /// Nothing is left of it.
    GatherFailed(Failure),
    /// Told to stop.
    Stopping,
    /// Everything of it has ended.
    Gather,
    /// Everything was brought over; with what the script said of its own failure.
    Conclude(Option<String>),
    /// Only its data has still to be sent.
    Send(Exit, Option<String>),
    /// Decided.
    Write(Move),
}

/// What a worker does with the run whose lease it holds.
#[derive(Clone, Debug)]
pub struct Course {
    status: Status,
    /// Moves to `status` that are not written yet: a short run's are written together with its end.
    unwritten: Vec<Move>,
    /// The status that they start from.
    written: Status,
    attempt: u32,
    retries: Retries,
    stage: Stage,
    pause: Option<Pause>,
}

impl Course {
    /// From the status in which the run was claimed.
    #[must_use]
    pub const fn new(status: Status, attempt: u32, retries: Retries) -> Self {
        Self {
            status,
            unwritten: Vec::new(),
            written: status,
            attempt,
            retries,
            stage: Stage::Begin,
            pause: None,
        }
    }

    /// The status that the run is in, as far as this holder knows.
    #[must_use]
    pub const fn status(&self) -> Status {
        self.status
    }

    /// What is to be done next.
    #[must_use]
    pub fn act(&self) -> Act {
        let wanted = self.wanted();
        if wanted.may_precede_writing() { wanted } else { self.unwritten().unwrap_or(wanted) }
    }

    /// The writing of moves that are not written yet, for whoever takes long over the next act: people want to see how far the run is.
    #[must_use]
    pub fn unwritten(&self) -> Option<Act> {
        (!self.unwritten.is_empty()).then(|| Act::Write { from: self.written, steps: self.unwritten.clone() })
    }

    fn wanted(&self) -> Act {
        if let Some(pause) = self.pause {
            return Act::Wait(pause);
        }
        match &self.stage {
            Stage::Begin => match self.status {
                Status::Provisioning => Act::Provision,
                Status::Preparing => Act::Prepare,
                Status::Starting => Act::Submit,
                Status::Running | Status::NotResponding => Act::Watch,
                Status::Finalizing => Act::Gather,
                Status::CancelRequested => Act::Stop,
                Status::NotStarted
                | Status::Queued
                | Status::Completed
                | Status::Failed
                | Status::Canceled => Act::Leave(self.status),
            },
            Stage::HandInAgain => Act::Submit,
            Stage::Look | Stage::Barred(_) | Stage::Stopping => Act::Watch,
            Stage::Bar(_) => Act::Stop,
            Stage::GatherFailed(_) | Stage::Gather => Act::Gather,
            Stage::Conclude(_) => Act::Verify,
            Stage::Send(..) => Act::Send,
            Stage::Write(step) => {
                let steps = self.unwritten.iter().chain([step]).cloned().collect();
                Act::Write { from: self.written, steps }
            }
        }
    }

    /// Somebody asked for the run's end, and the database says so.
    pub fn cancel_requested(&mut self) {
        if self.status != Status::CancelRequested
            && !self.status.is_terminal()
            && self.status != Status::Queued
        {
            self.enter(Status::CancelRequested);
        }
    }

    /// The pause is over.
    pub const fn waited(&mut self) {
        self.pause = None;
    }

    /// What came of [`Act::Provision`]: what the target is.
    pub fn provisioned(&mut self, answer: Result<String, String>) {
        self.stage = match answer {
            Ok(detail) => Stage::Write(Move::because(Status::Preparing, detail)),
            Err(detail) => Stage::Bar(Failure { cause: Cause::DispatchFailed, detail, is_permanent: false }),
        };
    }

    /// What came of [`Act::Prepare`].
    pub fn prepared(&mut self, answer: Prepared) {
        match answer {
            Prepared::Ready(environment) => {
                self.stage = Stage::Write(Move::To {
                    status: Status::Starting,
                    detail: None,
                    started_at: None,
                    actual_environment: Some(environment),
                });
            }
            Prepared::Again => self.pause = Some(Pause::Retry),
            Prepared::Failed(failure) => self.stage = Stage::Bar(failure),
        }
    }

    /// What came of [`Act::Submit`].
    pub fn submitted(&mut self, answer: Submitted) {
        match (answer, self.status) {
            (Submitted::Accepted, Status::NotResponding) => {
                self.stage = Stage::Write(Move::to(Status::Starting));
            }
            (Submitted::Accepted, _) => self.stage = Stage::Look,
            (Submitted::Again, _) => self.pause = Some(Pause::Retry),
            (Submitted::Silent(why), _) => self.silent(&why),
            (Submitted::Failed(failure), _) => self.stage = Stage::Bar(failure),
        }
    }

    /// What came of [`Act::Watch`] and [`Act::Verify`].
    pub fn observed(&mut self, answer: Result<Observation, String>, jitter: f64) {
        match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Conclude(reported) => self.conclude(answer, reported, jitter),
            Stage::Barred(failure) => self.until_nothing_is_left(
                answer,
                Stage::Barred(failure.clone()),
                Stage::GatherFailed(failure),
            ),
            Stage::Stopping => self.until_nothing_is_left(answer, Stage::Stopping, Stage::Gather),
            Stage::Begin | Stage::Look => self.watched(answer),
            other => self.stage = other,
        }
    }

    /// What came of [`Act::Stop`].
    pub fn stopped(&mut self, answer: Result<(), String>) {
        if answer.is_err() {
            // Until the backend has heard it nothing may be concluded: it may start what it was handed.
            self.pause = Some(Pause::Retry);
            return;
        }
        self.stage = match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::Bar(failure) => Stage::Barred(failure),
            _ => Stage::Stopping,
        };
    }

    /// [`Act::Gather`] was done as far as it can be; with what the script said of its own failure.
    pub fn gathered(&mut self, reported_failure: Option<String>, jitter: f64) {
        self.stage = match std::mem::replace(&mut self.stage, Stage::Begin) {
            Stage::GatherFailed(failure) => {
                let circumstances = self.circumstances(jitter);
                let conclude = if failure.is_permanent { conclude_refusal } else { conclude_failure };
                Stage::Write(conclude(failure.cause, failure.detail, &circumstances))
            }
            _ => Stage::Conclude(reported_failure),
        };
    }

    /// [`Act::Send`] was done; with why not everything is there.
    pub fn sent(&mut self, unsent: Option<String>, jitter: f64) {
        if let Stage::Send(exit, reported_failure) = std::mem::replace(&mut self.stage, Stage::Begin) {
            let circumstances = Circumstances { reported_failure, unsent, ..self.circumstances(jitter) };
            self.stage = Stage::Write(conclude_exit(&exit, &circumstances));
        }
    }

    /// [`Act::Write`] was done, or the run turned out to be in another status: this one.
    pub fn written(&mut self, status: Status) {
        if matches!(self.stage, Stage::Write(_)) || status != self.status {
            self.enter(status);
        } else {
            // Only what came before the next act was.
            self.unwritten.clear();
            self.written = status;
        }
    }

    fn enter(&mut self, status: Status) {
        (self.status, self.written) = (status, status);
        self.unwritten.clear();
        self.stage = Stage::Begin;
        self.pause = None;
    }

    /// What a look at an attempt that was handed in leads to.
    fn watched(&mut self, answer: Result<Observation, String>) {
        let status = self.status;
        let step = match answer {
            Ok(Observation::Queued { .. } | Observation::Starting) if status == Status::NotResponding => {
                Move::to(Status::Starting)
            }
            Ok(Observation::Queued { .. } | Observation::Starting) => {
                return self.pause = Some(Pause::Interval);
            }
            Ok(Observation::Running { .. }) if status == Status::Running => {
                return self.pause = Some(Pause::Interval);
            }
            Ok(Observation::Running { started_at }) => Move::running(started_at),
            // It was quick: its having run is written all the same.
            Ok(Observation::Exited(Exit { started_at: Some(started_at), .. }))
                if status == Status::Starting =>
            {
                return self.finalize(Some(Move::running(started_at)));
            }
            Ok(Observation::Exited(_) | Observation::Lost { .. } | Observation::Preempted { .. }) => {
                return self.finalize(None);
            }
            // It did not get there before the backend fell silent.
            Ok(Observation::NotFound) if status == Status::NotResponding => {
                self.stage = Stage::HandInAgain;
                return;
            }
            Ok(Observation::NotFound) => {
                let detail = "the backend knows nothing of it any more".to_owned();
                self.stage = Stage::Bar(Failure { cause: Cause::ComputeLost, detail, is_permanent: false });
                return;
            }
            Err(why) => return self.silent(&why),
        };
        self.stage = Stage::Write(step);
    }

    /// Everything of it has ended, perhaps before its start was seen.
    fn finalize(&mut self, before: Option<Move>) {
        self.unwritten.extend(before);
        self.unwritten.push(Move::to(Status::Finalizing));
        self.status = Status::Finalizing;
    }

    /// The compute does not answer: the run keeps what it has, and says so.
    fn silent(&mut self, why: &str) {
        if self.status == Status::NotResponding {
            self.stage = Stage::Begin;
            self.pause = Some(Pause::Silence);
        } else {
            let detail = format!("the backend cannot be asked: {why}");
            self.stage = Stage::Write(Move::because(Status::NotResponding, detail));
        }
    }

    /// Nothing is written on suspicion: only when the backend says that nothing is left.
    fn until_nothing_is_left(&mut self, answer: Result<Observation, String>, again: Stage, then: Stage) {
        match answer {
            Ok(Observation::NotFound) => self.stage = then,
            Ok(observation) if observation.is_final() => self.stage = then,
            Ok(_) => (self.stage, self.pause) = (again, Some(Pause::Interval)),
            Err(_) => (self.stage, self.pause) = (again, Some(Pause::Retry)),
        }
    }

    fn conclude(&mut self, answer: Result<Observation, String>, reported: Option<String>, jitter: f64) {
        let circumstances =
            Circumstances { reported_failure: reported.clone(), ..self.circumstances(jitter) };
        let step = match answer {
            Ok(Observation::Exited(exit)) if exit.has_begun() && !circumstances.cancel_requested => {
                self.stage = Stage::Send(exit, reported);
                return;
            }
            Ok(Observation::Exited(exit)) => conclude_exit(&exit, &circumstances),
            Ok(Observation::Lost { detail }) => conclude_failure(Cause::ComputeLost, detail, &circumstances),
            Ok(Observation::Preempted { detail }) => {
                conclude_failure(Cause::Preempted, detail, &circumstances)
            }
            Ok(Observation::NotFound) => {
                conclude_failure(Cause::ComputeLost, "nothing was started".to_owned(), &circumstances)
            }
            Ok(Observation::Queued { .. } | Observation::Starting | Observation::Running { .. }) => {
                (self.stage, self.pause) = (Stage::Conclude(reported), Some(Pause::Interval));
                return;
            }
            Err(_) => {
                (self.stage, self.pause) = (Stage::Conclude(reported), Some(Pause::Retry));
                return;
            }
        };
        self.stage = Stage::Write(step);
    }

    fn circumstances(&self, jitter: f64) -> Circumstances {
        Circumstances {
            // What the database said counts, not what a heartbeat will say in a moment.
            cancel_requested: self.status == Status::CancelRequested,
            attempt: self.attempt,
            retries: self.retries,
            jitter,
            reported_failure: None,
            unsent: None,
        }
    }
}

#[cfg(test)]
mod tests;
