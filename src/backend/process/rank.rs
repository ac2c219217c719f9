//! One MPI rank: gives it a log of its own, then becomes the script.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use super::layout;

/// Where launchers tell a process its rank, the most specific first.
const RANK_VARIABLES: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"];

/// Arguments of the hidden subcommand `rank`.
#[derive(Debug, clap::Args)]
pub struct Rank {
    /// Where `std_log_<rank>.txt` is written.
    #[arg(long)]
    log_dir: PathBuf,
    /// How many ranks there are; a single one writes `std_log.txt`.
    #[arg(long)]
    ranks: u64,
    /// What to become; of an argument that begins with `=` the rest counts.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

/// Runs `rank`: returns only when the script could not be started.
#[must_use]
pub fn rank(args: Rank) -> ExitCode {
    let name = match log_name(args.ranks, |variable| std::env::var(variable).ok()) {
        Ok(name) => name,
        Err(error) => return refuse(&mut io::stderr(), &error),
    };
    let path = args.log_dir.join(name);
    match become_script(&path, &args.command) {
        Ok(never) => match never {},
        Err(error) => {
            let message = format!("cannot start {:?}: {error}", args.command);
            if let Ok(mut log) = layout::open_log(&path) {
                let _ = refuse(&mut log, &message);
            }
            refuse(&mut io::stderr(), &message)
        }
    }
}

fn refuse(to: &mut impl io::Write, message: &str) -> ExitCode {
    // There is nobody left to tell when this fails.
    let _ = writeln!(to, "estimatord: {message}");
    ExitCode::from(127)
}

/// An argument in a form that no launcher takes for a word of its own.
pub(super) fn guarded(argument: &str) -> String {
    format!("={argument}")
}

/// The argument that was guarded.
fn unguarded(argument: &OsStr) -> &OsStr {
    OsStr::from_bytes(argument.as_bytes().strip_prefix(b"=").unwrap_or(argument.as_bytes()))
}

/// The file name of this rank's log.
fn log_name(ranks: u64, variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    if ranks == 1 {
        return Ok("std_log.txt".to_owned());
    }
    let rank =
        RANK_VARIABLES.iter().find_map(|name| variable(name)?.parse::<u64>().ok()).ok_or_else(|| {
            format!("the launcher told this process no rank (none of {} is set)", RANK_VARIABLES.join(", "))
        })?;
    Ok(format!("std_log_{rank}.txt"))
}

fn become_script(log: &Path, command: &[OsString]) -> io::Result<std::convert::Infallible> {
    let (program, arguments) = command.split_first().ok_or_else(|| io::Error::other("no command"))?;
    let output = layout::open_log(log)?;
    let error_output = output.try_clone()?;
    let arguments = arguments.iter().map(|argument| unguarded(argument));
    Err(Command::new(program).args(arguments).stdout(output).stderr(error_output).exec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_launcher_is_understood() {
        for variable in RANK_VARIABLES {
            let found = log_name(2, |name| (name == variable).then(|| "1".to_owned()));
            assert_eq!(found.as_deref(), Ok("std_log_1.txt"), "{variable}");
        }
    }

    #[test]
    fn a_guarded_argument_comes_back() {
        for argument in ["", ":", "=", "==x", "-a", "é"] {
            assert_eq!(unguarded(OsStr::new(&guarded(argument))), argument);
        }
        assert_eq!(unguarded(OsStr::new("-m")), "-m");
    }

    #[test]
    fn one_rank_writes_the_log_of_one_process() {
        assert_eq!(log_name(1, |_| None).as_deref(), Ok("std_log.txt"));
    }

    #[test]
    fn no_rank_is_an_error_and_not_rank_zero() {
        assert!(log_name(2, |_| None).unwrap_err().contains("OMPI_COMM_WORLD_RANK"));
        assert!(log_name(2, |_| Some("x".to_owned())).is_err());
    }
}
