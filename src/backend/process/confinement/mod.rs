//! What keeps a run apart from the service and from other runs: a user of its own, limits, no new privileges, and Landlock
//! where the operator wants it. No sandbox for hostile tenants: what it is and is not stands in `docs/running.md`.

mod apply;
mod asking;
mod check;
mod disk;
mod enter;
mod nameless;
mod ownership;
mod reach;
mod sandbox;
mod shared;
mod sweep;
mod users;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::domain::run_users::UserRange;

pub(super) use self::{
    apply::Standing,
    asking::output,
    disk::{DiskUse, Found, measure},
    enter::{Waiting, order},
    ownership::{close_to_others, give, open_to_all, open_to_user, open_way, take_back, take_over},
    reach::{closed_to_others, why_closed},
    sandbox::Places,
    sweep::{end_all, remove_left_files},
    users::{assign, assigned, give_back},
};
pub use self::{
    apply::{Confine, confine},
    check::{IsolationError, Surroundings, check, make_room},
};

/// What runs are kept within, as the operator says. The default is what Slurm's and Kubernetes' runs have of it: nothing, since
/// they are somebody else's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolation {
    /// The users of attempts; none where they have the service's.
    pub users: Option<UserRange>,
    /// What they may take.
    pub limits: Limits,
    /// Whether they are restricted to the files that they need.
    pub landlock: bool,
}

/// What a run may take of the machine; `None` is as much as the service itself may.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Private writable memory of each process, in bytes (`RLIMIT_DATA`).
    pub memory_bytes: Option<u64>,
    /// Processes and threads at the same time (`RLIMIT_NPROC`, which the kernel counts by user).
    pub processes: Option<u64>,
    /// Open files of each process (`RLIMIT_NOFILE`).
    pub open_files: Option<u64>,
    /// The size of each file that it writes, in bytes (`RLIMIT_FSIZE`).
    pub file_bytes: Option<u64>,
    /// All files that it writes together, in bytes: measured by the supervisor.
    pub disk_bytes: Option<u64>,
}

/// What one attempt is kept within.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Confinement {
    /// Its user and group, where it has one of its own.
    pub(super) user: Option<u32>,
    /// What it may take.
    pub(super) limits: Limits,
    /// What it reaches of the file system, where that is restricted.
    pub(super) places: Option<Places>,
}

/// A program to become, within a confinement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Program {
    /// The executable, absolute.
    pub(super) path: PathBuf,
    /// Its arguments, one element each.
    pub(super) arguments: Vec<String>,
    /// Its whole environment.
    pub(super) environment: Vec<(String, String)>,
}
