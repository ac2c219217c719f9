//! The hidden subcommand `confine`: a process that gives up what a run must not have, then becomes the run's program.
//!
//! It is told what to do on standard input, or in the one variable that it has, and nowhere else: nothing
//! that a definition sets (`LD_PRELOAD`) reaches a process that still is root.

use std::{
    convert::Infallible,
    env::set_current_dir,
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::{
        fd::AsFd as _,
        unix::{fs::fchown, net::UnixStream, process::CommandExt as _},
    },
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
};

use nix::{
    errno::Errno,
    sys::{
        prctl::set_no_new_privs,
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::{Gid, Pid, Uid, dup2_stderr, dup2_stdout, getresuid, setgroups, setresgid, setresuid},
};
use serde::{Deserialize, Serialize};

use super::{super::layout, Confinement, Limits, Program};

/// Arguments of the hidden subcommand `confine`: none.
#[derive(Debug, clap::Args)]
pub struct Confine {}

/// The variable in which it may be told what to do.
pub(super) const ORDER: &str = "ESTIMATORD_ORDER";

/// What `confine` is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// Become a program, where it is told to stand if it does not stand there already.
    Become { confinement: Box<Confinement>, program: Program, standing: Option<Standing> },
    /// Kill every process of a user.
    EndAll { user: u32 },
}

/// Where a program stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in super::super) struct Standing {
    /// Its working directory.
    pub(in super::super) directory: PathBuf,
    /// The log that it writes to.
    pub(in super::super) log: PathBuf,
}

impl Standing {
    fn take(&self, user: Option<u32>) -> io::Result<()> {
        let log = layout::open_log(&self.log)?;
        // It may open its output anew: `/dev/stdout` does.
        fchown(&log, user, user)?;
        dup2_stdout(&log)?;
        dup2_stderr(&log)?;
        set_current_dir(&self.directory)
    }
}

/// Runs `confine`: returns only when the order could not be carried out, or everything was killed.
#[must_use]
pub fn confine(_: Confine) -> ExitCode {
    if let Ok(order) = std::env::var(ORDER) {
        let Err(error) = obey(&order) else { return ExitCode::SUCCESS };
        // Whoever reads its output learns why there is none.
        let told = writeln!(io::stderr(), "error: {error}");
        return ExitCode::from(if told.is_ok() { 127 } else { 126 });
    }
    // Standard input is a socket: closed by the exec, which is how the other side learns that it went well.
    let answer = io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from);
    let mut order = String::new();
    let obeyed = io::stdin().read_to_string(&mut order).and_then(|_| obey(&order));
    let error = match obeyed {
        Ok(()) => return ExitCode::SUCCESS,
        Err(error) => error,
    };
    // Whoever gave the order may have gone, and then nobody is left to tell.
    let told = answer.and_then(|mut answer| {
        write!(answer, "{error}")?;
        answer.shutdown(Shutdown::Write)
    });
    ExitCode::from(if told.is_ok() { 127 } else { 126 })
}

fn obey(order: &str) -> io::Result<()> {
    match serde_json::from_str(order)? {
        Order::Become { confinement, program, standing } => {
            standing.map_or(Ok(()), |standing| standing.take(confinement.user))?;
            apply(&confinement)?;
            match become_program(&program)? {}
        }
        Order::EndAll { user } => {
            become_user(user)?;
            match kill(Pid::from_raw(-1), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => Ok(()),
                Err(errno) => Err(errno.into()),
            }
        }
    }
}

fn apply(confinement: &Confinement) -> io::Result<()> {
    limit(&confinement.limits)?;
    // While everything can still be opened: the rules hold what they were made from.
    let sandbox = confinement.places.as_ref().map(super::Places::ruleset).transpose()?;
    if let Some(user) = confinement.user {
        become_user(user)?;
    }
    set_no_new_privs()?;
    match sandbox {
        Some(sandbox) => sandbox.enter(),
        None => Ok(()),
    }
}

/// Gives up every other user and group, for ever.
fn become_user(id: u32) -> io::Result<()> {
    let (user, group) = (Uid::from_raw(id), Gid::from_raw(id));
    let during =
        |action: &str, errno: Errno| io::Error::other(format!("cannot {action} {id}: {}", errno.desc()));
    setgroups(&[]).map_err(|errno| during("leave the groups of the service for", errno))?;
    setresgid(group, group, group).map_err(|errno| during("become group", errno))?;
    setresuid(user, user, user).map_err(|errno| during("become user", errno))?;
    // What comes next must not happen as anybody else.
    let now = getresuid()?;
    if user.is_root() || [now.real, now.effective, now.saved] != [user; 3] {
        return Err(io::Error::other(format!("this process is not user {id}")));
    }
    Ok(())
}

fn limit(limits: &Limits) -> io::Result<()> {
    let wanted = [
        (Resource::RLIMIT_CORE, Some(0)),
        (Resource::RLIMIT_DATA, limits.memory_bytes),
        (Resource::RLIMIT_NPROC, limits.processes),
        (Resource::RLIMIT_NOFILE, limits.open_files),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
    ];
    for (resource, wanted) in wanted {
        let Some(wanted) = wanted else { continue };
        // Where the service itself may have less, less it is: only root could raise it.
        let (_, hard) = getrlimit(resource)?;
        let limit = wanted.min(hard);
        setrlimit(resource, limit, limit)?;
    }
    Ok(())
}

fn become_program(program: &Program) -> io::Result<Infallible> {
    let mut command = Command::new(&program.path);
    command.args(&program.arguments).env_clear();
    command.envs(program.environment.iter().map(|(name, value)| (name, value)));
    Err(command.stdin(Stdio::null()).exec())
}
