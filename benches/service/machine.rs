//! Where something was measured, and with what.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use estimatord::clock::{Clock as _, SystemClock};

use crate::{context::Context, database::Database, latencies::Latencies};

/// How often a page is written to say how fast the disk keeps one.
const PAGES: usize = 200;

/// What is said above the table: names and what they are.
///
/// # Errors
/// When the database that is asked for its version does not start.
pub fn describe(context: &Context) -> anyhow::Result<Vec<(&'static str, String)>> {
    let database = Database::start(context)?;
    let cores = std::thread::available_parallelism()?;
    let mut facts = vec![
        ("date", SystemClock.now().format("%Y-%m-%d").to_string()),
        ("processor", format!("{cores} × {}", value_of("/proc/cpuinfo", "model name"))),
        ("memory", value_of("/proc/meminfo", "MemTotal")),
        (
            "kernel",
            format!(
                "{} {}",
                std::env::consts::OS,
                fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim()
            ),
        ),
        ("disk", disk(&context.directory)?),
        ("estimatord", revision(&context.repository)),
        ("Rust", first_line(Command::new("rustc").arg("--version"))),
        (
            "PostgreSQL",
            format!(
                "{}, its defaults: `fsync` and `synchronous_commit` on; on the same machine",
                database.version()
            ),
        ),
    ];
    let node = first_line(Command::new("node").arg("--version"));
    if !node.is_empty() {
        facts.push(("Node.js", node));
    }
    Ok(facts)
}

/// The first value of a name in a file of `name: value`.
fn value_of(file: &str, name: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let value = text.lines().filter_map(|line| line.split_once(':')).find(|(found, _)| found.trim() == name);
    value.map_or_else(|| "not known".to_owned(), |(_, value)| value.trim().to_owned())
}

fn first_line(command: &mut Command) -> String {
    let said = command.output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().to_owned()
}

fn revision(repository: &Path) -> String {
    let described = first_line(Command::new("git").arg("-C").arg(repository).args([
        "describe",
        "--always",
        "--dirty",
        "--abbrev=10",
    ]));
    let version = env!("CARGO_PKG_VERSION");
    if described.is_empty() { version.to_owned() } else { format!("{version}, commit {described}") }
}

/// The file system, and how long it takes to keep a page: what a commit waits for.
fn disk(directory: &Path) -> anyhow::Result<String> {
    let path = directory.join("page");
    let file = File::create(&path).context("a file to measure the disk with")?;
    let mut taken = Vec::with_capacity(PAGES);
    for number in 0..PAGES {
        let begun = Instant::now();
        file.write_all_at(&[1; 8192], u64::try_from(number)? * 8192)?;
        file.sync_data()?;
        taken.push(begun.elapsed());
    }
    fs::remove_file(&path)?;
    let median: Duration = Latencies::from(taken).at(0.5);
    let kind = file_system(directory).unwrap_or_else(|| "a file system".to_owned());
    Ok(format!("{kind}, 8 KiB written and synchronized in {} µs (median)", median.as_micros()))
}

/// Of the mount that a directory is on: the longest that is a prefix of it.
fn file_system(directory: &Path) -> Option<String> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let directory = directory.canonicalize().ok()?;
    let mount = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
        directory.starts_with(point).then(|| (point.len(), format!("{kind} on {device}")))
    });
    mount.max_by_key(|(length, _)| *length).map(|(_, said)| said)
}
