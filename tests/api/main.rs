//! The HTTP API in process: a router, a database of its own per test, a clock that stands still.

mod again;
mod agreement;
mod app;
mod changes;
mod compute_targets;
mod contract;
mod conventions;
mod datastores;
mod environments;
mod errors;
mod estimators;
mod every_route;
#[path = "../support/golden.rs"]
mod golden;
mod golden_cases;
mod idempotency;
mod log_filter;
mod logs;
mod long_queue;
mod metrics;
mod migration;
mod pods;
mod renderings;
mod run_metrics;
mod runs;
mod secrets;
mod snapshots;
mod trail;
mod webhooks;
