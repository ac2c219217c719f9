//! The life of a run: its statuses, why it ended, which status may follow which, and what an observation leads to.

mod blocked;
mod cause;
mod conclusion;
mod course;
mod observation;
mod queue_view;
mod status;

pub use blocked::{BlockCode, BlockedBy, Waiting, blocked_by, may_be_blocked};
pub use cause::Cause;
pub use conclusion::{
    Circumstances, Ending, Move, Retries, conclude_exit, conclude_failure, conclude_refusal, retry_delay,
};
pub use course::{Act, Course, Failure, Pause, Prepared, Submitted};
pub use observation::{Exit, ExitReason, Observation};
pub use queue_view::{Entrant, QueueView, TargetView};
pub use status::{Status, UnknownWord};

/// Logs lie in the artifact store in segments of this many bytes: segment `k` holds bytes `k * S` to `(k + 1) * S`.
/// Only the last one grows, and is then put again whole; so the size bounds what one new line costs.
pub const LOG_SEGMENT_BYTES: u64 = 256 * 1024;
