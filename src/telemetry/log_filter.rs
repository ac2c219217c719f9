//! What is logged, which can be changed while the service runs: for a while by the API, or until the next signal.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use tracing::warn;
use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, reload};

/// Longer filters say nothing that a shorter one cannot.
const MAX_BYTES: usize = 1000;

/// What is added to the configured filter to see more, a step at a time.
const VERBOSE: [&str; 2] = ["estimatord=debug", "estimatord=trace"];

/// Why a filter is not used.
#[derive(Debug, thiserror::Error)]
pub enum LogFilterError {
    /// It says nothing.
    #[error("the filter is empty: write a level, or levels of parts, as in `info,sqlx=warn`")]
    Empty,
    /// It is too long.
    #[error("the filter has more than {MAX_BYTES} bytes")]
    TooLong,
    /// It cannot be understood.
    #[error("the filter cannot be understood: {0}")]
    Unreadable(#[from] ParseError),
    /// Nothing is logged in this process.
    #[error("the filter cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// What is logged now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilterState {
    /// What is logged.
    pub filter: String,
    /// What was configured at the start.
    pub configured: String,
    /// Until when it is so; then it is as configured again. None when it stays.
    pub until: Option<DateTime<Utc>>,
}

#[derive(Debug)]
struct Present {
    filter: String,
    until: Option<DateTime<Utc>>,
    /// How many steps more than configured are logged.
    verbosity: usize,
    /// Counts changes, so that the end of an earlier one undoes no later one.
    change: u64,
}

/// What is logged by this process. Copies change it together.
#[derive(Clone, Debug)]
pub struct LogFilter {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: Arc<str>,
    present: Arc<Mutex<Present>>,
}

/// The part of a subscriber that asks the filter.
pub type FilterLayer = reload::Layer<EnvFilter, Registry>;

impl LogFilter {
    /// A filter as configured, and what asks it.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn new(configured: &str) -> Result<(Self, FilterLayer), LogFilterError> {
        let (layer, handle) = reload::Layer::new(parsed(configured)?);
        let present = Present { filter: configured.to_owned(), until: None, verbosity: 0, change: 0 };
        let filter = Self { handle, configured: configured.into(), present: Arc::new(Mutex::new(present)) };
        Ok((filter, layer))
    }

    /// What is logged now.
    #[must_use]
    pub fn state(&self) -> LogFilterState {
        let present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        LogFilterState {
            filter: present.filter.clone(),
            configured: self.configured.as_ref().to_owned(),
            until: present.until,
        }
    }

    /// Logs by another filter for a while, beginning `now`; the task that ends it lives in the runtime of the caller.
    ///
    /// # Errors
    /// When it cannot be understood. What was logged before is logged still.
    pub fn change(
        &self,
        filter: &str,
        period: Duration,
        now: DateTime<Utc>,
    ) -> Result<LogFilterState, LogFilterError> {
        let change = self.apply(filter, Some(now + period), 0)?;
        warn!(
            log.filter = filter,
            log.for_seconds = period.as_secs(),
            "log filter changed to `{filter}` for {} s",
            period.as_secs()
        );
        let ended = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(period).await;
            ended.end(change);
        });
        Ok(self.state())
    }

    /// Ends a change, unless another one came after it.
    fn end(&self, change: u64) {
        if self.present.lock().unwrap_or_else(PoisonError::into_inner).change == change {
            self.restore();
        }
    }

    /// Logs a step more than now, until told otherwise.
    pub fn more(&self) {
        let verbosity = self.present.lock().unwrap_or_else(PoisonError::into_inner).verbosity;
        let verbosity = (verbosity + 1).min(VERBOSE.len());
        let filter = format!("{},{}", self.configured, VERBOSE[verbosity - 1]);
        self.say(self.apply(&filter, None, verbosity));
    }

    /// Logs as configured.
    pub fn restore(&self) {
        self.say(self.apply(&self.configured, None, 0));
    }

    fn say(&self, applied: Result<u64, LogFilterError>) {
        let LogFilterState { filter, .. } = self.state();
        match applied {
            // A warning: it should be seen whatever is logged now.
            Ok(_) => warn!(log.filter = filter, "log filter changed to `{filter}`"),
            Err(error) => warn!(log.filter = filter, "log filter stays `{filter}`: {error}"),
        }
    }

    fn apply(
        &self,
        filter: &str,
        until: Option<DateTime<Utc>>,
        verbosity: usize,
    ) -> Result<u64, LogFilterError> {
        let parsed = parsed(filter)?;
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        self.handle.reload(parsed)?;
        *present = Present { filter: filter.to_owned(), until, verbosity, change: present.change + 1 };
        Ok(present.change)
    }
}

fn parsed(filter: &str) -> Result<EnvFilter, LogFilterError> {
    if filter.trim().is_empty() {
        return Err(LogFilterError::Empty);
    }
    if filter.len() > MAX_BYTES {
        return Err(LogFilterError::TooLong);
    }
    Ok(EnvFilter::try_new(filter)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(filter: &str, until: Option<DateTime<Utc>>) -> LogFilterState {
        LogFilterState { filter: filter.to_owned(), configured: "info".to_owned(), until }
    }

    #[tokio::test]
    async fn a_change_ends_and_only_the_last_one_counts() {
        let (filter, _layer) = LogFilter::new("info").expect("a filter");
        let (now, minute) = (DateTime::UNIX_EPOCH, Duration::from_secs(60));
        let changed = filter.change("debug", minute, now).expect("changed");
        assert_eq!(changed, state("debug", Some(now + minute)));
        filter.change("warn", minute, now).expect("changed");
        filter.end(1);
        assert_eq!(filter.state().filter, "warn", "the first one's time is over, the second one's is not");
        filter.end(2);
        assert_eq!(filter.state(), state("info", None));
    }

    #[test]
    fn signals_lead_up_step_by_step_and_down_at_once() {
        let (filter, _layer) = LogFilter::new("info").expect("a filter");
        for more in ["info,estimatord=debug", "info,estimatord=trace", "info,estimatord=trace"] {
            filter.more();
            assert_eq!(filter.state(), state(more, None));
        }
        filter.restore();
        assert_eq!(filter.state(), state("info", None));
    }

    #[tokio::test]
    async fn what_cannot_be_understood_changes_nothing() {
        let (filter, _layer) = LogFilter::new("info").expect("a filter");
        for unfit in ["", "   ", "a=b=c", "estimatord=loud", &"x".repeat(1001)] {
            let refused = filter.change(unfit, Duration::from_secs(1), DateTime::UNIX_EPOCH);
            assert!(refused.is_err(), "{unfit}");
        }
        assert_eq!(filter.state(), state("info", None));
    }
}
