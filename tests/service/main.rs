//! The whole service from outside: the real binary with its own database, over HTTP, as a user sees it.

mod containers;
mod data;
mod end_to_end;
#[expect(dead_code, unused_imports, reason = "the tests of the backend play more of it")]
#[path = "../fake_kubernetes/mod.rs"]
mod fake_kubernetes;
mod kubernetes;
mod parameters;
mod probes;
mod refusals;
mod service;
mod slurm;
mod survival;
