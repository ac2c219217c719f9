//! What must never be, whatever happens.

use std::collections::{HashMap, HashSet};

use estimatord::domain::run::{Cause, Retries, Status};

use crate::{
    compute::{Compute, Name},
    operation::Outcome,
    store::Row,
};

/// What was found. Runs are numbered in the order in which they were posted, from 0.
#[derive(Debug, thiserror::Error)]
pub enum Violation {
    #[error("attempt {} of run {} was put into the compute's queue more than once", .0.1, .0.0)]
    StartedTwice(Name),
    #[error("two attempts of run {0} have processes at once")]
    TwoAtOnce(usize),
    #[error("run {run} had ended and was changed: {was:?} became {is:?}")]
    EndRewritten { run: usize, was: Row, is: Row },
    #[error("run {run} went back from attempt {was} to {is}")]
    Backwards { run: usize, was: u32, is: u32 },
    #[error("run {run} has attempt {attempt}, which is more than it may have")]
    TooManyAttempts { run: usize, attempt: u32 },
    #[error("the cancel of run {run} was accepted, and then the run was {status}")]
    CancelBroken { run: usize, status: Status },
    #[error("run {} has ended, and attempt {} of it has not, or began afterwards", .0.0, .0.1)]
    Orphan(Name),
    #[error("the end of run {run} is not what became of its attempt, {outcome:?}: {row:?}")]
    UntrueEnd { run: usize, row: Row, outcome: Option<Outcome> },
    #[error("attempt {attempt} of run {run} was made though the one before had completed")]
    DoneAgain { run: usize, attempt: u32 },
    #[error("{0} runs at once are more than the target takes")]
    OverTheLimit(usize),
    #[error("this did not come to its end: {0}")]
    Stuck(String),
}

/// What was seen and promised so far.
#[derive(Debug, Default)]
pub struct Invariants {
    limit: usize,
    asked: HashSet<usize>,
    promised: HashSet<usize>,
    retries: Vec<Retries>,
    seen: HashMap<usize, Row>,
}

impl Invariants {
    pub fn new(limit: u32) -> Self {
        Self { limit: limit as usize, ..Self::default() }
    }

    /// Somebody asks for the end of this run, and may never hear the answer.
    pub fn asked(&mut self, run: usize) {
        self.asked.insert(run);
    }

    /// Whoever asked for the end of this run was told that it will come.
    pub fn promised(&mut self, run: usize) {
        self.promised.insert(run);
    }

    /// A run was accepted.
    pub fn accepted(&mut self, retries: Retries) {
        self.retries.push(retries);
    }

    /// Looks at everything.
    pub fn hold(&mut self, rows: &[Row], compute: &Compute) -> Result<(), Violation> {
        if let Some((name, _)) = compute.truths().find(|(_, truth)| truth.starts > 1) {
            return Err(Violation::StartedTwice(name));
        }
        let mut lively = HashSet::new();
        for (run, attempt) in compute.live() {
            if !lively.insert(run) {
                return Err(Violation::TwoAtOnce(run));
            }
            if rows[run].status.is_terminal() {
                return Err(Violation::Orphan((run, attempt)));
            }
        }
        let active = rows.iter().filter(|row| row.status.is_active()).count();
        if active > self.limit {
            return Err(Violation::OverTheLimit(active));
        }
        for (run, row) in rows.iter().enumerate() {
            self.run_holds(run, row, compute)?;
            if self.seen.get(&run) != Some(row) {
                self.seen.insert(run, row.clone());
            }
        }
        Ok(())
    }

    fn run_holds(&self, run: usize, row: &Row, compute: &Compute) -> Result<(), Violation> {
        if let Some(was) = self.seen.get(&run) {
            if was == row {
                return Ok(());
            }
            if was.status.is_terminal() {
                return Err(Violation::EndRewritten { run, was: was.clone(), is: row.clone() });
            }
            if row.attempt < was.attempt {
                return Err(Violation::Backwards { run, was: was.attempt, is: row.attempt });
            }
        }
        // A run whose reply was lost is accepted without the client knowing it yet.
        if self.retries.get(run).is_some_and(|retries| row.attempt > retries.max_attempts) {
            return Err(Violation::TooManyAttempts { run, attempt: row.attempt });
        }
        if self.promised.contains(&run) && !matches!(row.status, Status::CancelRequested | Status::Canceled) {
            return Err(Violation::CancelBroken { run, status: row.status });
        }
        if row.attempt > 1 && compute.truth((run, row.attempt - 1)).outcome == Some(Outcome::ExitCode(0)) {
            return Err(Violation::DoneAgain { run, attempt: row.attempt });
        }
        let outcome = compute.truth((run, row.attempt)).outcome;
        let is_true = match (row.status, row.cause) {
            (Status::Completed, cause) => {
                cause.is_none() && outcome == Some(Outcome::ExitCode(0)) && row.exit_code == Some(0)
            }
            (Status::Failed, Some(Cause::ScriptFailed)) => match outcome {
                Some(Outcome::ExitCode(code)) => code != 0 && row.exit_code == Some(code),
                Some(Outcome::Signal(signal)) => row.signal == Some(signal),
                _ => false,
            },
            (Status::Failed, Some(Cause::ComputeLost)) => outcome == Some(Outcome::Lost),
            (Status::Failed, Some(Cause::Preempted)) => outcome == Some(Outcome::Preempted),
            (Status::Failed, Some(Cause::DispatchFailed)) => outcome.is_none(),
            (Status::Failed, _) => false,
            (Status::Canceled, cause) => self.asked.contains(&run) && cause == Some(Cause::CanceledByUser),
            _ => true,
        };
        if is_true { Ok(()) } else { Err(Violation::UntrueEnd { run, row: row.clone(), outcome }) }
    }

    /// Once everything has calmed down.
    pub fn all_is_over(&mut self, rows: &[Row], compute: &Compute) -> Result<(), Violation> {
        self.hold(rows, compute)?;
        if rows.len() != self.retries.len() {
            let posted = self.retries.len();
            return Err(Violation::Stuck(format!("{posted} runs were posted, {} are there", rows.len())));
        }
        match compute.live().next() {
            Some(name) => Err(Violation::Orphan(name)),
            None => Ok(()),
        }
    }
}
