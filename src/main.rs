//! The one binary: the service, its client, and the small helpers that the service starts.

use std::{ffi::OsStr, path::Path, process::ExitCode};

use clap::Parser as _;
use estimatord::{
    api,
    backend::{kubernetes, process},
    client,
    config::{Cli, Command},
    domain, embedded_postgres, lifecycle, telemetry,
};

fn main() -> ExitCode {
    // A container runtime asks for a password by starting this binary under another name.
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(OsStr::new(process::CREDENTIAL_HELPER)) {
        return process::credential_helper();
    }
    // The helpers come first: each is one thread without a runtime.
    match Cli::parse().command {
        Command::Supervise(args) => process::supervise(args),
        Command::Rank(args) => process::rank(args),
        Command::Stage(args) => run(async { Ok(kubernetes::stage(args).await) }),
        Command::HandOver(args) => run(async { Ok(kubernetes::hand_over(args).await) }),
        Command::PostgresChild(args) => embedded_postgres::postgres_child(args),
        Command::ServePostgresOnly(args) => embedded_postgres::serve_postgres_only(args),
        Command::Openapi => print_openapi(),
        Command::Rules => {
            print!("{}", domain::rules::markdown::page());
            ExitCode::SUCCESS
        }
        Command::Submit(args) => run(async { Ok(client::submit(args).await) }),
        Command::Logs(args) => run(async { Ok(client::logs(args).await) }),
        Command::Cancel(args) => run(async { Ok(client::cancel(args).await) }),
        Command::Healthcheck(args) => run(async { Ok(client::healthcheck(args).await) }),
        Command::Migrate(settings) => run(async move {
            lifecycle::migrate(&settings).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Serve(settings) => match telemetry::start(&settings.log, settings.log_format) {
            Ok(()) => run(async move { lifecycle::serve(&settings).await }),
            Err(error) => fail(&format!("--log: {error}")),
        },
    }
}

fn run(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start the runtime: {error}")),
    };
    match runtime.block_on(work) {
        Ok(code) => code,
        Err(error) => fail(&format!("{error:#}")),
    }
}

fn print_openapi() -> ExitCode {
    match api::openapi().to_pretty_json() {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&format!("the OpenAPI document cannot be written: {error}")),
    }
}

/// One line on standard error, for a person.
fn fail(why: &str) -> ExitCode {
    eprintln!("estimatord: {why}");
    ExitCode::FAILURE
}
