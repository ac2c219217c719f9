//! Values that several test binaries need.

mod clock;
mod values;

pub use clock::FixedClock;
pub use values::{estimator, run, snapshot_id, store_snapshot, terms};
