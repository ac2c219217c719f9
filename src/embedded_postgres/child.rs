//! The hidden subcommand every program of the embedded server is started through.
//!
//! Between `fork` and `exec` only unsafe code could run in our own process. So our executable is started
//! instead, prepares itself there, and turns into the program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::signal::Signal;
use nix::unistd::{AccessFlags, Gid, Pid, Uid, access, getppid, setgroups, setresgid, setresuid};

/// Exit code when the preparation failed; the reason is on standard error.
pub(super) const FAILED: u8 = 71;
/// Exit code when a directory on the way to `--reach` is closed; its path is on standard output.
pub(super) const BLOCKED: u8 = 77;

/// Prepares this process and replaces it by `command`.
#[derive(Debug, clap::Args)]
pub struct PostgresChild {
    /// User id to take on.
    #[arg(long, requires = "gid")]
    uid: Option<u32>,
    /// Group id to take on; all other groups are given up.
    #[arg(long, requires = "uid")]
    gid: Option<u32>,
    /// Pid of the service; end with it.
    #[arg(long)]
    parent: u32,
    /// Check first that this directory can be reached.
    #[arg(long)]
    reach: Option<PathBuf>,
    /// The program and its arguments; none: only check.
    #[arg(last = true)]
    command: Vec<OsString>,
}

/// Runs the hidden subcommand. Comes back only when it failed or when there was only something to check.
#[must_use]
pub fn postgres_child(args: PostgresChild) -> ExitCode {
    match run(args) {
        Ok(code) => ExitCode::from(code),
        Err(reason) => {
            eprintln!("estimatord: {reason}");
            ExitCode::from(FAILED)
        }
    }
}

fn run(args: PostgresChild) -> Result<u8, String> {
    if let (Some(uid), Some(gid)) = (args.uid, args.gid) {
        become_account(Uid::from_raw(uid), Gid::from_raw(gid))?;
    }
    // Taking on another user clears the death signal, so it comes after. It fires when the parent ends, but
    // not when the parent ended before this line: therefore the second look.
    nix::sys::prctl::set_pdeathsig(Signal::SIGINT)
        .map_err(|error| format!("cannot ask for a signal at the service's end: {error}"))?;
    if getppid() != Pid::from_raw(args.parent.cast_signed()) {
        return Err("the service ended meanwhile".to_owned());
    }
    if let Some(blocker) = args.reach.as_deref().and_then(first_closed) {
        println!("{}", blocker.display());
        return Ok(BLOCKED);
    }
    let Some((program, arguments)) = args.command.split_first() else { return Ok(0) };
    let error = Command::new(program).args(arguments).exec();
    Err(format!("cannot run {}: {error}", Path::new(program).display()))
}

fn become_account(uid: Uid, gid: Gid) -> Result<(), String> {
    setgroups(&[gid]).map_err(|error| format!("cannot give up the other groups: {error}"))?;
    setresgid(gid, gid, gid).map_err(|error| format!("cannot become group {gid}: {error}"))?;
    setresuid(uid, uid, uid).map_err(|error| format!("cannot become user {uid}: {error}"))
}

/// The outermost directory on the way to `path` (itself included) that this process may not pass through.
/// Asks the kernel, which knows about access lists and the like; permission bits alone would not tell.
fn first_closed(path: &Path) -> Option<&Path> {
    let mut way: Vec<&Path> = path.ancestors().collect();
    way.reverse();
    way.into_iter().find(|dir| access(*dir, AccessFlags::X_OK).is_err())
}
