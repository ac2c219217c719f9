//! What is started of this binary by the service, or by a cluster, and not by people. A run waits for two of these, so their command line
//! is read by itself: that of all commands, with its help for people, takes longer to make than what they do.

use clap::{Parser, Subcommand};

use crate::{
    backend::{kubernetes, process},
    embedded_postgres,
};

/// What this process was started as, by its first argument.
#[derive(Debug, Subcommand)]
pub enum Helper {
    /// Watches the processes of one attempt
    Supervise(process::Supervise),
    /// Becomes one MPI rank
    Rank(process::Rank),
    /// Gives up what a run must not have, and becomes the run
    Confine(process::Confine),
    /// Fetches source tree and data into a pod
    Stage(kubernetes::Stage),
    /// Sends back what a script writes in a pod
    HandOver(kubernetes::HandOver),
    /// Becomes the embedded PostgreSQL
    PostgresChild(embedded_postgres::PostgresChild),
}

/// The command line of a helper.
#[derive(Debug, Parser)]
#[command(name = "estimatord")]
struct Line {
    #[command(subcommand)]
    helper: Helper,
}

impl Helper {
    /// The helper that this process was started as; none where it was started as something for people. Ends the process where the
    /// helper's arguments are not as they should be.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let name = std::env::args_os().nth(1)?;
        Self::has_subcommand(name.to_str()?).then(|| Line::parse().helper)
    }
}
