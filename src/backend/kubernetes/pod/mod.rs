//! What runs in the pods of an attempt beside the script, and what goes between them and the workers: a tar each way.

mod connection;
mod hand_over;
mod pack;
mod stage;
#[cfg(test)]
mod tests;
mod unpack;

pub use self::{
    hand_over::{HandOver, hand_over},
    stage::{Stage, stage},
};
pub(super) use self::{pack::pack_bundle, unpack::unpack_returned};
