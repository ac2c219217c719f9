//! Storage against a real PostgreSQL: a database per test.

#[path = "../support/mod.rs"]
mod support;

mod estimators;
mod leases;
mod metrics;
mod migrations;
mod moves;
mod plans;
mod queue;
mod retention;
mod runs;
mod schema;
mod targets;

use std::time::Duration;

use estimatord::storage::{
    Storage,
    estimators::Estimator,
    idempotency::{Keyed, Recorded},
    leases::Claimant,
    new_runs::Insertion,
    runs::Run,
};
use serde_json::json;

/// What a client would be answered.
fn answer(run: &Run) -> Recorded {
    Recorded {
        status: 201,
        location: Some(format!("/v1/runs/{}", run.id)),
        body: json!({"id": run.id}).to_string(),
    }
}

/// A worker that takes whatever there is.
fn claimant(node: &str) -> Claimant {
    Claimant {
        node: node.to_owned(),
        host: format!("host of {node}"),
        ttl: Duration::from_secs(60),
        default_target_limit: 100,
        caller_limit: None,
    }
}

/// Accepts a run of a new estimator, changed by `change` before.
async fn accept(storage: &Storage, clock: &support::FixedClock, change: impl FnOnce(&mut Run)) -> Run {
    use estimatord::clock::Clock as _;
    support::store_snapshot(storage).await;
    let now = clock.now();
    clock.advance(chrono::TimeDelta::milliseconds(1));
    let estimator: Estimator = support::estimator(now);
    let mut run = support::run(&estimator, now);
    change(&mut run);
    let inserted = storage
        .insert_run(&run, Some(&estimator), support::terms(None), || answer(&run))
        .await
        .expect("the database works");
    assert!(matches!(inserted, Insertion::Keyed(Keyed::Done(_))), "{inserted:?}");
    run
}
