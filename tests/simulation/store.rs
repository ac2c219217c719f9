//! What the simulation needs of a database: what `estimatord::storage` promises to workers and clients, without the waiting.

use chrono::{DateTime, Utc};
use estimatord::{
    domain::run::{Cause, Move, Retries, Status},
    storage::transitions::Written,
};

/// How long a lease lasts unless it is renewed.
pub const LEASE_TTL_MILLISECONDS: i64 = 30_000;

/// The right to write to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Lease {
    /// The how manieth run.
    pub run: usize,
    pub token: u64,
}

/// A run that was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claimed {
    pub lease: Lease,
    pub status: Status,
    pub attempt: u32,
    pub cancel_requested: bool,
}

/// What anybody can see of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub status: Status,
    pub cause: Option<Cause>,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub attempt: u32,
    pub is_leased: bool,
}

/// A database of runs.
pub trait Store {
    /// Accepts a run under an idempotency key; the same key is the same run.
    fn submit(&mut self, key: usize, retries: Retries) -> usize;
    /// Whether the cancel is accepted; it is not when the run has ended.
    fn cancel(&mut self, run: usize) -> bool;
    /// Gives queued runs their places.
    fn admit(&mut self, node: &str, now: DateTime<Utc>) -> Vec<Claimed>;
    /// Takes over runs whose leases are over.
    fn adopt(&mut self, node: &str) -> Vec<Claimed>;
    /// Which of these leases go on, and whether the end of their runs was asked for.
    fn renew(&mut self, leases: &[Lease]) -> Vec<(usize, bool)>;
    fn release(&mut self, lease: Lease);
    fn release_all_of(&mut self, node: &str);
    /// Writes moves of a run, all at once.
    fn move_run(&mut self, lease: Lease, from: Status, steps: &[Move], now: DateTime<Utc>) -> Written;
    fn record_stop(&mut self, lease: Lease, now: DateTime<Utc>) -> Written;
    /// Time passes.
    fn pass(&mut self, milliseconds: i64);
    /// All runs as they are.
    fn rows(&mut self) -> Vec<Row>;
}
