//! The life of a run: its statuses, why it ended, and which status may follow which.

mod cause;
mod status;

pub use cause::Cause;
pub use status::{Status, UnknownWord};

/// How the content of a log lies in the artifact store: the bytes from `k * LOG_SEGMENT_BYTES` up to
/// `(k + 1) * LOG_SEGMENT_BYTES` are the segment that starts at `k * LOG_SEGMENT_BYTES`. Small enough to be put again while
/// it grows, large enough that a long log has few of them.
pub const LOG_SEGMENT_BYTES: u64 = 256 * 1024;
