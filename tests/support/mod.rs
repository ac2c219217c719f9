//! Values that several test binaries need.

mod clock;
mod shown;
mod values;

pub use clock::FixedClock;
pub use shown::shown;
pub use values::{estimator, run, snapshot_id, store_snapshot, terms};
