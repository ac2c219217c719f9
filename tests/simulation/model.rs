//! The database as it is meant to be. `twin.rs` holds it to the real one.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use estimatord::{
    domain::run::{Move, Retries, Status},
    storage::transitions::Written,
};

use crate::store::{Claimed, LEASE_TTL_MILLISECONDS, Lease, Row, Store};

#[derive(Clone, Debug)]
struct Run {
    row: Row,
    node: Option<String>,
    lease: Option<(u64, String)>,
    /// `None`: before all time.
    lease_expires_at: Option<i64>,
    next_step_at: Option<i64>,
    cancel_requested: bool,
    stop_sent: bool,
}

/// A database in memory.
#[derive(Debug)]
pub struct Model {
    now: i64,
    bound: bool,
    limit: usize,
    runs: Vec<Run>,
    keys: HashMap<usize, usize>,
    tokens: u64,
}

impl Model {
    pub fn new(bound: bool, limit: u32) -> Self {
        Self { now: 0, bound, limit: limit as usize, runs: Vec::new(), keys: HashMap::new(), tokens: 0 }
    }

    fn token(&mut self) -> u64 {
        // The same as what the feature does to the real storage.
        if cfg!(feature = "sabotage") {
            return 0;
        }
        self.tokens += 1;
        self.tokens
    }

    fn claim(&mut self, run: usize, node: &str) -> Claimed {
        let token = self.token();
        let now = self.now;
        let claimed = &mut self.runs[run];
        claimed.lease = Some((token, node.to_owned()));
        claimed.lease_expires_at = Some(now + LEASE_TTL_MILLISECONDS);
        Claimed {
            lease: Lease { run, token },
            status: claimed.row.status,
            attempt: claimed.row.attempt,
            cancel_requested: claimed.cancel_requested,
        }
    }

    fn held(&mut self, lease: Lease) -> Option<&mut Run> {
        let run = &mut self.runs[lease.run];
        run.lease.as_ref().is_some_and(|(token, _)| *token == lease.token).then_some(run)
    }
}

impl Run {
    fn drop_lease(&mut self) {
        self.lease = None;
        self.lease_expires_at = None;
    }
}

impl Store for Model {
    fn submit(&mut self, key: usize, _retries: Retries) -> usize {
        if let Some(run) = self.keys.get(&key) {
            return *run;
        }
        let row = Row {
            status: Status::Queued,
            cause: None,
            exit_code: None,
            signal: None,
            attempt: 0,
            is_leased: false,
        };
        self.runs.push(Run {
            row,
            node: None,
            lease: None,
            lease_expires_at: None,
            next_step_at: None,
            cancel_requested: false,
            stop_sent: false,
        });
        self.keys.insert(key, self.runs.len() - 1);
        self.runs.len() - 1
    }

    fn cancel(&mut self, run: usize) -> bool {
        let run = &mut self.runs[run];
        match run.row.status {
            status if status.is_terminal() => return false,
            Status::CancelRequested => return true,
            Status::Queued => {
                run.row.status = Status::Canceled;
                run.row.cause = Some(estimatord::domain::run::Cause::CanceledByUser);
            }
            _ => run.row.status = Status::CancelRequested,
        }
        run.cancel_requested = true;
        run.next_step_at = None;
        true
    }

    fn admit(&mut self, node: &str, _now: DateTime<Utc>) -> Vec<Claimed> {
        let active = self.runs.iter().filter(|run| run.row.status.is_active()).count();
        let due =
            |run: &Run| run.row.status == Status::Queued && run.next_step_at.is_none_or(|at| at <= self.now);
        let places = self.limit.saturating_sub(active);
        let admitted: Vec<usize> =
            (0..self.runs.len()).filter(|run| due(&self.runs[*run])).take(places).collect();
        let bound = self.bound.then(|| node.to_owned());
        let mut claimed = Vec::new();
        for run in admitted {
            let one = &mut self.runs[run];
            one.row = Row {
                status: Status::Preparing,
                attempt: one.row.attempt + 1,
                exit_code: None,
                signal: None,
                ..one.row.clone()
            };
            one.node.clone_from(&bound);
            one.next_step_at = None;
            claimed.push(self.claim(run, node));
        }
        claimed
    }

    fn adopt(&mut self, node: &str) -> Vec<Claimed> {
        let now = self.now;
        let due = |run: &Run| {
            run.row.status.is_active()
                && run.lease_expires_at.is_none_or(|at| at <= now)
                && run.next_step_at.is_none_or(|at| at <= now)
                && run.node.as_ref().is_none_or(|bound| bound == node)
        };
        let adopted: Vec<usize> = (0..self.runs.len()).filter(|run| due(&self.runs[*run])).collect();
        adopted.into_iter().map(|run| self.claim(run, node)).collect()
    }

    fn renew(&mut self, leases: &[Lease]) -> Vec<(usize, bool)> {
        let now = self.now;
        let mut renewed = Vec::new();
        for lease in leases {
            if let Some(run) = self.held(*lease) {
                run.lease_expires_at = Some(now + LEASE_TTL_MILLISECONDS);
                renewed.push((lease.run, run.cancel_requested));
            }
        }
        renewed
    }

    fn release(&mut self, lease: Lease) {
        let now = self.now;
        if let Some(run) = self.held(lease) {
            run.drop_lease();
            run.next_step_at = Some(now);
        }
    }

    fn release_all_of(&mut self, node: &str) {
        for run in &mut self.runs {
            if run.lease.as_ref().is_some_and(|(_, owner)| owner == node) {
                run.drop_lease();
            }
        }
    }

    fn move_run(&mut self, lease: Lease, from: Status, steps: &[Move], _now: DateTime<Utc>) -> Written {
        let now = self.now;
        let Some(run) = self.held(lease) else { return Written::LeaseLost };
        if run.row.status != from {
            return Written::StatusIs(run.row.status);
        }
        let mut next = from;
        for step in steps {
            assert!(next.may_become(step.status()), "nobody goes from {next} to {}", step.status());
            next = step.status();
        }
        assert!(from.may_be_written_as(next), "the database refuses {from} to {next}");
        run.row.status = next;
        run.row.cause = None;
        let step = steps.last().expect("a move");
        match step {
            Move::To { .. } => run.next_step_at = Some(now),
            Move::End { ending, .. } | Move::Requeue { ending, .. } => {
                run.row.exit_code = ending.exit_code;
                run.row.signal = ending.signal;
                run.drop_lease();
                run.next_step_at = Some(now);
            }
        }
        match step {
            Move::End { ending, .. } => run.row.cause = ending.cause,
            Move::Requeue { delay, .. } => {
                run.next_step_at = Some(now + delay.num_milliseconds());
                run.node = None;
            }
            Move::To { .. } => {}
        }
        Written::Done
    }

    fn record_stop(&mut self, lease: Lease, _now: DateTime<Utc>) -> Written {
        let Some(run) = self.held(lease) else { return Written::LeaseLost };
        if run.row.status != Status::CancelRequested || run.stop_sent {
            return Written::StatusIs(run.row.status);
        }
        run.stop_sent = true;
        Written::Done
    }

    fn pass(&mut self, milliseconds: i64) {
        self.now += milliseconds;
    }

    fn rows(&mut self) -> Vec<Row> {
        self.runs.iter().map(|run| Row { is_leased: run.lease.is_some(), ..run.row.clone() }).collect()
    }
}
