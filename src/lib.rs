//! estimatord: runs Azure ML SDK v1 `Chainer` estimator definitions on the user's own compute.
//!
//! `main → { api, worker, client } → { storage, backend → artifacts } → domain`; `tests/architecture.rs` holds the arrows.

pub mod api;
pub mod artifacts;
pub mod backend;
pub mod client;
pub mod clock;
pub mod config;
pub mod datastores;
pub mod domain;
pub mod embedded_postgres;
pub mod figures;
pub mod http_server;
pub mod installation;
pub mod lifecycle;
pub mod operate;
#[cfg(test)]
mod renderings;
pub mod storage;
pub mod telemetry;
pub mod together;
pub mod traces;
pub mod vault;
pub mod webhooks;
pub mod worker;
