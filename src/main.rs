//! The one binary: the service, its client, and the small helpers that the service starts.

use std::{ffi::OsStr, path::Path, process::ExitCode};

use clap::{CommandFactory as _, Parser as _};
use estimatord::{
    api,
    backend::{kubernetes, process},
    client::{self, TokenRequest},
    config::{Cli, Command, Helper, TokenCommand},
    domain, embedded_postgres,
    lifecycle::{self, TokenOutcome},
    operate, telemetry,
};

/// Requests are answered with many small pieces of memory that others give back: the C library's allocator takes a quarter of their time.
/// How it is set up stands in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// After standard input, output and error.
const FIRST_INHERITED: i32 = 3;

fn main() -> ExitCode {
    // A container runtime asks for a password by starting this binary under another name.
    let name = std::env::args_os().next().unwrap_or_default();
    if Path::new(&name).file_name() == Some(OsStr::new(process::CREDENTIAL_HELPER)) {
        return process::credential_helper();
    }
    if let Some(helper) = Helper::of_this_process() {
        return help(helper);
    }
    let command = Cli::parse().command;
    inherit_nothing_more();
    match command {
        Command::ServePostgresOnly(args) => embedded_postgres::serve_postgres_only(args),
        Command::Openapi => print_openapi(),
        Command::Rules => {
            print!("{}", domain::rules::markdown::page());
            ExitCode::SUCCESS
        }
        Command::Submit(args) => run(async { Ok(client::submit(args).await) }),
        Command::Validate(args) => run(async { Ok(client::validate(args).await) }),
        Command::Render(args) => run(async { Ok(client::render(args).await) }),
        Command::Runs(args) => run(async { Ok(client::runs(args).await) }),
        Command::Run(args) => run(async { Ok(client::run(args).await) }),
        Command::Outputs(args) => run(async { Ok(client::outputs(args).await) }),
        Command::Targets(args) => run(async { Ok(client::targets(args).await) }),
        Command::Completion(args) => {
            clap_complete::generate(args.shell, &mut Cli::command(), "estimatord", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Logs(args) => run(async { Ok(client::logs(args).await) }),
        Command::Cancel(args) => run(async { Ok(client::cancel(args).await) }),
        Command::Healthcheck(args) => run(async { Ok(client::healthcheck(args).await) }),
        Command::Token(args) => run(async move { token(&args.command).await }),
        Command::Migrate(settings) => run(async move {
            lifecycle::migrate(&settings).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::RotateSecretKey(settings) => run(async move {
            operate::rotate::rotate_secret_key(&settings).await?;
            Ok(ExitCode::SUCCESS)
        }),
        Command::Doctor(settings) => run(async move { operate::doctor::doctor(&settings).await }),
        Command::Serve(settings) => run(async move {
            let telemetry = telemetry::start(&settings)?;
            let served = lifecycle::serve(&settings, &telemetry.log_filter).await;
            telemetry.finish().await;
            served
        }),
    }
}

/// Does what a helper does; but for those that speak to the service, each is one thread without a runtime.
fn help(helper: Helper) -> ExitCode {
    // What `mpirun` gives to a rank is for the script that this becomes.
    if !matches!(helper, Helper::Rank(_)) {
        inherit_nothing_more();
    }
    match helper {
        Helper::Supervise(args) => process::supervise(args),
        Helper::Rank(args) => process::rank(args),
        Helper::Confine(args) => process::confine(args),
        Helper::Stage(args) => run(async { Ok(kubernetes::stage(args).await) }),
        Helper::HandOver(args) => run(async { Ok(kubernetes::hand_over(args).await) }),
        Helper::PostgresChild(args) => embedded_postgres::postgres_child(args),
    }
}

/// What whoever started this has open is for this process alone: neither scripts nor the database inherit it.
fn inherit_nothing_more() {
    close_fds::set_fds_cloexec(FIRST_INHERITED, &[]);
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

/// At the service that is named, else in the database itself.
async fn token(command: &TokenCommand) -> anyhow::Result<ExitCode> {
    let place = command.place();
    if let Some(url) = &place.url {
        let request = match command {
            TokenCommand::Create(args) => TokenRequest::Create {
                name: args.name.to_string(),
                project: args.project.to_string(),
                scope: args.scope.to_string(),
                expires_in_days: args.expires_in_days,
            },
            TokenCommand::List(_) => TokenRequest::List,
            TokenCommand::Revoke(args) => TokenRequest::Revoke(args.id.to_string()),
        };
        let connection = client::Connection { url: url.clone(), token: place.token.clone(), retry_for: None };
        return Ok(client::token(&connection, &request).await);
    }
    match lifecycle::token(&place.database, command).await? {
        TokenOutcome::Made(token) => println!("{token}"),
        TokenOutcome::Known(tokens) => client::print_tokens(&tokens),
    }
    Ok(ExitCode::SUCCESS)
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
