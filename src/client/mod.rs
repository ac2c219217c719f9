//! The command-line client. It reaches the service over HTTP alone.

mod arguments;
mod commands;
mod definition;
mod follow;
mod healthcheck;
mod judge;
mod look;
mod pack;
mod problem;
mod screen;
mod service;
mod table;
#[cfg(test)]
mod tests;
mod token;

use std::{path::PathBuf, process::ExitCode};

use self::{commands::Outcome, screen::Screen};
use crate::domain::secret::Secret;

pub use self::{
    arguments::{Completion, Output, Outputs, Render, Runs, ShowRun, Targets, Validate},
    definition::{Definition, DefinitionError, experiment_name},
    healthcheck::{Healthcheck, healthcheck},
    pack::{PackError, PackingList},
    token::{TokenRequest, print_tokens, token},
};

/// The exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0    done; when a run was followed or waited for: it is Completed
  1    the run that was followed or waited for is Failed
  2    the definition or the source directory is refused, or the command line is wrong
  3    the run that was followed or waited for is Canceled
  4    the service cannot be reached, or something else went wrong
  130  interrupted by Ctrl-C; the run goes on";

/// How to reach the service.
#[derive(Clone, Debug, clap::Args)]
pub struct Connection {
    /// Address of the service.
    #[arg(long, env = "ESTIMATORD_URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,
    /// Access token, where the service asks for one.
    #[arg(long, env = "ESTIMATORD_TOKEN", hide_env_values = true)]
    pub token: Option<Secret>,
    /// How many seconds to wait for a service that cannot be reached. Without it: 10 before its first answer, 60
    /// after it.
    #[arg(long, value_name = "SECONDS")]
    pub retry_for: Option<u64>,
}

/// Uploads a source directory and starts a run of an estimator definition.
///
/// All files of the directory are uploaded, hidden ones too, except `.git` and what `.amlignore` names (or, where there
/// is no `.amlignore`, `.gitignore`; the ones in subdirectories count below them). Links to files and directories
/// inside the directory become copies; links that lead out of it are refused.
///
/// The run's id is written to standard output. With --follow the run's logs are, and everything else goes to standard
/// error.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Submit {
    /// The estimator definition, a JSON file; `-` is standard input. Its `source_directory` is replaced by the
    /// uploaded one.
    pub definition: PathBuf,
    /// The directory with the script and what it needs.
    #[arg(long, value_name = "DIR")]
    pub source: PathBuf,
    /// The experiment that the run belongs to. Without it: the name of the source directory.
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
    /// Follow status and logs until the run has ended.
    #[arg(long, short, conflicts_with = "output")]
    pub follow: bool,
    /// How the run is written to standard output: its id, or all of it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub connection: Connection,
}

/// Writes out the logs of a run.
///
/// Without --path that is the standard output and error of its script; of several ranks all, each line with its
/// `[rank]`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Logs {
    /// The run's id.
    pub run: String,
    /// Go on until the run has ended, and exit with what became of it.
    #[arg(long, short)]
    pub follow: bool,
    /// One log, e.g. `user_logs/std_log.txt`.
    #[arg(long)]
    pub path: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub connection: Connection,
}

/// Asks for the end of a run.
///
/// Exits with 0 when the run is being canceled (with --wait: when it is Canceled), and with 4 when it had ended before.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXIT_CODES)]
pub struct Cancel {
    /// The run's id.
    pub run: String,
    /// Wait until its processes are gone.
    #[arg(long)]
    pub wait: bool,
    /// How the run is written to standard output: not at all, or all of it.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub connection: Connection,
}

/// Runs `submit`.
pub async fn submit(args: Submit) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, commands::submit(&args, &screen, interrupted()).await)
}

/// Runs `logs`.
pub async fn logs(args: Logs) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, commands::logs(&args, &screen, interrupted()).await)
}

/// Runs `cancel`.
pub async fn cancel(args: Cancel) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, commands::cancel(&args, &screen, interrupted()).await)
}

/// Runs `validate`.
pub async fn validate(args: Validate) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, judge::validate(&args, &screen).await)
}

/// Runs `render`.
pub async fn render(args: Render) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, judge::render(&args, &screen).await)
}

/// Runs `runs`.
pub async fn runs(args: Runs) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, look::runs(&args, &screen).await)
}

/// Runs `run`.
pub async fn run(args: ShowRun) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, look::run(&args, &screen, interrupted()).await)
}

/// Runs `outputs`.
pub async fn outputs(args: Outputs) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, look::outputs(&args, &screen).await)
}

/// Runs `targets`.
pub async fn targets(args: Targets) -> ExitCode {
    let screen = Screen::standard();
    exit(&screen, look::targets(&args, &screen).await)
}

fn exit(screen: &Screen, outcome: Outcome) -> ExitCode {
    ExitCode::from(outcome.code(screen))
}

/// Ctrl-C. It is listened for from the first poll on; before that it ends the process, as it should.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}
