//! The small files by which service and supervisor understand one another.

use std::{path::PathBuf, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    super::BackendError,
    confinement::Confinement,
    container::ContainerControl,
    layout::{self, AttemptDir},
};

/// The built environment that an attempt uses: it stays where it is until the attempt's directory is removed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct UsedEnvironment {
    /// The key of the environment.
    pub(super) key: String,
}

/// What the supervisor is to start, complete: it decides nothing itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Launch {
    /// The executable, absolute.
    pub(super) program: PathBuf,
    /// Its arguments, one element each.
    pub(super) arguments: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub(super) environment: Vec<(String, String)>,
    /// Where it starts.
    pub(super) working_directory: PathBuf,
    /// Where standard output and error go.
    pub(super) log: PathBuf,
    /// A directory made before the start and removed after the end.
    pub(super) temporary_directory: Option<PathBuf>,
    /// How long the script may run.
    pub(super) max_run_duration_seconds: Option<u64>,
    /// Between TERM and KILL when it is told to end, in milliseconds.
    pub(super) cancel_grace_ms: u64,
    /// The container that `program` starts, where it starts one.
    #[serde(default)]
    pub(super) container: Option<ContainerControl>,
    /// What it is kept within; older records have none.
    #[serde(default)]
    pub(super) confinement: Confinement,
    /// Between TERM and KILL for what the script leaves behind when it ends by itself, in milliseconds.
    pub(super) leftovers_grace_ms: u64,
    /// The boot of the machine in which it was written; older records, which were all on the disk before anything began, have none.
    #[serde(default)]
    pub(super) boot_id: Option<String>,
}

impl Launch {
    pub(super) const fn cancel_grace(&self) -> Duration {
        Duration::from_millis(self.cancel_grace_ms)
    }

    pub(super) const fn leftovers_grace(&self) -> Duration {
        Duration::from_millis(self.leftovers_grace_ms)
    }
}

/// Whether an attempt was begun, as `launch.json` tells. Only that it is there is sure to survive when the machine goes down, and before
/// that nothing is started: what it says, and every other record but that of the end, is read in the same life of the machine alone.
#[derive(Debug)]
pub(super) enum Begun {
    /// No.
    No,
    /// In this life of the machine.
    Now(Box<Launch>),
    /// Before the machine was restarted; what was begun is known where it was written in time. No process of it is left.
    BeforeRestart(Option<Box<Launch>>),
}

impl Begun {
    /// Of the attempt in this directory, in the boot of this id.
    pub(super) fn of(directory: &AttemptDir, boot: &str) -> Result<Self, BackendError> {
        match layout::read_json::<Box<Launch>>(&directory.launch()) {
            Ok(None) => Ok(Self::No),
            Ok(Some(launch)) if launch.boot_id.as_deref().is_none_or(|of| of == boot) => {
                Ok(Self::Now(launch))
            }
            Ok(Some(launch)) => Ok(Self::BeforeRestart(Some(launch))),
            Err(BackendError::Damaged { .. }) => Ok(Self::BeforeRestart(None)),
            Err(error) => Err(error),
        }
    }
}

/// Who supervises an attempt. Process numbers come round again: the start time and the boot tell them apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Supervisor {
    pub(super) pid: i32,
    pub(super) start_ticks: u64,
    pub(super) boot_id: String,
}

/// That the script runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Started {
    pub(super) pid: i32,
    /// With the pid it names one process for ever; older records have none.
    #[serde(default)]
    pub(super) start_ticks: Option<u64>,
    pub(super) started_at: DateTime<Utc>,
}

/// That somebody wants the attempt to end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CancelRequest {
    pub(super) requested_at: DateTime<Utc>,
}

/// That the attempt was found lost. Kept, because whoever looks again finds nothing to count any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Loss {
    pub(super) detail: String,
}
