//! The whole service from outside: the real binary with its own database, over HTTP, as a user sees it.

mod containers;
mod data;
mod end_to_end;
mod parameters;
mod probes;
mod refusals;
mod service;
mod slurm;
mod survival;
