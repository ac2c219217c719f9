//! Webhooks: who is told of a change of a run's status, how it is signed, and when it is tried again. The form is that of the
//! Standard Webhooks specification (version 1).

pub mod allow_list;
pub mod schedule;
pub mod signature;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    compute_target::ComputeTargetName,
    ids::RunId,
    run::{Cause, Status, UnknownWord},
};

/// The name of a webhook: the grammar is that of compute targets.
pub type WebhookName = ComputeTargetName;

/// What is sent when the status of a run has changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Message {
    /// `run.status_changed`.
    #[serde(rename = "type")]
    #[schema(example = "run.status_changed")]
    pub kind: &'static str,
    /// When it happened.
    pub timestamp: DateTime<Utc>,
    /// What happened.
    pub data: StatusChange,
}

/// A change of a run's status. Messages may come twice and out of order: `sequence` tells which is newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StatusChange {
    /// The run.
    pub run_id: RunId,
    /// Its experiment.
    pub experiment_name: String,
    /// Its compute target.
    pub compute_target: String,
    /// The number of the event, as in the run's events.
    pub sequence: u64,
    /// The status after it.
    pub status: Status,
    /// In which attempt; 0 before the first.
    pub attempt: u32,
    /// Why, for an end.
    pub cause: Option<Cause>,
    /// In words.
    pub detail: Option<String>,
}

impl Message {
    /// The only kind there is.
    pub const STATUS_CHANGED: &'static str = "run.status_changed";
}

/// What became of one attempt to deliver a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answered {
    /// With this status; the receiver may have said after how many seconds to come back.
    Status {
        /// The HTTP status.
        code: u16,
        /// `Retry-After`, in seconds.
        retry_after: Option<u64>,
    },
    /// Not at all.
    Not {
        /// Why.
        why: String,
    },
}

/// What follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// It is tried again after so many seconds.
    Again {
        /// Seconds.
        after_seconds: u64,
    },
    /// It is given up.
    GivenUp,
    /// The receiver wants to be told nothing any more (410).
    Gone,
}

/// Decides what follows from an attempt, after which `tries_left` more are allowed. `jitter` is from 0 to 255.
#[must_use]
pub fn verdict(answered: &Answered, tries_left: u32, jitter: u8) -> Verdict {
    let asked = match answered {
        Answered::Status { code: 200..=299, .. } => return Verdict::Delivered,
        Answered::Status { code: 410, .. } => return Verdict::Gone,
        Answered::Status { code: 429 | 503, retry_after } => *retry_after,
        Answered::Status { .. } | Answered::Not { .. } => None,
    };
    match schedule::pause(tries_left, jitter) {
        None => Verdict::GivenUp,
        Some(seconds) => {
            let asked = asked.unwrap_or(0).min(schedule::LONGEST_PAUSE_SECONDS);
            Verdict::Again { after_seconds: seconds.max(asked) }
        }
    }
}

/// Where a delivery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// It is to be tried, for the first time or again.
    Pending,
    /// The receiver has it.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryStatus {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl core::str::FromStr for DeliveryStatus {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        let all = [Self::Pending, Self::Delivered, Self::Failed];
        all.into_iter().find(|one| one.as_str() == text).ok_or_else(|| UnknownWord(text.to_owned()))
    }
}

/// An id of a delivery.
pub type DeliveryId = Uuid;

#[cfg(test)]
mod tests {
    use super::*;

    const fn status(code: u16, retry_after: Option<u64>) -> Answered {
        Answered::Status { code, retry_after }
    }

    #[test]
    fn what_follows_from_an_answer() {
        assert_eq!(verdict(&status(204, None), 9, 0), Verdict::Delivered);
        assert_eq!(verdict(&status(410, None), 9, 0), Verdict::Gone);
        // A redirect is no delivery: it is not followed.
        assert_eq!(verdict(&status(302, None), 9, 0), Verdict::Again { after_seconds: 5 });
        assert_eq!(verdict(&status(500, None), 0, 0), Verdict::GivenUp);
        assert_eq!(verdict(&status(429, Some(60)), 9, 0), Verdict::Again { after_seconds: 60 });
        assert_eq!(verdict(&status(429, Some(1)), 9, 0), Verdict::Again { after_seconds: 5 });
        assert_eq!(verdict(&status(503, Some(u64::MAX)), 9, 0), Verdict::Again { after_seconds: 86_400 });
        let away = Answered::Not { why: "away".to_owned() };
        assert_eq!(verdict(&away, 8, 0), Verdict::Again { after_seconds: 300 });
    }
}
