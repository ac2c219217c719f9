//! The grammars that rules refer to: pure functions from text to what it says.

pub(crate) mod conda;
pub(crate) mod image;
pub(crate) mod paths;
pub(crate) mod pip;
pub(crate) mod requirements;
pub(crate) mod shm;
pub(crate) mod words;
