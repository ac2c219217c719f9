//! The least that an HTTP service of this kind can do: reads a JSON body and answers a small one. The peer of validation, as a
//! process of its own, like the service.

use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Command, Stdio},
};

use anyhow::Context as _;
use axum::{Json, Router, routing::post};
use serde_json::{Value, json};

use crate::process::Process;

/// The option that this program becomes the handler by.
pub const OPTION: &str = "--bare-handler";

/// Where it takes bodies.
pub const PATH: &str = "/judge";

/// Serves until it is told to end. Prints its address when it listens. It has the threads that the service has: the runtime's default.
///
/// # Errors
/// When it cannot listen.
pub fn serve(_: &[String]) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", listener.local_addr()?);
        let app = Router::new().route(PATH, post(answer));
        // As the service does it.
        let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, app).await?;
        Ok(())
    })
}

async fn answer(Json(body): Json<Value>) -> Json<Value> {
    Json(json!({"valid": body.is_object(), "findings": []}))
}

/// A handler in a process of its own.
#[derive(Debug)]
pub struct BareHandler {
    _process: Process,
    /// Where it listens.
    pub address: SocketAddr,
}

impl BareHandler {
    /// Starts one.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(OPTION).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = Process::start(&mut command)?;
        let output = process.child().stdout.take().context("its output is a pipe")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let address = line.trim().parse().context("the bare handler does not start")?;
        Ok(Self { _process: process, address })
    }
}
