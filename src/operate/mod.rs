//! What operators do to an installation beside running it.

pub mod doctor;
pub mod rotate;
