//! What somebody who does not belong must not get: attacks on the API, on its tokens, and by runs; and what operators need.

#[expect(dead_code, reason = "the tests of the API do more with it")]
#[path = "../api/app.rs"]
mod app;
mod browsers;
mod canaries;
// Of the tests of the service from outside.
#[path = "../service/collector.rs"]
mod collector;
mod crowds;
mod datastores;
mod doctor;
mod http;
mod issuers;
mod open_files;
#[expect(dead_code, reason = "the tests of the service let it die")]
#[path = "../service/own_database.rs"]
mod own_database;
mod projects;
mod restore;
mod rotation;
mod runs;
#[expect(dead_code, reason = "the tests of the service say more of it")]
#[path = "../service/service.rs"]
mod service;
mod tokens;
