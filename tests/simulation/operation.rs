//! What can happen to the service, and histories of it.

use proptest::{collection::vec, prelude::*};

/// How the processes of an attempt end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    ExitCode(i32),
    Signal(i32),
    Lost,
    Preempted,
}

/// Something that happens. Numbers that name a run, a worker or a job are taken modulo how many there are, so that a history stays
/// one when it shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// A client posts a run.
    Submit { max_attempts: u32, on_script_failure: bool },
    /// A client posts once more what it posted before.
    Rerun { run: usize },
    /// A client asks for the end of a run.
    Cancel { run: usize },
    /// Time passes, while everybody who can does this many things in any order.
    Tick { milliseconds: i64, steps: u32 },
    /// `kill -9` of a worker; with it what runs on the machine, when that goes too.
    Crash { worker: usize, machine: bool },
    /// A worker is told to end, and its successor starts.
    Restart { worker: usize },
    /// A worker stands still until its leases are long over, and then goes on with what it was about to do.
    LoseLease { worker: usize },
    /// A job ends.
    BackendFinish { job: usize, outcome: Outcome },
    /// The compute does not answer for a while.
    LoseBackend { milliseconds: i64 },
    /// The next things that are asked of the database or the compute are done, and nobody hears of it.
    DropReply { replies: u32 },
    /// The database does not answer for a while.
    LosePostgres { milliseconds: i64 },
    /// The clock of a worker's machine is set.
    ClockJump { worker: usize, seconds: i64 },
}

/// Everything that a simulated world begins with, and what happens to it.
#[derive(Clone, Debug)]
pub struct History {
    /// Decides what happens in what order within a tick.
    pub seed: u64,
    /// How many workers.
    pub workers: usize,
    /// Whether processes can only be watched by the worker that started them, as those of one machine.
    pub bound: bool,
    /// How many runs the target takes at once.
    pub limit: u32,
    /// What happens.
    pub operations: Vec<Operation>,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => Just(Outcome::ExitCode(0)),
        2 => Just(Outcome::ExitCode(3)),
        1 => Just(Outcome::Signal(9)),
        2 => Just(Outcome::Lost),
        1 => Just(Outcome::Preempted),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let worker = 0..8_usize;
    let milliseconds = 200..60_000_i64;
    prop_oneof![
        3 => (1..=3_u32, any::<bool>()).prop_map(|(max_attempts, on_script_failure)| Operation::Submit { max_attempts, on_script_failure }),
        1 => (0..8_usize).prop_map(|run| Operation::Rerun { run }),
        2 => (0..8_usize).prop_map(|run| Operation::Cancel { run }),
        12 => (100..4_000_i64, 1..40_u32).prop_map(|(milliseconds, steps)| Operation::Tick { milliseconds, steps }),
        2 => (worker.clone(), any::<bool>()).prop_map(|(worker, machine)| Operation::Crash { worker, machine }),
        1 => worker.clone().prop_map(|worker| Operation::Restart { worker }),
        3 => worker.clone().prop_map(|worker| Operation::LoseLease { worker }),
        4 => (0..8_usize, outcome()).prop_map(|(job, outcome)| Operation::BackendFinish { job, outcome }),
        1 => milliseconds.clone().prop_map(|milliseconds| Operation::LoseBackend { milliseconds }),
        1 => (1..4_u32).prop_map(|replies| Operation::DropReply { replies }),
        1 => milliseconds.prop_map(|milliseconds| Operation::LosePostgres { milliseconds }),
        1 => (worker, -7_200..7_200_i64).prop_map(|(worker, seconds)| Operation::ClockJump { worker, seconds }),
    ]
}

/// Any history of up to `longest` operations. It begins with a run, or nothing can go wrong.
pub fn history(longest: usize) -> impl Strategy<Value = History> {
    let first =
        (1..=3_u32).prop_map(|max_attempts| Operation::Submit { max_attempts, on_script_failure: false });
    (any::<u64>(), 1..=3_usize, any::<bool>(), 1..=3_u32, first, vec(operation(), 1..longest)).prop_map(
        |(seed, workers, bound, limit, first, mut operations)| {
            operations.insert(0, first);
            History { seed, workers, bound, limit, operations }
        },
    )
}
