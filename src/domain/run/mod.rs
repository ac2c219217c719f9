//! The life of a run: its statuses, why it ended, which status may follow which, and what an observation leads to.

mod cause;
mod conclusion;
mod observation;
mod status;

pub use cause::Cause;
pub use conclusion::{
    Circumstances, Ending, Move, conclude_exit, conclude_failure, conclude_refusal, retry_delay,
};
pub use observation::{Exit, ExitReason, Observation};
pub use status::{Status, UnknownWord};

/// Logs lie in the artifact store in segments of this many bytes: segment `k` holds bytes `k * S` to `(k + 1) * S`.
/// Only the last one grows, and is then put again whole; so the size bounds what one new line costs.
pub const LOG_SEGMENT_BYTES: u64 = 256 * 1024;
