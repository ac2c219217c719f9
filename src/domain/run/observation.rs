//! What a backend can say of an attempt's processes.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Why the processes of an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// By themselves.
    Exited,
    /// They were told to by the service.
    Canceled,
    /// They were told to on the compute, by somebody else than the service.
    CanceledElsewhere,
    /// They ran longer than `max_run_duration_seconds`.
    MaxRunDurationExceeded,
    /// They wrote more than the operator lets a run have of the disk.
    DiskLimitExceeded,
}

/// How the processes of an attempt ended. When this exists, none of them is left.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// The exit code of the script (of the launcher under MPI), unless a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When the script was started; null when it never was.
    pub started_at: Option<DateTime<Utc>>,
    /// When the last process was gone.
    pub finished_at: DateTime<Utc>,
    /// User and system time of all processes, in seconds.
    pub cpu_seconds: Option<f64>,
    /// The largest resident set of any one process, in bytes.
    pub peak_memory_bytes: Option<u64>,
    /// Set when the script could not be started at all (no such interpreter, no permission).
    pub start_error: Option<String>,
    /// Set when the script's environment could not be made where it was to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_error: Option<String>,
    /// What else the compute says of the end, e.g. its own word for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

impl Exit {
    /// An end of which nothing more is known. It is not before the beginning: clusters have whole seconds.
    #[must_use]
    pub fn new(reason: ExitReason, started_at: Option<DateTime<Utc>>, finished_at: DateTime<Utc>) -> Self {
        Self {
            reason,
            exit_code: None,
            signal: None,
            started_at,
            finished_at: started_at.map_or(finished_at, |started| finished_at.max(started)),
            cpu_seconds: None,
            peak_memory_bytes: None,
            start_error: None,
            build_error: None,
            remark: None,
        }
    }

    /// The end in words, as evidence of it.
    #[must_use]
    pub fn in_words(&self) -> String {
        let at = self.finished_at.to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let script = match (self.started_at, self.exit_code, self.signal) {
            (_, Some(code), _) => format!("the script ended with exit code {code}"),
            (_, None, Some(signal)) => format!("the script was ended by signal {signal}"),
            (None, None, None) => "the script had not begun".to_owned(),
            (Some(_), None, None) => "how the script ended is not known".to_owned(),
        };
        let remark = self.remark.as_ref().map(|remark| format!(" ({remark})")).unwrap_or_default();
        format!("every process was gone at {at}; {script}{remark}")
    }

    /// Whether there was a script that could do anything.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        self.start_error.is_none() && self.build_error.is_none()
    }
}

/// What the backend says of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// Nothing was ever started under this name.
    NotFound,
    /// Accepted; it waits in a queue of the compute's own.
    Queued {
        /// For what, in the compute's words.
        reason: String,
    },
    /// Accepted, and it has its place; the script has not begun.
    Starting,
    /// The script runs.
    Running {
        /// Since when.
        started_at: DateTime<Utc>,
    },
    /// Ended, and every process is gone.
    Exited(Exit),
    /// It was started and is no longer there, and nothing tells how it ended. Every process of it is gone.
    Lost {
        /// What was found.
        detail: String,
    },
    /// The compute took its place away. Every process of it is gone.
    Preempted {
        /// In the compute's words.
        detail: String,
    },
}

impl Observation {
    /// Whether nothing of the attempt is left, and it can never begin again.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Lost { .. } | Self::Preempted { .. })
    }
}
