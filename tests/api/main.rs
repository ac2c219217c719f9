//! The HTTP API in process: a router, a database of its own per test, a clock that stands still.

mod app;
mod compute_targets;
mod contract;
mod conventions;
mod errors;
mod estimators;
mod idempotency;
mod logs;
mod migration;
mod runs;
mod snapshots;
