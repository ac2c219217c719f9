//! A service that runs a Python script on its own machine, as it comes.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::{context::Context, database::Database, http::Call, service::Service};

/// The interpreter: the system's, which also a run with a user of its own can reach.
pub const PYTHON: &str = "/usr/bin/python3";

/// Where a run's script is, in its snapshot.
const ENTRY_SCRIPT: &str = "train.py";

/// A service with its worker, and a snapshot with the script.
#[derive(Debug)]
pub struct Scripted {
    service: Service,
    snapshot: String,
    _database: Database,
}

impl Scripted {
    /// Starts a service with a database of the given name.
    ///
    /// # Errors
    /// When there is no Python, or the service does not start.
    pub fn start(context: &Context, name: &str, script: &str) -> anyhow::Result<Self> {
        ensure!(Path::new(PYTHON).exists(), "this measurement starts {PYTHON}, which is not there");
        let database = Database::start(context)?;
        database.create(name)?;
        let target = json!({"kind": "process", "python": PYTHON});
        let change = format!("UPDATE compute_targets SET backend = '{target}' WHERE name = 'local'");
        database.execute(name, &change)?;
        let service = Service::start(context, name, &database.url(name), &[])?;
        let snapshot = service.upload(ENTRY_SCRIPT, script.as_bytes())?;
        Ok(Self { service, snapshot, _database: database })
    }

    /// The service.
    pub const fn service(&self) -> &Service {
        &self.service
    }

    /// What to post for a run of the script in the interpreter that is there.
    ///
    /// # Errors
    /// Never in practice.
    pub fn user_managed(&self) -> anyhow::Result<Call> {
        self.call(&json!({"user_managed": true}))
    }

    /// What to post for a run of the script by a definition with these members.
    ///
    /// # Errors
    /// Never in practice.
    pub fn call(&self, members: &Value) -> anyhow::Result<Call> {
        let mut definition = json!({"source_directory": self.snapshot, "compute_target": "local",
            "entry_script": ENTRY_SCRIPT, "use_docker": false});
        for (name, value) in members.as_object().into_iter().flatten() {
            definition[name] = value.clone();
        }
        let body = json!({"experiment_name": "bench", "estimator": definition});
        Call::post("/v1/runs", &body, StatusCode::CREATED)
    }

    /// Waits for the end of a run, looking rarely. The inner error is why it did not complete.
    ///
    /// # Errors
    /// When it does not end.
    pub fn until_ended(&self, id: &str, patience: Duration) -> anyhow::Result<Result<(), String>> {
        let call = Call::get(&format!("/v1/runs/{id}"))?;
        let deadline = Instant::now() + patience;
        loop {
            // Not before its script has begun: whoever measures that wants nothing else to happen meanwhile.
            std::thread::sleep(Duration::from_millis(200));
            let run = self.service.ask_json(&call)?;
            match run["status"].as_str() {
                Some("Completed") => return Ok(Ok(())),
                Some("Failed" | "Canceled") => {
                    return Ok(Err(run["detail"].as_str().unwrap_or("no reason was given").to_owned()));
                }
                status if Instant::now() > deadline => bail!("run {id} is still {status:?}"),
                _ => {}
            }
        }
    }
}

/// The id in the answer to a request for a run.
///
/// # Errors
/// When there is none.
pub fn id_of(answer: &[u8]) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_slice(answer)?;
    Ok(answer["id"].as_str().context("a run has an id")?.to_owned())
}

/// The path of what a run's script printed.
pub fn log_path(id: &str) -> String {
    format!("/v1/runs/{id}/logs/user_logs/std_log.txt")
}
