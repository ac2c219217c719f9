//! Reading from and writing to datastores: what a run's data is copied from before its start, and to at its end.

mod beneath;
mod cache;
mod connector;
mod download;
mod error;
mod find;
mod folder;
#[cfg(test)]
mod link_tests;
mod open;
#[cfg(test)]
mod tests;
mod upload;

pub use self::{
    cache::Cache,
    download::{Downloaded, download},
    error::DataError,
    find::{Found, FoundFile, find},
    open::{Store, open},
    upload::{LocalFile, upload},
};
