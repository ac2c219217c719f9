//! Everything that decides, and nothing that does: no HTTP, SQL, process, file or clock in here.
//!
//! `tests/architecture.rs` reads the sources and fails when this module reaches for I/O.

pub mod access;
pub mod api_token;
pub mod audit;
pub mod base_url;
pub mod built_environment;
pub mod collection;
pub mod compute_target;
pub mod conda;
pub mod container;
pub mod datastore;
pub mod datastore_access;
pub mod datastore_places;
pub mod definition;
pub mod doctor;
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
pub mod oidc;
pub mod one_off_target;
pub mod otlp_endpoint;
mod patch;
pub mod plan;
pub mod project;
pub mod python;
pub mod record;
pub mod render;
pub mod retention;
pub mod rules;
pub mod run;
pub mod run_users;
pub mod schema;
pub mod secret;
pub mod slurm;
pub mod staging;
pub mod token_mask;
pub mod trace_parent;
pub mod webhook;
