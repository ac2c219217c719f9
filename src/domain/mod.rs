//! Everything that decides, and nothing that does: no HTTP, SQL, process, file or clock in here.
//!
//! `tests/architecture.rs` reads the sources and fails when this module reaches for I/O.

pub mod built_environment;
pub mod collection;
pub mod compute_target;
pub mod conda;
pub mod container;
pub mod datastore;
pub mod datastore_access;
pub mod definition;
pub mod environment;
pub mod exchange;
pub mod facts;
pub mod finding;
pub mod framework;
pub mod ids;
pub mod json;
pub mod judge;
pub mod kubernetes;
pub mod migration;
pub mod node_size;
pub mod one_off_target;
mod patch;
pub mod plan;
pub mod python;
pub mod record;
pub mod render;
pub mod rules;
pub mod run;
pub mod secret;
pub mod slurm;
pub mod staging;
