//! Azure ML's status words, and which may follow which.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The status of a run, in Azure ML's words, so that code polling for them keeps working.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum Status {
    /// Known to a client, not yet accepted. The service stores no run in this status.
    NotStarted,
    /// Accepted; waits for a place on its compute target.
    Queued,
    /// A one-off target is being made for it.
    Provisioning,
    /// Has its place: source, inputs and environment are being made ready.
    Preparing,
    /// Handed to the backend; its script has not begun.
    Starting,
    /// Its script runs. The only status that counts against `max_run_duration_seconds`.
    Running,
    /// The backend cannot be asked; what is known of the run is from before.
    NotResponding,
    /// Its script has ended; logs and outputs are being collected.
    Finalizing,
    /// Somebody asked for its end; its processes may still be there.
    CancelRequested,
    /// Terminal: the script ended with exit code 0 and everything was collected.
    Completed,
    /// Terminal: it did not; `cause` says why.
    Failed,
    /// Terminal: stopped on request or over its time; the backend said that the processes are gone.
    Canceled,
}

/// A text that is none of the known words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known word here")]
pub struct UnknownWord(pub String);

impl Status {
    /// Every status, in the order of a run's life.
    pub const ALL: [Self; 12] = [
        Self::NotStarted,
        Self::Queued,
        Self::Provisioning,
        Self::Preparing,
        Self::Starting,
        Self::Running,
        Self::NotResponding,
        Self::Finalizing,
        Self::CancelRequested,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "NotStarted",
            Self::Queued => "Queued",
            Self::Provisioning => "Provisioning",
            Self::Preparing => "Preparing",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::NotResponding => "NotResponding",
            Self::Finalizing => "Finalizing",
            Self::CancelRequested => "CancelRequested",
            Self::Completed => "Completed",
            Self::Failed => "Failed",
            Self::Canceled => "Canceled",
        }
    }

    /// Written once, never overwritten.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Whether the run holds a place on its target.
    #[must_use]
    pub const fn is_active(self) -> bool {
        !self.is_terminal() && !matches!(self, Self::NotStarted | Self::Queued)
    }

    /// Whether `next` may follow `self`. The same table stands in the database (`migrations/`), and a test compares the two word by
    /// word.
    ///
    /// Three things that the table says: nothing follows a terminal status; once `CancelRequested` was
    /// acknowledged a run ends `Canceled` and nothing else; and an attempt that the system lost
    /// goes back to `Queued`.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        use Status::{
            CancelRequested, Canceled, Completed, Failed, Finalizing, NotResponding, NotStarted, Preparing,
            Provisioning, Queued, Running, Starting,
        };
        match self {
            NotStarted => matches!(next, Queued | Canceled),
            Queued => matches!(next, Provisioning | Preparing | CancelRequested | Canceled | Failed),
            Provisioning => matches!(next, Queued | Preparing | CancelRequested | Failed),
            Preparing => matches!(next, Queued | Starting | CancelRequested | Failed),
            Starting => {
                matches!(next, Queued | Running | Finalizing | NotResponding | CancelRequested | Failed)
            }
            Running => matches!(next, Queued | Finalizing | NotResponding | CancelRequested | Failed),
            NotResponding => {
                matches!(next, Queued | Starting | Running | Finalizing | CancelRequested | Failed)
            }
            Finalizing => matches!(next, Queued | Completed | Failed | Canceled | CancelRequested),
            CancelRequested => matches!(next, Canceled),
            Completed | Failed | Canceled => false,
        }
    }

    /// Whether moves that are written at once may lead from `self` to `next`: one that may follow, or what ends a run whose
    /// `Finalizing` is written together with its end. The database's trigger refuses all others.
    #[must_use]
    pub const fn may_be_written_as(self, next: Self) -> bool {
        let through = Self::Finalizing;
        self.may_become(next)
            || (!matches!(self, Self::CancelRequested)
                && next.is_terminal()
                && self.may_become(through)
                && through.may_become(next))
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Status {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|s| s.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse::<Status>(), Ok(status));
            let json = serde_json::to_string(&status).expect("a word is JSON");
            assert_eq!(json, format!("\"{status}\""));
        }
        assert_eq!("running".parse::<Status>(), Err(UnknownWord("running".to_owned())));
    }

    #[test]
    fn nothing_follows_a_terminal_status() {
        for from in Status::ALL.into_iter().filter(|s| s.is_terminal()) {
            assert!(Status::ALL.into_iter().all(|next| !from.may_become(next)), "{from}");
        }
    }

    #[test]
    fn a_cancelled_run_never_completes() {
        // Whatever path is taken from an acknowledged cancel, `Canceled` is its only end.
        let reachable: Vec<_> =
            Status::ALL.into_iter().filter(|next| Status::CancelRequested.may_become(*next)).collect();
        assert_eq!(reachable, [Status::Canceled]);
    }

    #[test]
    fn every_live_status_can_reach_an_end() {
        for start in Status::ALL {
            let mut seen = vec![start];
            let mut open = vec![start];
            while let Some(at) = open.pop() {
                for next in Status::ALL.into_iter().filter(|next| at.may_become(*next)) {
                    if !seen.contains(&next) {
                        seen.push(next);
                        open.push(next);
                    }
                }
            }
            assert!(seen.iter().any(|s| s.is_terminal()), "{start} leads nowhere");
        }
    }
}
