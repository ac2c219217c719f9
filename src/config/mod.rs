//! The command line and its environment variables. `--help` is the reference; the README's table is checked against it.

mod access;
mod helper;

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{
    backend::process,
    client,
    domain::{
        base_url::BaseUrl,
        collection::Limits,
        compute_target::ComputeTargetName,
        datastore_places,
        otlp_endpoint::OtlpEndpoint,
        retention::KeepRuns,
        run_users::{RunUsers, UserRange},
        secret::Secret,
        webhook,
    },
    embedded_postgres,
};

pub use self::{
    access::{Access, CreateToken, Place, RevokeToken, Token, TokenCommand},
    helper::Helper,
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
    /// Make, list and revoke the tokens that callers are known by
    Token(Token),
    /// Encrypt everything that is kept encrypted with another key; the service may run
    RotateSecretKey(Box<RotateSecretKey>),
    /// Look at an installation, and say what is wrong with it and how to mend it
    Doctor(Box<Doctor>),
    /// Print the OpenAPI document
    Openapi,
    /// Print the validation rules as a page (Markdown)
    Rules,
    /// Upload a source folder, submit a definition, and follow the run if asked to
    Submit(client::Submit),
    /// Say everything that is wrong with a definition
    Validate(client::Validate),
    /// Write a definition in another system's form
    Render(client::Render),
    /// List runs
    Runs(client::Runs),
    /// Show a run, or wait for its end
    Run(client::ShowRun),
    /// Print the logs of a run
    Logs(client::Logs),
    /// List or download what a run left in its outputs
    Outputs(client::Outputs),
    /// Ask for the end of a run
    Cancel(client::Cancel),
    /// List the compute targets
    Targets(client::Targets),
    /// Print a script that completes these commands in a shell
    Completion(client::Completion),
    /// Ask once whether the service is ready
    Healthcheck(client::Healthcheck),
    /// Run the embedded PostgreSQL alone, to restore a backup or to look into its data
    ServePostgresOnly(embedded_postgres::ServePostgresOnly),
}

/// Which database.
#[derive(Args, Clone, Debug)]
pub struct Database {
    /// PostgreSQL to use, as a URL. Without it the service runs a PostgreSQL of its own in the data directory
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,
    /// Where everything is kept: database, snapshots, logs, outputs, environments
    /// [default: /var/lib/estimatord as root, else $XDG_DATA_HOME/estimatord or ~/.local/share/estimatord]
    #[arg(long, env = "ESTIMATORD_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where the PostgreSQL binaries (initdb, postgres) are, for the embedded database
    /// [default: looked for on PATH and in the usual places]
    #[arg(long, env = "PG_BIN_DIR", value_name = "DIR")]
    pub pg_bin_dir: Option<PathBuf>,
}

/// Which keys.
#[derive(Args, Clone, Debug)]
pub struct SecretKey {
    /// A file of mode 600 with the key that secrets are encrypted with: 64 hexadecimal digits
    /// [default: the environment's ESTIMATORD_SECRET_KEY; without DATABASE_URL else `secret.key` in the data directory,
    /// which is made]
    #[arg(long, env = "ESTIMATORD_SECRET_KEY_FILE", value_name = "FILE")]
    pub secret_key_file: Option<PathBuf>,
    /// Files with other keys that something may still be encrypted with, or may be already, while the key is changed; with commas
    /// between. Nothing is encrypted with them (docs/operating.md)
    /// [default: the keys in the environment's ESTIMATORD_OTHER_SECRET_KEYS]
    #[arg(long, env = "ESTIMATORD_OTHER_SECRET_KEY_FILES", value_name = "FILE", value_delimiter = ',')]
    pub other_secret_key_files: Vec<PathBuf>,
}

/// `estimatord rotate-secret-key`.
#[derive(Args, Clone, Debug)]
pub struct RotateSecretKey {
    /// A file of mode 600 with the key that everything is encrypted with from now on: 64 hexadecimal digits
    /// [default: the key of --secret-key-file, where the service has it already]
    #[arg(long, value_name = "FILE")]
    pub new_key_file: Option<PathBuf>,
    /// What it is encrypted with now.
    #[command(flatten)]
    pub secret_key: SecretKey,
    /// Where it is.
    #[command(flatten)]
    pub database: Database,
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

/// What restricts the files that a run reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// Their permissions alone
    None,
    /// Landlock
    Landlock,
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
    /// The address to listen on. One that others can reach is answered to callers with a token only
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
    /// Who may come in.
    #[command(flatten)]
    pub access: Access,
    /// What secrets are encrypted with.
    #[command(flatten)]
    pub secret_key: SecretKey,
    /// Where scripts reach the service, as a URL: they find it in ESTIMATORD_URL, beside ESTIMATORD_TOKEN, which opens their own run
    /// [default: for scripts on the machine of an API its own address; for others none]
    #[arg(long, env = "ESTIMATORD_SERVICE_URL", value_name = "URL")]
    pub service_url: Option<BaseUrl>,
    /// Do not bring the schema up to date at the start; refuse to start when it is not
    #[arg(long, env = "ESTIMATORD_NO_MIGRATE")]
    pub no_migrate: bool,
    /// Do not wait for the database's notifications (LISTEN), but look for work every two seconds: for a PgBouncer in transaction
    /// mode, which would deliver them to somebody else
    #[arg(long, env = "ESTIMATORD_NO_DATABASE_LISTEN")]
    pub no_database_listen: bool,
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
    /// How many runs of one caller may be active at once, on all targets together; callers are told apart by
    /// their tokens [default: any number]
    #[arg(long, env = "ESTIMATORD_MAX_ACTIVE_RUNS_PER_CALLER", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_active_runs_per_caller: Option<u32>,
    /// How many runs may wait in the queue; beyond it a caller is told to come back (429)
    #[arg(long, env = "ESTIMATORD_MAX_QUEUED_RUNS", default_value_t = 10_000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub max_queued_runs: u32,
    /// How many requests a caller may send a minute, to each replica: told apart by their tokens, else by their
    /// addresses; beyond it they are told to come back (429)
    #[arg(long, env = "ESTIMATORD_MAX_REQUESTS_PER_MINUTE", default_value = "60000", value_name = "N")]
    pub max_requests_per_minute: NonZeroU32,
    /// Where messages of webhooks may be sent, with commas between: hosts (`hooks.example.com`, `*.example.com`, with `:port` or
    /// `http://` where it is so), and networks that are not public and that they may lead into (`10.0.0.0/8`)
    /// [default: nowhere]
    #[arg(long, env = "ESTIMATORD_WEBHOOK_ALLOW", value_name = "RECEIVER", value_delimiter = ',')]
    pub webhook_allow: Vec<webhook::allow_list::Entry>,
    /// Where datastores may lead, with commas between: folders (`/srv/datasets`), services (`minio.example.com:9000`, with
    /// `http://` where it is so), and networks that are not public and that other names may lead into (`10.0.0.0/8`); never among
    /// the service's own files
    /// [default: anywhere, where everybody is let in; where callers show tokens, to the public clouds alone]
    #[arg(long, env = "ESTIMATORD_DATASTORE_ALLOW", value_name = "PLACE", value_delimiter = ',')]
    pub datastore_allow: Option<Vec<datastore_places::Place>>,
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
    /// How long a run is kept after its end, e.g. `90d`: then its rows, logs and outputs are deleted, and what only it needed:
    /// estimators that came with it or are archived, snapshots that nobody has uploaded for a day [default: for ever]
    #[arg(long, env = "ESTIMATORD_KEEP_RUNS", value_name = "DURATION")]
    pub keep_runs: Option<KeepRuns>,
    /// How long the processes of a run have between TERM and KILL when it is stopped
    #[arg(long, env = "ESTIMATORD_CANCEL_GRACE_SECONDS", default_value_t = 30, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub cancel_grace_seconds: u64,
    /// How long requests are still taken after SIGTERM, while /readyz says 503 already: as long as load balancers take to notice
    #[arg(long, env = "ESTIMATORD_DRAIN_DELAY_SECONDS", default_value_t = 0, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(0..=600))]
    pub drain_delay_seconds: u64,
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
    /// The collector that spans are sent to, by OTLP over HTTP (protobuf): its base URL, e.g. `http://127.0.0.1:4318`. The other
    /// variables of OpenTelemetry count too: OTEL_EXPORTER_OTLP_HEADERS, OTEL_TRACES_SAMPLER, OTEL_RESOURCE_ATTRIBUTES
    /// [default: nothing is traced]
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<OtlpEndpoint>,
    /// The user ids of runs on this machine, FIRST-LAST, each attempt's its own, or `none`: runs then have the service's user. Not for
    /// containers, Slurm and Kubernetes [default: 70000-79999 as root, else none]
    #[arg(long, env = "ESTIMATORD_RUN_UIDS", value_name = "RANGE")]
    pub run_uids: Option<RunUsers>,
    /// `landlock` lets runs on this machine reach only the files that they need, and refuses to start where the kernel cannot
    #[arg(long, env = "ESTIMATORD_RUN_SANDBOX", value_enum, default_value_t = Sandbox::None)]
    pub run_sandbox: Sandbox,
    /// The private memory that each process of a run on this machine may have [default: any]
    #[arg(long, env = "ESTIMATORD_RUN_MEMORY_BYTES", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1 << 26..=1 << 50))]
    pub run_memory_bytes: Option<u64>,
    /// How many processes and threads a run on this machine may have at once; needs --run-uids [default: any]
    #[arg(long, env = "ESTIMATORD_RUN_PROCESSES", value_name = "N",
          value_parser = clap::value_parser!(u64).range(1..=1 << 22))]
    pub run_processes: Option<u64>,
    /// How many files each process of a run on this machine may have open [default: as many as the service]
    #[arg(long, env = "ESTIMATORD_RUN_OPEN_FILES", value_name = "N",
          value_parser = clap::value_parser!(u64).range(16..=1 << 30))]
    pub run_open_files: Option<u64>,
    /// How large each file may become that a run on this machine writes [default: any]
    #[arg(long, env = "ESTIMATORD_RUN_FILE_BYTES", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1 << 12..=1 << 50))]
    pub run_file_bytes: Option<u64>,
    /// How much of the disk a run on this machine may take, also in a container; more ends it [default: any]
    #[arg(long, env = "ESTIMATORD_RUN_DISK_BYTES", value_name = "BYTES",
          value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 50))]
    pub run_disk_bytes: Option<u64>,
    /// How log lines are written
    #[arg(long, env = "ESTIMATORD_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// What is logged, in tracing's filter syntax; SIGUSR1 shows more until SIGUSR2
    #[arg(long, env = "ESTIMATORD_LOG", default_value = "info,sqlx=warn", value_name = "FILTER")]
    pub log: String,
}

/// How the findings of `estimatord doctor` are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Report {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// `estimatord doctor`: the options of the service that it is to look at, and how to say what it found.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// How the findings are written
    #[arg(long, value_enum, default_value_t = Report::Text)]
    pub output: Report,
    /// What the service is started with.
    #[command(flatten)]
    pub serve: Serve,
}

impl Serve {
    /// Between TERM and KILL.
    #[must_use]
    pub const fn cancel_grace(&self) -> Duration {
        Duration::from_secs(self.cancel_grace_seconds)
    }

    /// What runs on this machine are kept within, where the service is root or not.
    #[must_use]
    pub fn isolation(&self, is_root: bool) -> process::Isolation {
        let users = match self.run_uids {
            Some(RunUsers::Own(range)) => Some(range),
            Some(RunUsers::OfTheService) => None,
            None => is_root.then_some(UserRange::DEFAULT),
        };
        process::Isolation {
            users,
            limits: process::Limits {
                memory_bytes: self.run_memory_bytes,
                processes: self.run_processes,
                open_files: self.run_open_files,
                file_bytes: self.run_file_bytes,
                disk_bytes: self.run_disk_bytes,
            },
            landlock: self.run_sandbox == Sandbox::Landlock,
        }
    }

    /// Between SIGTERM and the end of taking requests.
    #[must_use]
    pub const fn drain_delay(&self) -> Duration {
        Duration::from_secs(self.drain_delay_seconds)
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
