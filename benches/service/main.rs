//! `make bench`: what the service does, each figure beside its limit or peer in the same run.

mod bare_handler;
mod captured;
mod context;
mod create_run;
mod database;
mod definition;
mod drain;
mod environment;
mod figure;
mod follow;
mod http;
mod idle;
mod latencies;
mod load;
mod machine;
mod many;
mod many_runs;
mod null_backend;
mod null_worker;
mod pages;
mod peers;
mod pgbench;
mod process;
mod queue;
mod read;
mod report;
mod rounds;
mod script_starts;
mod scripted;
mod service;
mod slurm;
mod start;
mod stored_rows;
mod upload;
mod usage;
mod validate;

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use clap::Parser as _;

use crate::{context::Context, figure::Figure, report::Row};

/// How a row is measured.
type Measure = fn(&Context) -> anyhow::Result<Vec<Figure>>;

/// What a process of its own does.
type Helper = fn(&[String]) -> anyhow::Result<()>;

/// Every row of the table, in its order.
const ROWS: &[(&str, Measure)] = &[
    (create_run::NAME, create_run::measure),
    (validate::NAME, validate::measure),
    (read::NAME, read::measure),
    (start::NAME, start::measure),
    (drain::NAME, drain::measure),
    (many::NAME, many::measure),
    (slurm::NAME, slurm::measure),
    (upload::NAME, upload::measure),
    (follow::NAME, follow::measure),
    (idle::NAME, idle::measure),
    (environment::NAME, environment::measure),
];

/// What this program becomes where a measurement needs a process of its own: by its first argument, with the others.
const HELPERS: &[(&str, Helper)] = &[
    (bare_handler::OPTION, bare_handler::serve),
    (many::HOLD, many::hold),
    (slurm::ON_CLUSTER, slurm::on_cluster),
];

/// Where the table is kept.
const PAGE: &str = "docs/benchmarks.md";

/// Measures the service beside its limits and peers.
#[derive(clap::Parser)]
#[command(bin_name = "cargo bench --bench service --")]
struct Options {
    /// Seconds instead of minutes; exits with 1 when a ratio is below its floor
    #[arg(long)]
    short: bool,
    /// Write the table to docs/benchmarks.md: of all rows, in the long form
    #[arg(long, conflicts_with_all = ["short", "rows"])]
    write: bool,
    /// List the rows
    #[arg(long)]
    list: bool,
    /// The rows to measure [default: all]
    #[arg(value_name = "ROW")]
    rows: Vec<String>,
    /// Given by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let helper = arguments.split_first().and_then(|(first, rest)| {
        HELPERS.iter().find(|(option, _)| option == first).map(|(_, helper)| (helper, rest))
    });
    let done = match helper {
        Some((helper, arguments)) => helper(arguments).map(|()| true),
        None => run(&Options::parse()),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every row was measured, and what has a floor is above it.
fn run(options: &Options) -> anyhow::Result<bool> {
    if options.list {
        ROWS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(true);
    }
    let known = |name: &String| ROWS.iter().any(|(row, _)| row == name);
    if let Some(unknown) = options.rows.iter().find(|name| !known(name)) {
        anyhow::bail!("there is no row `{unknown}`: --list shows them");
    }
    ensure!(!cfg!(debug_assertions), "a debug build says nothing about speed: use `cargo bench`");
    let machine = in_directory(options.short, machine::describe)?;
    for (name, fact) in &machine {
        eprintln!("bench: {name}: {fact}");
    }
    let mut rows: Vec<Row> = Vec::new();
    for (name, measure) in ROWS {
        if options.rows.is_empty() || options.rows.iter().any(|wanted| wanted == name) {
            eprintln!("bench: {name} …");
            rows.push((*name, in_directory(options.short, measure)));
        }
    }
    print!("{}", report::table(&rows));
    let mut passed = true;
    for (name, measured) in &rows {
        match measured {
            Err(error) => {
                eprintln!("bench: {name} could not be measured: {error:#}");
                passed = false;
            }
            Ok(figures) if options.short => passed &= above_floors(figures),
            Ok(_) => {}
        }
    }
    if options.write {
        report::write(&repository().join(PAGE), &machine, &rows)?;
    }
    Ok(passed)
}

/// Says which outcomes are so far from their goals that something must have been broken.
fn above_floors(figures: &[Figure]) -> bool {
    let mut all = true;
    for figure in figures {
        for outcome in &figure.outcomes {
            if let Some(floor) = outcome.floor
                && !floor.is_met_by(outcome.value)
            {
                let (of, value, unit) = (outcome.of, outcome.value, outcome.unit);
                eprintln!("bench: {}: {of} {value:.2} {unit}, and must be {floor}", figure.what);
                all = false;
            }
        }
    }
    all
}

/// Works in a directory that is there for this work alone.
fn in_directory<T>(short: bool, work: impl FnOnce(&Context) -> anyhow::Result<T>) -> anyhow::Result<T> {
    // Not below /tmp, which is often kept in memory, where nothing is durable and everything is fast.
    let place = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    // The database's account is another one when this is root's.
    let everybody = std::fs::Permissions::from_mode(0o755);
    let directory =
        tempfile::Builder::new().prefix("estimatord-bench-").permissions(everybody).tempdir_in(&place);
    let directory = directory.with_context(|| format!("a directory in {}", place.display()))?;
    work(&Context {
        short,
        directory: directory.path().to_owned(),
        estimatord: env!("CARGO_BIN_EXE_estimatord").into(),
        repository: repository().to_owned(),
    })
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
