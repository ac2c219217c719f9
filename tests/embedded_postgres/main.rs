//! The embedded PostgreSQL against the real binaries: every way to start, stop, crash and refuse.

mod crash;
mod refusals;
mod start_stop;
mod support;
