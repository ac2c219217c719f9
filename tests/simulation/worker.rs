//! A simulated worker: does the acts of a real `Course`, in bits that anything can happen between.

use estimatord::domain::run::{Act, Course};

use crate::store::{Claimed, LEASE_TTL_MILLISECONDS, Lease};

/// What a holder knows of its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Held,
    CancelRequested,
    Lost,
}

/// One run that a worker drives.
#[derive(Clone, Debug)]
pub struct Drive {
    pub lease: Lease,
    pub attempt: u32,
    pub course: Course,
    pub signal: Signal,
    /// Until when it acts without asking.
    pub trusted_until: i64,
    /// What it waits for by the clock.
    pub waits_until: i64,
    /// Something that is begun: it will be done whatever becomes of the lease.
    pub begun: Option<Act>,
}

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    pub name: String,
    pub is_alive: bool,
    /// It stands still until then.
    pub stands_until: i64,
    /// How far its machine's clock is off.
    pub skew_seconds: i64,
    pub drives: Vec<Drive>,
}

/// Like the real one: a lease is trusted for less long than it lasts.
pub const fn trusted_until(asked: i64) -> i64 {
    asked + LEASE_TTL_MILLISECONDS * 8 / 10
}

impl Worker {
    pub fn new(name: String) -> Self {
        Self { name, is_alive: true, stands_until: 0, skew_seconds: 0, drives: Vec::new() }
    }

    /// Begins to drive a run. If this worker did already, that lease is over.
    pub fn take(&mut self, claimed: &Claimed, course: Course, asked: i64) {
        for drive in &mut self.drives {
            if drive.lease.run == claimed.lease.run {
                drive.signal = Signal::Lost;
            }
        }
        self.drives.push(Drive {
            lease: claimed.lease,
            attempt: claimed.attempt,
            course,
            signal: if claimed.cancel_requested { Signal::CancelRequested } else { Signal::Held },
            trusted_until: trusted_until(asked),
            waits_until: 0,
            begun: None,
        });
    }

    /// What the database answered to a renewal.
    pub fn hear(&mut self, asked_for: &[Lease], renewed: &[(usize, bool)], asked: i64) {
        for drive in &mut self.drives {
            if !asked_for.contains(&drive.lease) || drive.signal == Signal::Lost {
                continue;
            }
            match renewed.iter().find(|(run, _)| *run == drive.lease.run) {
                Some((_, cancel)) => {
                    drive.trusted_until = trusted_until(asked);
                    if *cancel {
                        drive.signal = Signal::CancelRequested;
                    }
                }
                None => drive.signal = Signal::Lost,
            }
        }
    }
}

/// Randomness that a seed decides: the generator that Java calls `SplittableRandom`.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `sides`, which is not 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % sides
    }

    pub fn one_in(&mut self, sides: usize) -> bool {
        self.roll(sides) == 0
    }
}
