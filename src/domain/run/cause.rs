//! Why an attempt ended the way it did.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::UnknownWord;

/// The typed reason for an end that was not an ordinary completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The script ended with another exit code than 0, or by a signal.
    ScriptFailed,
    /// Somebody called `cancel`.
    CanceledByUser,
    /// It ran longer than `max_run_duration_seconds`.
    MaxRunDurationExceeded,
    /// The compute took its place away.
    Preempted,
    /// The compute lost it: machine down, supervisor killed.
    ComputeLost,
    /// Its environment could not be built.
    EnvironmentBuildFailed,
    /// The backend refused to start it.
    DispatchFailed,
    /// A fault of this service.
    Internal,
    /// It was queued longer than `max_queue_duration_seconds`. It ends a run and no attempt: there was none.
    MaxQueueDurationExceeded,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::ScriptFailed,
        Self::CanceledByUser,
        Self::MaxRunDurationExceeded,
        Self::Preempted,
        Self::ComputeLost,
        Self::EnvironmentBuildFailed,
        Self::DispatchFailed,
        Self::Internal,
        Self::MaxQueueDurationExceeded,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ScriptFailed => "script_failed",
            Self::CanceledByUser => "canceled_by_user",
            Self::MaxRunDurationExceeded => "max_run_duration_exceeded",
            Self::Preempted => "preempted",
            Self::ComputeLost => "compute_lost",
            Self::EnvironmentBuildFailed => "environment_build_failed",
            Self::DispatchFailed => "dispatch_failed",
            Self::Internal => "internal",
            Self::MaxQueueDurationExceeded => "max_queue_duration_exceeded",
        }
    }

    /// Whether the system failed and not the definition: only then another attempt makes sense.
    #[must_use]
    pub const fn is_systems_fault(self) -> bool {
        matches!(self, Self::Preempted | Self::ComputeLost | Self::DispatchFailed | Self::Internal)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Cause {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|c| c.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for cause in Cause::ALL {
            assert_eq!(cause.as_str().parse::<Cause>(), Ok(cause));
            assert_eq!(serde_json::to_string(&cause).expect("a word is JSON"), format!("\"{cause}\""));
        }
    }
}
