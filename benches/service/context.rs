//! What every measurement is given.

use std::path::PathBuf;

/// Where and how to measure.
#[derive(Clone, Debug)]
pub struct Context {
    /// Seconds instead of minutes: for CI, which looks for regressions alone.
    pub short: bool,
    /// Empty, for this measurement alone; removed afterwards.
    pub directory: PathBuf,
    /// The service's binary, built with `--release`.
    pub estimatord: PathBuf,
    /// The repository.
    pub repository: PathBuf,
}
