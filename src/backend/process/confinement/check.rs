//! What is checked when the service starts: a promise about runs is kept, or the service says why it cannot be.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;

use super::{Isolation, reach, sandbox, users};
use crate::domain::run_users::UserRange;

/// What runs are kept apart from, and what they must reach.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Where runs, environments and tools are.
    pub data_dir: &'a Path,
    /// Our own executable, which ranks are started with.
    pub own_binary: &'a Path,
    /// What no run may read.
    pub private: &'a [PathBuf],
}

/// Why runs cannot be isolated as asked for.
#[derive(Debug, thiserror::Error)]
pub enum IsolationError {
    /// Only root can give a run a user of its own.
    #[error(
        "--run-uids {0}: only root can start processes as other users. Start the service as root, or leave the option out: \
         runs then have the service's own user"
    )]
    NotRoot(UserRange),
    /// The kernel counts processes by user.
    #[error(
        "--run-processes limits the processes of a user, and runs have the service's own: it would count the service's too. It \
         needs --run-uids, and that root"
    )]
    ProcessesByUser,
    /// Somebody has the ids already.
    #[error(
        "--run-uids {range}: {whose} has ids among these (see {file}). Name a range that nobody has (--run-uids FIRST-LAST), or \
         none"
    )]
    Occupied {
        /// The range.
        range: UserRange,
        /// Who.
        whose: String,
        /// Where that stands.
        file: &'static str,
    },
    /// A user of a run would not get to where its things are.
    #[error("--run-uids: the users of runs cannot reach {}: {why}. Let others pass through (chmod o+x), use another place, or --run-uids none", path.display())]
    Unreachable {
        /// What they cannot reach.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// A user of a run would get at something private.
    #[error("--run-uids: the users of runs would get at {}: take their rights away (chmod o-rwx), or --run-uids none", .0.display())]
    Open(PathBuf),
    /// Files cannot be given away, as in a user namespace or with capabilities missing.
    #[error("--run-uids {range}: this service cannot give files to user {}: {source}. Name users that it may have, or none", range.first())]
    CannotGive {
        /// The range.
        range: UserRange,
        /// What the machine said.
        source: io::Error,
    },
    /// No Landlock.
    #[error(
        "--run-sandbox landlock: this kernel cannot do it ({0}). It takes Linux 6.2 or newer with Landlock among its security \
         modules (lsm=landlock,…)"
    )]
    NoLandlock(String),
    /// The machine would not do as told.
    #[error("{action}: {source}")]
    Io {
        /// What was being done.
        action: String,
        /// What the machine said.
        source: io::Error,
    },
}

/// Makes what isolated runs need on this machine.
///
/// # Errors
/// When it cannot be made.
pub fn make_room(isolation: &Isolation) -> Result<(), IsolationError> {
    if isolation.users.is_none() {
        return Ok(());
    }
    users::make_claims().map_err(|source| IsolationError::Io {
        action: "make the place where users of runs are claimed".to_owned(),
        source,
    })
}

/// Checks that runs can be isolated as asked for. Nothing is left of it.
///
/// # Errors
/// When they cannot; what to do is in the message.
pub fn check(isolation: &Isolation, surroundings: &Surroundings<'_>) -> Result<(), IsolationError> {
    match isolation.users {
        Some(range) if !Uid::effective().is_root() => return Err(IsolationError::NotRoot(range)),
        Some(range) => check_users(range, surroundings)?,
        None if isolation.limits.processes.is_some() => return Err(IsolationError::ProcessesByUser),
        None => {}
    }
    if isolation.landlock {
        sandbox::is_there().map_err(IsolationError::NoLandlock)?;
    }
    Ok(())
}

fn check_users(range: UserRange, surroundings: &Surroundings<'_>) -> Result<(), IsolationError> {
    let read = |path: &'static str| match fs::read(path) {
        Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(IsolationError::Io { action: format!("read {path}"), source }),
    };
    for file in ["/etc/passwd", "/etc/group"] {
        if let Some((whose, _)) = range.occupant(&read(file)?) {
            return Err(IsolationError::Occupied { range, whose, file });
        }
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        if let Some(whose) = range.subordinate(&read(file)?) {
            return Err(IsolationError::Occupied { range, whose, file });
        }
    }
    for path in [surroundings.data_dir, surroundings.own_binary] {
        if let Some(why) = reach::why_closed(path).map_err(looking_at(path))? {
            return Err(IsolationError::Unreachable { path: path.to_owned(), why });
        }
    }
    for path in surroundings.private {
        if reach::is_open(path).map_err(looking_at(path))? {
            return Err(IsolationError::Open(path.clone()));
        }
    }
    let probe = tempfile::NamedTempFile::new_in(surroundings.data_dir);
    let probe = probe.map_err(looking_at(surroundings.data_dir))?;
    std::os::unix::fs::lchown(probe.path(), Some(range.first()), Some(range.first()))
        .map_err(|source| IsolationError::CannotGive { range, source })
}

fn looking_at(path: &Path) -> impl FnOnce(io::Error) -> IsolationError {
    let action = format!("look at {}", path.display());
    |source| IsolationError::Io { action, source }
}
