//! Time and randomness, passed in wherever they are needed. The only file that may ask the machine for them.

use chrono::{DateTime, SubsecRound, Utc};

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Now, in whole microseconds (what PostgreSQL keeps).
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now().trunc_subsecs(6)
    }
}

/// `N` random bytes of the operating system's generator.
#[must_use]
pub fn entropy<const N: usize>() -> [u8; N] {
    rand::random()
}
