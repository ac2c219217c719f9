//! A hidden subcommand that runs the embedded server and nothing else, to look into it and to test it.

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::{DataDir, EmbeddedPostgres, Settings};

/// Exit code when the server has ended under the service, as the service has it too.
const SERVER_LOST: u8 = 70;

/// Runs the embedded PostgreSQL until SIGTERM or SIGINT.
#[derive(Debug, clap::Args)]
pub struct ServePostgresOnly {
    /// Where the data is.
    #[arg(long, env = "ESTIMATORD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The directory of `postgres` and `initdb`; searched for when absent.
    #[arg(long, env = "PG_BIN_DIR")]
    pg_bin_dir: Option<PathBuf>,
}

/// Prints `ready <socket directory>` once the server takes connections. Exit code 70: the server died.
#[must_use]
pub fn serve_postgres_only(args: ServePostgresOnly) -> ExitCode {
    // Somebody may have set up logging before; theirs is as good.
    let _ = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(false).try_init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    runtime.block_on(serve(args)).unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

async fn serve(args: ServePostgresOnly) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told_to_stop = async {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    tokio::pin!(told_to_stop);

    let path = match args.data_dir {
        Some(path) => path,
        None => DataDir::default_path()?,
    };
    let data_dir = DataDir::lock(&path)?;
    let settings = Settings { bin_dir: args.pg_bin_dir, trampoline: env::current_exe()? };
    let mut postgres = tokio::select! {
        started = EmbeddedPostgres::start(&data_dir, &settings) => started?,
        () = &mut told_to_stop => return Ok(ExitCode::SUCCESS),
    };
    println!("ready {}", postgres.socket_dir().display());
    let lost = tokio::select! {
        status = postgres.exited() => Some(status),
        () = &mut told_to_stop => None,
    };
    if let Some(status) = lost {
        tracing::error!("the embedded PostgreSQL has ended unexpectedly: {status}");
        return Ok(ExitCode::from(SERVER_LOST));
    }
    postgres.stop().await?;
    Ok(ExitCode::SUCCESS)
}
