//! Clients, workers, a database and compute, and everything that can go wrong with them.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use estimatord::{
    domain::run::{Act, Cause, Course, Failure, Move, Pause, Prepared, Retries, Status, Submitted},
    storage::transitions::Written,
};

use crate::{
    compute::{Answer, Compute, Name},
    invariants::{Invariants, Violation},
    operation::{History, Operation},
    store::{Claimed, LEASE_TTL_MILLISECONDS, Store},
    worker::{Dice, Drive, Signal, Worker},
};

/// Everything there is.
pub struct World<S> {
    store: S,
    compute: Compute,
    workers: Vec<Worker>,
    dice: Dice,
    now: i64,
    bound: bool,
    database_is_away_until: i64,
    compute_is_away_until: i64,
    replies_to_drop: u32,
    /// What clients posted; the place is the idempotency key.
    posted: Vec<Retries>,
    /// By key.
    runs: Vec<usize>,
    /// Where an attempt was put, where that matters.
    places: HashMap<Name, usize>,
    /// Submissions that outlive the worker that made them, as a request under way does.
    late: Vec<Name>,
    invariants: Invariants,
}

/// The database did not answer, or its answer was lost.
struct NoReply;

impl<S: Store> World<S> {
    pub fn new(history: &History, store: S) -> Self {
        Self {
            store,
            compute: Compute::default(),
            workers: (0..history.workers).map(|n| Worker::new(format!("worker-{n}"))).collect(),
            dice: Dice::new(history.seed),
            now: 0,
            bound: history.bound,
            database_is_away_until: 0,
            compute_is_away_until: 0,
            replies_to_drop: 0,
            posted: Vec::new(),
            runs: Vec::new(),
            places: HashMap::new(),
            late: Vec::new(),
            invariants: Invariants::new(history.limit),
        }
    }

    /// Lets a history happen, and then everything calm down. What must never be is looked for after every step.
    pub fn live(&mut self, history: &History) -> Result<(), Violation> {
        for operation in &history.operations {
            self.happen(operation)?;
            self.check()?;
        }
        self.settle()
    }

    fn check(&mut self) -> Result<(), Violation> {
        self.invariants.hold(&self.store.rows(), &self.compute)
    }

    fn happen(&mut self, operation: &Operation) -> Result<(), Violation> {
        let workers = self.workers.len();
        match *operation {
            Operation::Submit { max_attempts, on_script_failure } => {
                self.post(Retries { max_attempts, on_script_failure });
            }
            Operation::Rerun { run } => {
                let again = self.posted[run % self.posted.len()];
                self.post(again);
            }
            Operation::Cancel { run } => {
                let run = self.runs[run % self.runs.len()];
                self.invariants.asked(run);
                if let Ok(accepted) = self.ask(|store| store.cancel(run))
                    && accepted
                {
                    self.invariants.promised(run);
                }
            }
            Operation::Tick { milliseconds, steps } => {
                for _ in 0..steps {
                    self.pass(milliseconds / i64::from(steps).max(1));
                    self.step();
                    self.check()?;
                }
            }
            Operation::Crash { worker, machine } => self.crash(worker % workers, machine),
            Operation::Restart { worker } => {
                let worker = worker % workers;
                for drive in std::mem::take(&mut self.workers[worker].drives) {
                    // A reply or not: it ends either way.
                    let _ = self.ask(|store| store.release(drive.lease));
                }
                self.begin(worker);
            }
            Operation::LoseLease { worker } => {
                self.workers[worker % workers].stands_until = self.now + LEASE_TTL_MILLISECONDS * 3 / 2;
                self.pass(LEASE_TTL_MILLISECONDS + 1);
            }
            Operation::BackendFinish { job, outcome } => self.compute.finish(job, outcome),
            Operation::LoseBackend { milliseconds } => self.compute_is_away_until = self.now + milliseconds,
            Operation::DropReply { replies } => self.replies_to_drop += replies,
            Operation::LosePostgres { milliseconds } => self.database_is_away_until = self.now + milliseconds,
            Operation::ClockJump { worker, seconds } => {
                self.workers[worker % workers].skew_seconds += seconds
            }
        }
        Ok(())
    }

    /// A client posts until it is answered, each time with the same key.
    fn post(&mut self, retries: Retries) {
        let key = self.posted.len();
        self.posted.push(retries);
        let run = loop {
            if self.now < self.database_is_away_until {
                self.pass(self.database_is_away_until - self.now);
            }
            if let Ok(run) = self.ask(|store| store.submit(key, retries)) {
                break run;
            }
        };
        self.runs.push(run);
        self.invariants.accepted(retries);
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now += milliseconds;
        self.store.pass(milliseconds);
        self.compute.is_silent = self.now < self.compute_is_away_until;
    }

    /// A worker's clock.
    fn clock(&self, worker: usize) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH
            + TimeDelta::days(20_000)
            + TimeDelta::milliseconds(self.now)
            + TimeDelta::seconds(self.workers[worker].skew_seconds)
    }

    /// Asks the database; sometimes it does what it was asked, and nobody hears of it.
    fn ask<T>(&mut self, question: impl FnOnce(&mut S) -> T) -> Result<T, NoReply> {
        if self.now < self.database_is_away_until {
            return Err(NoReply);
        }
        let answer = question(&mut self.store);
        if self.replies_to_drop > 0 {
            self.replies_to_drop -= 1;
            return Err(NoReply);
        }
        Ok(answer)
    }

    fn crash(&mut self, worker: usize, machine: bool) {
        let drives = std::mem::take(&mut self.workers[worker].drives);
        self.workers[worker].is_alive = false;
        if self.bound {
            if machine {
                let places = self.places.clone();
                self.compute.lose_all(|name| places.get(&name) == Some(&worker));
            }
            return;
        }
        // A request that is under way arrives, though nobody waits for the answer any more.
        self.late.extend(
            drives
                .iter()
                .filter(|drive| drive.begun == Some(Act::Submit))
                .map(|drive| (drive.lease.run, drive.attempt)),
        );
    }

    /// A worker starts: whoever held its leases before is dead.
    fn begin(&mut self, worker: usize) {
        let name = self.workers[worker].name.clone();
        self.workers[worker].is_alive = true;
        self.workers[worker].stands_until = 0;
        let _ = self.ask(|store| store.release_all_of(&name));
    }

    /// Somebody does something.
    fn step(&mut self) {
        match self.dice.roll(12) {
            0 => {
                let chosen = self.dice.roll(8);
                self.compute.advance(chosen);
            }
            1 if !self.late.is_empty() => {
                let chosen = self.dice.roll(self.late.len());
                let name = self.late.swap_remove(chosen);
                self.compute.submit(name);
            }
            _ => {
                let worker = self.dice.roll(self.workers.len());
                if !self.workers[worker].is_alive {
                    if self.dice.one_in(4) {
                        self.begin(worker);
                    }
                } else if self.workers[worker].stands_until <= self.now {
                    self.work(worker);
                }
            }
        }
    }

    fn work(&mut self, worker: usize) {
        let drives = self.workers[worker].drives.len();
        match self.dice.roll(drives + 3) {
            0 => self.claim(worker),
            1 => self.renew(worker),
            _ if drives == 0 => self.claim(worker),
            _ => {
                let chosen = self.dice.roll(drives);
                let begins_only = self.dice.one_in(5);
                self.drive(worker, chosen, begins_only);
            }
        }
    }

    fn claim(&mut self, worker: usize) {
        let (name, now, asked) = (self.workers[worker].name.clone(), self.clock(worker), self.now);
        let adopted = self.ask(|store| store.adopt(&name)).unwrap_or_default();
        let admitted = self.ask(|store| store.admit(&name, now)).unwrap_or_default();
        for claimed in adopted.into_iter().chain(admitted) {
            self.take(worker, &claimed, asked);
        }
    }

    fn take(&mut self, worker: usize, claimed: &Claimed, asked: i64) {
        let key = self.runs.iter().position(|run| *run == claimed.lease.run);
        let Some(retries) = key.and_then(|key| self.posted.get(key)) else {
            panic!("a run that nobody posted: {claimed:?}");
        };
        let course = Course::new(claimed.status, claimed.attempt, *retries);
        self.workers[worker].take(claimed, course, asked);
    }

    fn renew(&mut self, worker: usize) {
        let leases: Vec<_> = self.workers[worker].drives.iter().map(|drive| drive.lease).collect();
        let asked = self.now;
        if let Ok(renewed) = self.ask(|store| store.renew(&leases)) {
            self.workers[worker].hear(&leases, &renewed, asked);
        }
    }

    /// The next thing that one run needs. With `begins_only` it is begun and not yet done: everything can happen in between.
    fn drive(&mut self, worker: usize, chosen: usize, begins_only: bool) {
        let mut drive = self.workers[worker].drives.swap_remove(chosen);
        let act = match drive.begun.take() {
            Some(act) => act,
            None => {
                match drive.signal {
                    Signal::Lost => return,
                    Signal::CancelRequested => drive.course.cancel_requested(),
                    Signal::Held => {}
                }
                if self.now >= drive.trusted_until || self.now < drive.waits_until {
                    self.workers[worker].drives.push(drive);
                    return;
                }
                // What is not written yet is written meanwhile when the next act takes long.
                let takes_long = drive.course.unwritten().filter(|_| self.dice.one_in(2));
                let act = takes_long.unwrap_or_else(|| drive.course.act());
                if begins_only {
                    drive.begun = Some(act);
                    self.workers[worker].drives.push(drive);
                    return;
                }
                act
            }
        };
        if self.act(worker, &mut drive, act) {
            self.workers[worker].drives.push(drive);
        }
    }

    /// Does it. Whether the drive goes on.
    fn act(&mut self, worker: usize, drive: &mut Drive, act: Act) -> bool {
        let name = (drive.lease.run, drive.attempt);
        let (lease, now) = (drive.lease, self.clock(worker));
        let unheard = || "no answer".to_owned();
        let is_silent = self.compute.is_silent;
        let is_lost = !is_silent && self.replies_to_drop > 0 && self.dice.one_in(2);
        let jitter = 0.5;
        match act {
            Act::Provision => drive.course.provisioned(Ok("made".to_owned())),
            Act::Prepare => {
                let answer = self.prepare(name);
                drive.course.prepared(answer);
            }
            Act::Submit if is_silent => drive.course.submitted(Submitted::Silent(unheard())),
            Act::Submit => {
                let answer = match self.compute.submit(name) {
                    _ if is_lost => Submitted::Silent(unheard()),
                    Answer::Accepted => Submitted::Accepted,
                    Answer::Refused => Submitted::Failed(failure(Cause::DispatchFailed)),
                };
                self.places.insert(name, worker);
                drive.course.submitted(answer);
            }
            Act::Watch | Act::Verify => {
                let answer = if is_silent { Err(unheard()) } else { Ok(self.compute.observe(name, now)) };
                drive.course.observed(answer, jitter);
            }
            Act::Stop => {
                if !is_silent {
                    self.compute.stop(name);
                }
                let heard = !is_silent && !is_lost;
                if heard && drive.course.status() == Status::CancelRequested {
                    let _ = self.ask(|store| store.record_stop(lease, now));
                }
                drive.course.stopped(if heard { Ok(()) } else { Err(unheard()) });
            }
            Act::Gather => drive.course.gathered(None, jitter),
            Act::Send => drive.course.sent(None, jitter),
            Act::Write { from, ref steps } => {
                match self.ask(|store| store.move_run(lease, from, steps, now)) {
                    Ok(Written::Done) => drive.course.written(steps.last().map_or(from, Move::status)),
                    Ok(Written::StatusIs(status)) => drive.course.written(status),
                    Ok(Written::LeaseLost) => return false,
                    // Written again until somebody answers, whatever else is heard meanwhile.
                    Err(NoReply) => drive.begun = Some(act),
                }
            }
            Act::Wait(pause) => {
                drive.waits_until = self.now
                    + match pause {
                        Pause::Interval => 300,
                        Pause::Retry => 500,
                        Pause::Silence => 2_000,
                    };
                drive.course.waited();
            }
            Act::Leave(_) => {
                self.compute.remove(name);
                return false;
            }
        }
        true
    }

    fn prepare(&mut self, name: Name) -> Prepared {
        match self.dice.roll(24) {
            0 => Prepared::Again,
            1 => Prepared::Failed(failure(Cause::DispatchFailed)),
            _ => {
                self.compute.prepare(name);
                Prepared::Ready(serde_json::Value::Null)
            }
        }
    }

    /// Nothing goes wrong any more: everything that was begun must come to its end.
    fn settle(&mut self) -> Result<(), Violation> {
        self.database_is_away_until = 0;
        self.compute_is_away_until = 0;
        self.replies_to_drop = 0;
        for _ in 0..2_000 {
            self.pass(500);
            for worker in 0..self.workers.len() {
                if !self.workers[worker].is_alive {
                    self.begin(worker);
                }
                if self.workers[worker].stands_until > self.now {
                    continue;
                }
                self.claim(worker);
                self.renew(worker);
                for chosen in (0..self.workers[worker].drives.len()).rev() {
                    self.drive(worker, chosen, false);
                }
            }
            for name in std::mem::take(&mut self.late) {
                self.compute.submit(name);
            }
            self.compute.advance(0);
            if self.dice.one_in(4) {
                self.compute.finish(0, crate::operation::Outcome::ExitCode(0));
            }
            self.check()?;
            let is_over = self.store.rows().iter().all(|row| row.status.is_terminal() && !row.is_leased);
            if is_over && self.workers.iter().all(|worker| worker.drives.is_empty()) {
                return self.invariants.all_is_over(&self.store.rows(), &self.compute);
            }
        }
        Err(Violation::Stuck(format!("{:?}", self.store.rows())))
    }
}

fn failure(cause: Cause) -> Failure {
    Failure { cause, detail: "it would not".to_owned(), is_permanent: false }
}
