//! `POST /v1/runs` with an inline definition, beside PostgreSQL storing the same rows.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper::StatusCode;

use crate::{
    context::Context,
    database::Database,
    definition,
    figure::{Figure, Goal, Outcome},
    http::Call,
    load::{self, Calls},
    pgbench::Pgbench,
    rounds::in_turn,
    service::Service,
    stored_rows,
};

/// What the row is called.
pub const NAME: &str = "create_run";

/// As many as the service has at once, and as many clients as `pgbench` has.
const CONNECTIONS: usize = 32;

/// How much of what the slower side can do is asked of both for latency.
const SHARE: f64 = 0.5;

/// Accepts runs: as many as go through, then half of what both sides can do at moments that were chosen before.
///
/// # Errors
/// When a side does not work.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let (rounds, seconds) = if context.short { (1, 2) } else { (5, 8) };
    let duration = Duration::from_secs(seconds);
    let database = Database::start(context)?;
    database.create("ours")?;
    database.create("peers")?;
    let service = Service::start(context, "service", &database.url("ours"), &["--role", "api"])?;
    let script = std::fs::read(context.repository.join("examples/digits/train.py"))?;
    let snapshot = service.upload("train.py", &script)?;
    let call = Call::post("/v1/runs", &definition::run(&snapshot), StatusCode::CREATED)?;
    let accepted = service.ask_json(&call)?;
    let run = accepted["id"].as_str().context("a run has an id")?.parse()?;
    let (script, variables) = stored_rows::insertion(&database, "ours", run)?;
    database.execute(
        "peers",
        &format!(
            "INSERT INTO snapshots (id, file_count, bytes, created_at) VALUES ('{snapshot}', 1, 1, now())"
        ),
    )?;
    let peer =
        Pgbench { database: &database, name: "peers", script, variables, directory: &context.directory };
    let calls: Calls = Arc::from([call]);

    let most = || {
        database.checkpoint()?;
        load::closed(service.address(), &calls, CONNECTIONS, duration)
    };
    let most_of_peer = || {
        database.checkpoint()?;
        peer.run(CONNECTIONS, None, duration)
    };
    // Each side has its connections, plans and caches before anything counts.
    load::closed(service.address(), &calls, CONNECTIONS, Duration::from_secs(1))?;
    peer.run(CONNECTIONS, None, Duration::from_secs(1))?;
    let (ours, peers) = in_turn(rounds, most, most_of_peer)?;
    let planned = SHARE * ours.rate().min(peers.rate());
    let at_rate = || {
        database.checkpoint()?;
        load::open(service.address(), &calls, CONNECTIONS, planned, duration)
    };
    let at_rate_of_peer = || {
        database.checkpoint()?;
        peer.run(CONNECTIONS, Some(planned), duration)
    };
    let (ours_planned, peers_planned) = in_turn(rounds, at_rate, at_rate_of_peer)?;
    Ok(vec![
        Figure {
            what: format!("`POST /v1/runs` with an inline definition, {CONNECTIONS} connections"),
            ours: ours.to_string(),
            peer: format!("`pgbench`, the same three rows in one statement, {CONNECTIONS} clients: {peers}"),
            outcomes: vec![Outcome {
                of: "rate",
                value: ours.rate() / peers.rate(),
                unit: "×",
                goal: Goal::AtLeast(1.0),
                floor: Some(Goal::AtLeast(0.25)),
            }],
        },
        Figure {
            what: format!("the same, {planned:.0} a second at random moments, times from when each was due"),
            ours: ours_planned.to_string(),
            peer: format!("`pgbench --rate`: {peers_planned}"),
            outcomes: vec![Outcome {
                of: "p99",
                value: ours_planned.percentile(0.99) / peers_planned.percentile(0.99),
                unit: "×",
                goal: Goal::AtMost(2.0),
                floor: None,
            }],
        },
    ])
}
