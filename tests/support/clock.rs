//! A clock that stands still until it is told to move.

use std::sync::Mutex;

use chrono::{DateTime, TimeDelta, Utc};
use estimatord::clock::Clock;

/// Starts on 2026-07-01, the day after the SDK's support ended.
pub struct FixedClock(Mutex<DateTime<Utc>>);

impl Default for FixedClock {
    fn default() -> Self {
        Self(Mutex::new(DateTime::from_timestamp(1_782_864_000, 0).expect("a valid time")))
    }
}

impl FixedClock {
    pub fn advance(&self, by: TimeDelta) {
        *self.0.lock().expect("not poisoned") += by;
    }
}

impl Clock for FixedClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().expect("not poisoned")
    }
}
