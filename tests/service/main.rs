//! The whole service from outside: the real binary with its own database, over HTTP, as a user sees it.

mod data;
mod end_to_end;
mod refusals;
mod service;
mod survival;
