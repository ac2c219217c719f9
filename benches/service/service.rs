//! The service, started as a user would.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use hyper::StatusCode;

use crate::{
    context::Context,
    http::{Call, Connection},
    process::Process,
};

/// How long a start may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running service. Ends when it is dropped.
#[derive(Debug)]
pub struct Service {
    process: Process,
    address: SocketAddr,
}

impl Service {
    /// Starts one on a database, with a data directory of the given name, and waits until it is ready. Its limits are far away
    /// unless `options` sets them.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(
        context: &Context,
        name: &str,
        database_url: &str,
        options: &[&str],
    ) -> anyhow::Result<Self> {
        let data_dir = context.directory.join(name);
        fs::create_dir_all(&data_dir)?;
        let log = data_dir.join("bench.log");
        let sink = File::create(&log)?;
        let mut command = Command::new(&context.estimatord);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data_dir)
            // Where it listens is said at the level `info`.
            .args(["--log", "warn,estimatord::lifecycle=info"]);
        for (option, value) in [("--max-requests-per-minute", "1000000000"), ("--max-queued-runs", "1000000")]
        {
            if !options.contains(&option) {
                command.args([option, value]);
            }
        }
        command
            .args(options)
            .env("DATABASE_URL", database_url)
            .stdin(Stdio::null())
            .stdout(sink.try_clone()?)
            .stderr(sink);
        let mut process = Process::start(&mut command)?;
        let address = wait_until_ready(&mut process, &log)?;
        Ok(Self { process, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks once, on a connection of its own.
    ///
    /// # Errors
    /// When the answer is not as expected.
    pub fn ask(&self, call: &Call) -> anyhow::Result<Bytes> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { Connection::open(self.address).await?.ask(call).await })
    }

    /// Asks once for JSON.
    ///
    /// # Errors
    /// When the answer is not as expected.
    pub fn ask_json(&self, call: &Call) -> anyhow::Result<serde_json::Value> {
        Ok(serde_json::from_slice(&self.ask(call)?)?)
    }

    /// Uploads one file; answers the snapshot's id.
    ///
    /// # Errors
    /// When it is not accepted.
    pub fn upload(&self, path: &str, content: &[u8]) -> anyhow::Result<String> {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content)?;
        let call =
            Call::send("/v1/snapshots", "application/x-tar", archive.into_inner()?, StatusCode::CREATED)?;
        let answer = self.ask_json(&call)?;
        Ok(answer["id"].as_str().context("a snapshot has an id")?.to_owned())
    }
}

fn wait_until_ready(process: &mut Process, log: &Path) -> anyhow::Result<SocketAddr> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = fs::read_to_string(log)?;
        if let Some((_, rest)) = said.split_once("ready: http://")
            && let Some((address, _)) = rest.split_once("/docs/")
        {
            return Ok(address.parse()?);
        }
        if let Some(status) = process.child().try_wait()? {
            bail!("the service ended ({status}): {said}");
        }
        if Instant::now() > deadline {
            bail!("the service is not ready in time: {said}");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
