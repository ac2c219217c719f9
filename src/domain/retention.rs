//! How long runs are kept after their end.

use std::{fmt, str::FromStr, time::Duration};

/// Shorter periods are no use: a caller who waits for the end of a run must find it.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longer ones are for ever, and beyond what a database can subtract from its clock.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// How long a run is kept after its end, as an operator writes it: `90d`, `36h`, `1h 30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepRuns(Duration);

/// Why a text is no such period.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoPeriod {
    /// It cannot be read.
    #[error("{0}; write a number and its unit, as in `90d` or `36h`")]
    Unreadable(String),
    /// It is outside what can be kept.
    #[error("runs can be kept for a second at least and a hundred years at most")]
    OutOfRange,
}

impl KeepRuns {
    /// The period.
    #[must_use]
    pub const fn period(self) -> Duration {
        self.0
    }

    /// How often old runs are looked for: often enough that none stays much longer than it should.
    #[must_use]
    pub fn interval(self) -> Duration {
        (self.0 / 10).clamp(SHORTEST, Duration::from_secs(60))
    }
}

impl FromStr for KeepRuns {
    type Err = NoPeriod;

    fn from_str(text: &str) -> Result<Self, NoPeriod> {
        let period =
            humantime::parse_duration(text).map_err(|error| NoPeriod::Unreadable(error.to_string()))?;
        if (SHORTEST..=LONGEST).contains(&period) { Ok(Self(period)) } else { Err(NoPeriod::OutOfRange) }
    }
}

impl fmt::Display for KeepRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(text: &str) -> Result<u64, NoPeriod> {
        text.parse::<KeepRuns>().map(|keep| keep.period().as_secs())
    }

    #[test]
    fn periods_are_read_as_people_write_them() {
        assert_eq!(period("90d"), Ok(90 * 86_400));
        assert_eq!(period("36h"), Ok(36 * 3600));
        assert_eq!(period("1h 30m"), Ok(5400));
    }

    #[test]
    fn what_is_no_period_is_refused_with_a_way_out() {
        for text in ["", "90", "d", "-1d", "soon"] {
            let error = period(text).expect_err(text);
            assert!(error.to_string().contains("`90d`"), "{text}: {error}");
        }
        for text in ["0s", "999ms", "101y"] {
            assert_eq!(period(text), Err(NoPeriod::OutOfRange), "{text}");
        }
    }

    #[test]
    fn short_periods_are_kept_exactly_and_long_ones_to_a_minute() {
        let interval = |text: &str| text.parse::<KeepRuns>().expect("a period").interval().as_secs();
        assert_eq!((interval("2s"), interval("100s"), interval("90d")), (1, 10, 60));
    }
}
