//! The job queues that people would take instead: installed by npm beside this file, on the versions of its lock file.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;

use crate::context::Context;

/// Both of them, and the Node.js that they run on.
#[derive(Debug)]
pub struct Peers {
    directory: PathBuf,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// <https://worker.graphile.org>
    Graphile,
    /// <https://pgboss.io>
    PgBoss,
}

/// What a script says at its end.
#[derive(Deserialize)]
struct Report {
    seconds: f64,
}

impl Peer {
    /// As its makers write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Graphile => "graphile-worker",
            Self::PgBoss => "pg-boss",
        }
    }

    const fn script(self) -> &'static str {
        match self {
            Self::Graphile => "graphile.mjs",
            Self::PgBoss => "pgboss.mjs",
        }
    }
}

impl Peers {
    /// Installs what is not there.
    ///
    /// # Errors
    /// When npm is not there, or cannot.
    pub fn install(context: &Context) -> anyhow::Result<Self> {
        let directory = context.repository.join("benches/service/peers");
        if !is_installed(&directory) {
            let mut npm = Command::new("npm");
            // The Node.js that npm itself runs on is older than what is asked for; the right one is among the packages.
            npm.args(["ci", "--loglevel=error"]).current_dir(&directory).stdout(Stdio::null());
            let status =
                npm.status().context("cannot run npm, which installs graphile-worker and pg-boss")?;
            ensure!(status.success(), "npm could not install graphile-worker and pg-boss");
        }
        Ok(Self { directory })
    }

    /// Has one drain so many jobs that do nothing, in a database of its own that is empty: how long that took from the start of
    /// its worker to the end of the last job, in seconds.
    ///
    /// # Errors
    /// When it fails.
    pub fn drain(&self, peer: Peer, database_url: &str, jobs: u32) -> anyhow::Result<f64> {
        let mut node = Command::new(self.directory.join("node_modules/.bin/node"));
        node.arg(self.directory.join(peer.script())).args([database_url, &jobs.to_string()]);
        let output =
            node.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot run node")?;
        ensure!(output.status.success(), "{} failed", peer.name());
        let report: Report = serde_json::from_slice(&output.stdout)
            .with_context(|| format!("{} said {}", peer.name(), String::from_utf8_lossy(&output.stdout)))?;
        Ok(report.seconds)
    }
}

/// Whether what npm noted of its last installation is newer than what it was asked for.
fn is_installed(directory: &Path) -> bool {
    let changed = |file: &str| fs::metadata(directory.join(file)).and_then(|metadata| metadata.modified());
    match (changed("node_modules/.package-lock.json"), changed("package-lock.json")) {
        (Ok(installed), Ok(asked_for)) => installed >= asked_for,
        _ => false,
    }
}
