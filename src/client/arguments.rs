//! The command lines of `validate`, `render`, `runs`, `run`, `outputs`, `targets` and `completion`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Connection, EXIT_CODES};
use crate::domain::render::Format;

/// How results are written to standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// As the service answers: one JSON object.
    Json,
}

/// Of whom something is asked, and how the answer is written.
#[derive(Clone, Debug, Args)]
pub struct Asked {
    /// How the result is written.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

/// Says everything that is wrong with an estimator definition; stores nothing.
///
/// Exits with 0 when it would be accepted, else with 2.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Validate {
    /// The estimator definition, a JSON file; `-` is standard input.
    pub definition: PathBuf,
    /// Upload this directory first, and judge the definition with it as its source_directory.
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub asked: Asked,
}

/// Writes an estimator definition in another system's form.
///
/// The text goes to standard output, what it cannot express to standard error.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Render {
    /// The estimator definition, a JSON file; `-` is standard input.
    pub definition: PathBuf,
    /// As what.
    #[arg(long, short, value_parser = Format::ALL.map(Format::as_str))]
    pub format: String,
    /// Upload this directory first, and render the definition with it as its source_directory.
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Another compute target than the definition's.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub asked: Asked,
}

/// Lists runs, newest first.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Runs {
    /// Only this experiment.
    #[arg(long, value_name = "NAME")]
    pub experiment: Option<String>,
    /// Only this status, e.g. `Running`.
    #[arg(long)]
    pub status: Option<String>,
    /// Only this compute target.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Only runs with this tag; may be given several times.
    #[arg(long = "tag", value_name = "NAME=VALUE", value_parser = tag)]
    pub tags: Vec<(String, String)>,
    /// How many at most.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub asked: Asked,
}

fn tag(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "write NAME=VALUE".to_owned())
}

/// Shows a run.
///
/// With --wait the exit code says what became of it.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct ShowRun {
    /// The run's id.
    pub run: String,
    /// Wait until it has ended, and exit with what became of it.
    #[arg(long)]
    pub wait: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub asked: Asked,
}

/// Lists or downloads what a run left in `./outputs`.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Outputs {
    /// The run's id.
    pub run: String,
    /// Only these, e.g. `model.npz`; all when none is named.
    pub paths: Vec<String>,
    /// Download them into this directory, which is made; what is there under the same name is replaced.
    #[arg(long, short, value_name = "DIR")]
    pub download: Option<PathBuf>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub asked: Asked,
}

/// Lists the compute targets.
#[derive(Clone, Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct Targets {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it instead of the options' own help")]
    pub asked: Asked,
}

/// Prints a script that completes these commands in a shell.
///
/// For bash: `source <(estimatord completion bash)`.
#[derive(Clone, Debug, Args)]
pub struct Completion {
    /// Which shell.
    pub shell: clap_complete::Shell,
}
