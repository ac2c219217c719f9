//! The whole service from outside: the real binary with its own database, over HTTP, as a user sees it.

mod collector;
mod command_line;
mod containers;
mod data;
mod database;
mod end_to_end;
#[expect(dead_code, unused_imports, reason = "the tests of the backend play more of it")]
#[path = "../fake_kubernetes/mod.rs"]
mod fake_kubernetes;
mod followers;
mod kubernetes;
mod own_database;
mod parameters;
mod probes;
mod refusals;
mod replicas;
mod retention;
mod service;
mod slurm;
mod survival;
mod telemetry;
