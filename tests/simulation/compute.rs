//! A backend that keeps what `estimatord::backend::Backend` promises, and the truth about every attempt besides.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use estimatord::domain::run::{Exit, ExitReason, Observation};

use crate::operation::Outcome;

/// A run and the number of its attempt.
pub type Name = (usize, u32);

#[derive(Clone, Debug, PartialEq)]
enum Job {
    Prepared,
    Queued,
    Running,
    /// Told to stop; its grace is not over.
    Stopping,
    Ended(Outcome),
    /// Ended by the service.
    Stopped,
    /// Never started, and never to be.
    Barred,
}

/// What really became of an attempt, whatever is forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Truth {
    /// How often it was put into the compute's queue.
    pub starts: u32,
    /// How its processes ended by themselves.
    pub outcome: Option<Outcome>,
}

/// Simulated compute.
#[derive(Debug, Default)]
pub struct Compute {
    jobs: BTreeMap<Name, Job>,
    truth: BTreeMap<Name, Truth>,
    /// Whether it answers nobody.
    pub is_silent: bool,
}

/// What it answers to a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Accepted,
    /// There is nothing prepared under that name.
    Refused,
}

impl Compute {
    /// Puts files there. What exists of the attempt stays as it is.
    pub fn prepare(&mut self, name: Name) {
        self.jobs.entry(name).or_insert(Job::Prepared);
    }

    /// Looks the name up and starts what is prepared under it, as one thing.
    pub fn submit(&mut self, name: Name) -> Answer {
        match self.jobs.get_mut(&name) {
            None => Answer::Refused,
            Some(job) => {
                if *job == Job::Prepared {
                    *job = Job::Queued;
                    self.truth.entry(name).or_default().starts += 1;
                }
                Answer::Accepted
            }
        }
    }

    pub fn observe(&self, name: Name, now: DateTime<Utc>) -> Observation {
        let exited = |reason, exit_code, signal, started: bool| {
            let started_at = started.then(|| now - TimeDelta::seconds(1));
            Observation::Exited(Exit { exit_code, signal, ..Exit::new(reason, started_at, now) })
        };
        match self.jobs.get(&name) {
            None | Some(Job::Prepared) => Observation::NotFound,
            Some(Job::Queued) => Observation::Queued { reason: "Resources".to_owned() },
            Some(Job::Running | Job::Stopping) => Observation::Running { started_at: now },
            Some(Job::Ended(Outcome::ExitCode(code))) => exited(ExitReason::Exited, Some(*code), None, true),
            Some(Job::Ended(Outcome::Signal(signal))) => {
                exited(ExitReason::Exited, None, Some(*signal), true)
            }
            Some(Job::Ended(Outcome::Lost)) => Observation::Lost { detail: "gone".to_owned() },
            Some(Job::Ended(Outcome::Preempted)) => Observation::Preempted { detail: "preempted".to_owned() },
            Some(Job::Stopped) => exited(ExitReason::Canceled, None, Some(15), true),
            Some(Job::Barred) => exited(ExitReason::Canceled, None, None, false),
        }
    }

    /// Asks for the end; what never began never will.
    pub fn stop(&mut self, name: Name) {
        let job = self.jobs.entry(name).or_insert(Job::Barred);
        match job {
            Job::Prepared | Job::Queued => *job = Job::Barred,
            Job::Running => *job = Job::Stopping,
            Job::Stopping | Job::Ended(_) | Job::Stopped | Job::Barred => {}
        }
    }

    /// Forgets an attempt of which nothing is left.
    pub fn remove(&mut self, name: Name) {
        self.jobs.remove(&name);
    }

    /// Lets the `chosen` one of what can go on do so: a queued job begins, a stopping one is gone.
    pub fn advance(&mut self, chosen: usize) {
        let moving: Vec<Name> = self
            .jobs
            .iter()
            .filter(|(_, job)| matches!(job, Job::Queued | Job::Stopping))
            .map(|(name, _)| *name)
            .collect();
        if moving.is_empty() {
            return;
        }
        if let Some(job) = self.jobs.get_mut(&moving[chosen % moving.len()]) {
            *job = if *job == Job::Queued { Job::Running } else { Job::Stopped };
        }
    }

    /// Ends the `chosen` live job.
    pub fn finish(&mut self, chosen: usize, outcome: Outcome) {
        let live: Vec<Name> = self.live().collect();
        if live.is_empty() {
            return;
        }
        let name = live[chosen % live.len()];
        // A script begins before it ends; what waits can only get lost.
        let waits = self.jobs.get(&name) == Some(&Job::Queued);
        let outcome = if waits { Outcome::Lost } else { outcome };
        self.jobs.insert(name, Job::Ended(outcome));
        self.truth.entry(name).or_default().outcome = Some(outcome);
    }

    /// The machine is gone, and with it every process.
    pub fn lose_all(&mut self, of: impl Fn(Name) -> bool) {
        let live: Vec<Name> = self.live().filter(|name| of(*name)).collect();
        for name in live {
            self.jobs.insert(name, Job::Ended(Outcome::Lost));
            self.truth.entry(name).or_default().outcome = Some(Outcome::Lost);
        }
    }

    /// Attempts that have processes, or will without anybody doing anything.
    pub fn live(&self) -> impl Iterator<Item = Name> {
        self.jobs
            .iter()
            .filter(|(_, job)| matches!(job, Job::Queued | Job::Running | Job::Stopping))
            .map(|(name, _)| *name)
    }

    pub fn truth(&self, name: Name) -> Truth {
        self.truth.get(&name).copied().unwrap_or_default()
    }

    pub fn truths(&self) -> impl Iterator<Item = (Name, Truth)> {
        self.truth.iter().map(|(name, truth)| (*name, *truth))
    }
}
