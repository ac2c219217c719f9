//! `pgbench`: what PostgreSQL itself does with the same statements.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};

use crate::{database::Database, load::Measured};

/// How many threads it has: as many as the machine that the goals are for.
const THREADS: usize = 2;

/// Statements that are run over and over in one database.
#[derive(Clone, Debug)]
pub struct Pgbench<'a> {
    /// The server.
    pub database: &'a Database,
    /// The database.
    pub name: &'a str,
    /// In `pgbench`'s form.
    pub script: String,
    /// Texts that the script names as `:name`. They are sent as parameters.
    pub variables: Vec<(String, String)>,
    /// Where its files may be.
    pub directory: &'a Path,
}

impl Pgbench<'_> {
    /// As many as some clients can do, one after the other; or at a rate, at random moments, and then times count from when a
    /// transaction was due.
    ///
    /// # Errors
    /// When a transaction fails.
    pub fn run(&self, clients: usize, rate: Option<f64>, duration: Duration) -> anyhow::Result<Measured> {
        let script = self.directory.join("pgbench.sql");
        let prefix = self.directory.join("pgbench-log");
        fs::write(&script, &self.script)?;
        let mut command = Command::new(self.database.program("pgbench"));
        command.args(["--no-vacuum", "--protocol=prepared", "--log"]);
        command.arg("--log-prefix").arg(&prefix).arg("--file").arg(&script);
        command.args(["--client", &clients.to_string(), "--jobs", &THREADS.min(clients).to_string()]);
        command.args(["--time", &duration.as_secs().max(1).to_string()]);
        if let Some(rate) = rate {
            command.args(["--rate", &format!("{rate:.3}")]);
        }
        for (name, value) in &self.variables {
            command.args(["--define", &format!("{name}={value}")]);
        }
        command.arg("--host").arg(self.database.socket()).args(["--username", self.database.user()]);
        let output = command.arg(self.name).stdin(Stdio::null()).output().context("pgbench")?;
        let said = String::from_utf8_lossy(&output.stdout);
        let complaints = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && !complaints.contains("aborted"), "pgbench: {complaints}{said}");
        let rate = said
            .lines()
            .find_map(|line| line.strip_prefix("tps = "))
            .and_then(|rest| rest.split(' ').next()?.parse().ok())
            .with_context(|| format!("pgbench does not say how many: {said}"))?;
        Ok(Measured { rate, latencies: read_logs(self.directory, &prefix)?.into() })
    }
}

/// Every transaction's time, from one file for each thread, which are removed.
fn read_logs(directory: &Path, prefix: &Path) -> anyhow::Result<Vec<Duration>> {
    let name = prefix.file_name().and_then(|name| name.to_str()).context("the prefix has a name")?;
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path: PathBuf = entry?.path();
        if path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name)) {
            for line in fs::read_to_string(&path)?.lines() {
                // client, number, microseconds, …
                let time = line.split(' ').nth(2).and_then(|text| text.parse().ok());
                all.push(Duration::from_micros(time.with_context(|| format!("a line of pgbench: {line}"))?));
            }
            fs::remove_file(path)?;
        }
    }
    Ok(all)
}
