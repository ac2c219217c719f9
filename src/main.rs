//! A stand-in until the real subcommands are there: only what the embedded PostgreSQL's tests need.

use std::process::ExitCode;

use clap::Parser;
use estimatord::embedded_postgres::{PostgresChild, ServePostgresOnly, postgres_child, serve_postgres_only};

#[derive(Parser)]
enum Command {
    PostgresChild(PostgresChild),
    ServePostgresOnly(ServePostgresOnly),
}

fn main() -> ExitCode {
    match Command::parse() {
        Command::PostgresChild(args) => postgres_child(args),
        Command::ServePostgresOnly(args) => serve_postgres_only(args),
    }
}
