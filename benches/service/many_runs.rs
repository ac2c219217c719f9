//! A database with as many runs as wanted, made of one that the service has stored.

use anyhow::Context as _;
use hyper::StatusCode;

use crate::{context::Context, database::Database, definition, http::Call, service::Service};

/// How many of the newest have not ended, however many there are in all.
pub const LIVE: u64 = 600;

/// How it is filled.
const FILLING: &str = include_str!("../../tests/storage/many_runs.sql");

/// Makes the database and fills it.
///
/// # Errors
/// When a step fails.
pub fn create(context: &Context, database: &Database, name: &str, runs: u64) -> anyhow::Result<()> {
    database.create(name)?;
    store_one(context, database, name)?;
    database.execute(name, &FILLING.replace(":runs", &runs.to_string()))?;
    // What would else be done some time later, in the middle of a measurement.
    database.execute(name, "VACUUM ANALYZE")?;
    database.checkpoint()
}

/// The id of the run with a number.
#[must_use]
pub fn id(number: u64) -> String {
    format!("01900000-0000-7000-8000-{number:012x}")
}

/// The same as an expression of SQL, of an expression.
#[must_use]
pub fn id_expression(number: &str) -> String {
    format!("('01900000-0000-7000-8000-' || lpad(to_hex(CAST({number} AS bigint)), 12, '0'))::uuid")
}

/// The run that the others are made of.
fn store_one(context: &Context, database: &Database, name: &str) -> anyhow::Result<()> {
    let service = Service::start(context, &format!("fill-{name}"), &database.url(name), &["--role", "api"])?;
    let script = std::fs::read(context.repository.join("examples/digits/train.py"))?;
    let snapshot = service.upload("train.py", &script)?;
    let call = Call::post("/v1/runs", &definition::run(&snapshot), StatusCode::CREATED)?;
    service.ask(&call).map(drop).context("the run that others are made of")
}
