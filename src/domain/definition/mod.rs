//! The 34 parameters as received → a value that, if it exists, is valid.

/// A valid definition.
#[derive(Clone, Debug)]
pub struct Definition(());
