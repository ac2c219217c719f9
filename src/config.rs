//! The command line and its environment variables. `--help` is the reference; the README's table is checked against it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    backend::{kubernetes, process},
    client,
    domain::{collection::Limits, compute_target::ComputeTargetName},
    embedded_postgres,
};

/// How many logs, and how many outputs, are kept of one attempt.
const KEPT_FILES: usize = 10_000;

/// Runs Azure ML SDK v1 Chainer estimator definitions on your own compute.
#[derive(Debug, Parser)]
#[command(name = "estimatord", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the service: the API and the workers, or one of them
    Serve(Box<Serve>),
    /// Bring the database's schema up to date, then exit
    Migrate(Database),
    /// Print the OpenAPI document
    Openapi,
    /// Print the validation rules as a page (Markdown)
    Rules,
    /// Upload a source folder, submit a definition, and follow the run if asked to
    Submit(client::Submit),
    /// Print the logs of a run
    Logs(client::Logs),
    /// Ask for the end of a run
    Cancel(client::Cancel),
    /// Ask once whether the service is ready
    Healthcheck(client::Healthcheck),
    /// Watches the processes of one attempt (started by the service, not by people)
    #[command(hide = true)]
    Supervise(process::Supervise),
    /// Becomes one MPI rank (started by the service, not by people)
    #[command(hide = true)]
    Rank(process::Rank),
    /// Fetches source tree and data into a pod (started by the cluster, not by people)
    #[command(hide = true)]
    Stage(kubernetes::Stage),
    /// Sends back what a script writes in a pod (started by the cluster, not by people)
    #[command(hide = true)]
    HandOver(kubernetes::HandOver),
    /// Becomes the embedded PostgreSQL (started by the service, not by people)
    #[command(hide = true)]
    PostgresChild(embedded_postgres::PostgresChild),
    /// Runs the embedded PostgreSQL alone, for tests and for looking into its data
    #[command(hide = true)]
    ServePostgresOnly(embedded_postgres::ServePostgresOnly),
}

/// Which database.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// PostgreSQL to use, as a URL. Without it the service runs a PostgreSQL of its own in the data directory
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// Where everything is kept: database, snapshots, logs, outputs, environments
    /// [default: /var/lib/estimatord as root, else $XDG_DATA_HOME/estimatord or ~/.local/share/estimatord]
    #[arg(long, env = "ESTIMATORD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the PostgreSQL binaries (initdb, postgres) are, for the embedded database
    /// [default: looked for on PATH and in the usual places]
    #[arg(long, env = "PG_BIN_DIR", value_name = "DIR")]
    pub pg_bin_dir: Option<PathBuf>,
}

/// Which part of the service to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// API and workers
    All,
    /// The API alone
    Api,
    /// Workers alone
    Worker,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

/// `estimatord serve`.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// The address to listen on. One that others can reach needs --api-token-file
    #[arg(long, env = "ESTIMATORD_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Which part of the service to run
    #[arg(long, env = "ESTIMATORD_ROLE", value_enum, default_value_t = Role::All)]
    pub role: Role,
    /// The database.
    #[command(flatten)]
    pub database: Database,
    /// Where snapshots, logs and outputs are kept, when not in the data directory: a directory that every replica sees
    #[arg(long, env = "ESTIMATORD_ARTIFACTS_DIR", value_name = "DIR")]
    pub artifacts_dir: Option<PathBuf>,
    /// A file whose content, at least 16 characters, every caller must send as its bearer token
    #[arg(long, env = "ESTIMATORD_API_TOKEN_FILE", value_name = "FILE")]
    pub api_token_file: Option<PathBuf>,
    /// A file of mode 600 with the key that secrets are encrypted with: 64 hexadecimal digits
    /// [default: the environment's ESTIMATORD_SECRET_KEY; without DATABASE_URL else `secret.key` in the data directory,
    /// which is made]
    #[arg(long, env = "ESTIMATORD_SECRET_KEY_FILE", value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Do not bring the schema up to date at the start; refuse to start when it is not
    #[arg(long, env = "ESTIMATORD_NO_MIGRATE")]
    pub no_migrate: bool,
    /// The most bytes that a snapshot may have, unpacked
    #[arg(long, env = "ESTIMATORD_MAX_SNAPSHOT_BYTES", default_value_t = 300 * 1024 * 1024, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub max_snapshot_bytes: u64,
    /// The most files that a snapshot may have
    #[arg(long, env = "ESTIMATORD_MAX_SNAPSHOT_FILES", default_value_t = 2000, value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub max_snapshot_files: u64,
    /// How many runs may be active at once on a compute target that sets no limit of its own
    /// [default: the number of CPUs]
    #[arg(long, env = "ESTIMATORD_MAX_CONCURRENT_RUNS", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_concurrent_runs: Option<u32>,
    /// How many runs this worker holds at once, on all targets together
    #[arg(long, env = "ESTIMATORD_WORKER_SLOTS", default_value_t = 256, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub worker_slots: u32,
    /// The most bytes that are kept of one log of a run; of a longer one, its beginning
    #[arg(long, env = "ESTIMATORD_MAX_LOG_BYTES", default_value_t = 1 << 30, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    pub max_log_bytes: u64,
    /// The most bytes that are kept of the outputs of one attempt together
    #[arg(long, env = "ESTIMATORD_MAX_OUTPUT_BYTES", default_value_t = 20 << 30, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(0..=1 << 50))]
    pub max_output_bytes: u64,
    /// The most bytes that are kept of data from remote datastores which runs mount; the least recently used go first
    #[arg(long, env = "ESTIMATORD_MAX_DATA_CACHE_BYTES", default_value_t = 20 << 30, value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(0..=1 << 50))]
    pub max_data_cache_bytes: u64,
    /// How long the processes of a run have between TERM and KILL when it is stopped
    #[arg(long, env = "ESTIMATORD_CANCEL_GRACE_SECONDS", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub cancel_grace_seconds: u64,
    /// Where probes and figures (/healthz, /readyz, /metrics) are answered as well, and nothing else; nobody has to show a token
    /// there [default: nowhere]
    #[arg(long, env = "ESTIMATORD_PROBE_LISTEN", value_name = "ADDRESS")]
    pub probe_listen: Option<SocketAddr>,
    /// How often a cluster is asked about all of its jobs, in one question, and the logs of each are looked at
    #[arg(long, env = "ESTIMATORD_CLUSTER_INTERVAL_SECONDS", default_value_t = 2, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub cluster_interval_seconds: u64,
    /// The compute target, one of a cluster, whose backend runs get that name a `vm_size` and no target
    /// [default: the worker's own machine stands for every size]
    #[arg(long, env = "ESTIMATORD_ONE_OFF_TARGET", value_name = "NAME")]
    pub one_off_target: Option<ComputeTargetName>,
    /// How long building an environment may take
    #[arg(long, env = "ESTIMATORD_BUILD_TIMEOUT_SECONDS", default_value_t = 1800, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub build_timeout_seconds: u64,
    /// What built environments may take of the disk before the longest unused are removed; never one that a run uses
    #[arg(long, env = "ESTIMATORD_MAX_ENVIRONMENTS_BYTES", default_value_t = 20 * 1024 * 1024 * 1024,
          value_name = "BYTES", value_parser = clap::value_parser!(u64).range(0..=1 << 50))]
    pub max_environments_bytes: u64,
    /// The `uv` that builds environments [default: the one on PATH, else one installed into the data directory]
    #[arg(long, env = "ESTIMATORD_UV", value_name = "FILE")]
    pub uv: Option<PathBuf>,
    /// The micromamba, mamba or conda that builds environments with conda packages [default: the first on PATH]
    #[arg(long, env = "ESTIMATORD_CONDA", value_name = "FILE")]
    pub conda: Option<PathBuf>,
    /// Where conda channels that are given by name are, e.g. a mirror or `file:///srv/channels`
    #[arg(long, env = "ESTIMATORD_CONDA_CHANNEL_ALIAS", value_name = "URL")]
    pub conda_channel_alias: Option<String>,
    /// How log lines are written
    #[arg(long, env = "ESTIMATORD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, in tracing's filter syntax
    #[arg(long, env = "ESTIMATORD_LOG", default_value = "info,sqlx=warn", value_name = "FILTER")]
    pub log: String,
}

impl Serve {
    /// Between TERM and KILL.
    #[must_use]
    pub const fn cancel_grace(&self) -> Duration {
        Duration::from_secs(self.cancel_grace_seconds)
    }

    /// Between two looks at a cluster.
    #[must_use]
    pub const fn cluster_interval(&self) -> Duration {
        Duration::from_secs(self.cluster_interval_seconds)
    }

    /// Of what is kept of an attempt.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            log_bytes: self.max_log_bytes,
            log_files: KEPT_FILES,
            output_bytes: self.max_output_bytes,
            output_files: KEPT_FILES,
        }
    }

    /// For one environment.
    #[must_use]
    pub const fn build_timeout(&self) -> Duration {
        Duration::from_secs(self.build_timeout_seconds)
    }
}
