//! The HTTP API in process: a router, a database of its own per test, a clock that stands still.

mod agreement;
mod app;
mod compute_targets;
mod contract;
mod conventions;
mod datastores;
mod environments;
mod errors;
mod estimators;
#[path = "../support/golden.rs"]
mod golden;
mod golden_cases;
mod idempotency;
mod logs;
mod migration;
mod pods;
mod renderings;
mod run_metrics;
mod runs;
mod secrets;
mod snapshots;
