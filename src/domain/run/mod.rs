//! The life of a run: its statuses, why it ended, and which status may follow which.

mod cause;
mod status;

pub use cause::Cause;
pub use status::{Status, UnknownWord};
