//! `POST /v1/estimators/validate`, beside a bare handler that parses the same body.

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use hyper::StatusCode;

use crate::{
    bare_handler::{self, BareHandler},
    context::Context,
    database::Database,
    definition,
    figure::{Figure, Goal, Outcome},
    http::Call,
    load::{self, Calls},
    rounds::in_turn,
    service::Service,
};

/// What the row is called.
pub const NAME: &str = "validate";

const CONNECTIONS: usize = 32;

/// Judges a typical definition, over and over.
///
/// # Errors
/// When a side does not work.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let (rounds, duration) =
        if context.short { (2, Duration::from_millis(1500)) } else { (7, Duration::from_secs(4)) };
    let database = Database::start(context)?;
    database.create("ours")?;
    let service = Service::start(context, "service", &database.url("ours"), &["--role", "api"])?;
    let peer = BareHandler::start()?;
    let script = std::fs::read(context.repository.join("examples/digits/train.py"))?;
    let definition = definition::typical(&service.upload("train.py", &script)?);
    let call = Call::post("/v1/estimators/validate", &definition, StatusCode::OK)?;
    let verdict = service.ask_json(&call)?;
    ensure!(verdict["valid"] == true, "the definition is not valid: {verdict:#}");
    let calls: Calls = Arc::from([call]);
    let peer_calls: Calls = Arc::from([Call::post(bare_handler::PATH, &definition, StatusCode::OK)?]);

    let warm = Duration::from_millis(500);
    load::closed(service.address(), &calls, CONNECTIONS, warm)?;
    load::closed(peer.address, &peer_calls, CONNECTIONS, warm)?;
    let (ours, peers) = in_turn(
        rounds,
        || load::closed(service.address(), &calls, CONNECTIONS, duration),
        || load::closed(peer.address, &peer_calls, CONNECTIONS, duration),
    )?;
    Ok(vec![Figure {
        what: format!("`POST /v1/estimators/validate`, {CONNECTIONS} connections"),
        ours: ours.to_string(),
        peer: format!("a bare axum handler that parses the same body: {peers}"),
        outcomes: vec![Outcome {
            of: "rate",
            value: ours.rate() / peers.rate(),
            unit: "×",
            goal: Goal::AtLeast(0.7),
            floor: Some(Goal::AtLeast(0.15)),
        }],
    }])
}
