//! When a script starts, told by the script: through the service, and by hand.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use tokio::runtime::Runtime;

use crate::{
    context::Context,
    http::{Call, Connection},
    scripted::{PYTHON, Scripted, id_of, log_path},
};

/// Says when it began, before it does anything else.
const SCRIPT: &str = "import time\nprint(time.time())\n";

/// A service with nothing to do, and a connection to it.
pub struct ScriptStarts {
    scripted: Scripted,
    runtime: Runtime,
    connection: Connection,
    by_hand: PathBuf,
}

impl ScriptStarts {
    /// Starts the service.
    ///
    /// # Errors
    /// When it does not start.
    pub fn prepare(context: &Context, name: &str) -> anyhow::Result<Self> {
        let scripted = Scripted::start(context, name, SCRIPT)?;
        let by_hand = context.directory.join("by_hand.py");
        fs::write(&by_hand, SCRIPT)?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let connection = runtime.block_on(Connection::open(scripted.service().address()))?;
        Ok(Self { scripted, runtime, connection, by_hand })
    }

    /// What makes the definitions.
    pub const fn scripted(&self) -> &Scripted {
        &self.scripted
    }

    /// Has a run made, and waits for its end; how long after the answer the script began. The inner error is why the run failed.
    ///
    /// # Errors
    /// When the service does not do as it should.
    pub fn through_the_service(
        &mut self,
        call: &Call,
        patience: Duration,
    ) -> anyhow::Result<Result<Duration, String>> {
        let answer = self.runtime.block_on(self.connection.ask(call))?;
        let accepted = SystemTime::now();
        let id = id_of(&answer)?;
        if let Err(why) = self.scripted.until_ended(&id, patience)? {
            return Ok(Err(why));
        }
        let said = self.runtime.block_on(self.connection.ask(&Call::get(&log_path(&id))?))?;
        Ok(Ok(since(accepted, &said)?))
    }

    /// Starts the script by hand; how long after that it began.
    ///
    /// # Errors
    /// When it does not start.
    pub fn by_hand(&self) -> anyhow::Result<Duration> {
        let mut command = Command::new(PYTHON);
        command.arg(&self.by_hand);
        let before = SystemTime::now();
        let output = command.output()?;
        since(before, &output.stdout)
    }
}

/// From an instant until that which the script said.
fn since(begin: SystemTime, said: &[u8]) -> anyhow::Result<Duration> {
    let said = str::from_utf8(said)?.trim();
    let began = said.parse().with_context(|| format!("the script said {said:?}"))?;
    let began = UNIX_EPOCH + Duration::from_secs_f64(began);
    // A script may begin before the answer to its request arrives.
    Ok(began.duration_since(begin).unwrap_or_default())
}
