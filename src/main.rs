//! The hidden subcommands of the process backend; the real entry point replaces this.

use std::process::ExitCode;

use clap::Parser;
use estimatord::backend::process;

#[derive(Parser)]
enum Command {
    #[command(hide = true)]
    Supervise(process::Supervise),
    #[command(hide = true)]
    Rank(process::Rank),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::Supervise(args) => process::supervise(args),
        Command::Rank(args) => process::rank(args),
    }
}
