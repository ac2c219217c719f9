//! A database of its own, beside the service.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sqlx::{Connection as _, PgConnection};

use crate::service::{Service, until};

/// The embedded database alone.
pub struct Database {
    process: Child,
    data_dir: PathBuf,
    pub url: String,
}

impl Database {
    pub fn start(data_dir: &Path) -> Self {
        let (process, url) = begin(data_dir);
        Self { process, data_dir: data_dir.to_owned(), url }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.process.id()).expect("a pid")), signal).expect("signalled");
    }

    /// `kill -9`, with the server: it dies with whoever started it.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.process.wait().expect("waited");
    }

    pub fn begin_again(&mut self) {
        (self.process, self.url) = begin(&self.data_dir);
    }

    /// Runs statements, each by itself.
    pub fn execute(&self, statements: &[&'static str]) {
        self.with(async |connection| {
            for statement in statements {
                sqlx::raw_sql(*statement).execute(&mut *connection).await.expect("executed");
            }
        });
    }

    pub fn with<T>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut connection = PgConnection::connect(&self.url).await.expect("connected");
            work(&mut connection).await
        })
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn begin(data_dir: &Path) -> (Child, String) {
    until("the database is ready", || {
        let mut process = Command::new(env!("CARGO_BIN_EXE_estimatord"))
            .args(["serve-postgres-only", "--data-dir"])
            .arg(data_dir.join("database"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        match line.strip_prefix("ready ") {
            Some(socket) => {
                Some((process, format!("postgres://estimatord@localhost/estimatord?host={}", socket.trim())))
            }
            // Its predecessor is still going.
            None => {
                process.wait().expect("waited");
                None
            }
        }
    })
}

/// A service on such a database, with a directory of this name.
pub fn replica(database: &Database, dir: &Path, name: &str, options: &[&str]) -> Service {
    let own = dir.join(name);
    std::fs::create_dir_all(&own).expect("made");
    let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    command.args(["serve", "--cancel-grace-seconds", "1", "--data-dir"]).arg(&own);
    command.arg("--artifacts-dir").arg(dir.join("artifacts"));
    if !options.contains(&"--listen") {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    command.args(options).env("DATABASE_URL", &database.url).stdin(Stdio::null());
    command.env("ESTIMATORD_RUN_UIDS", "none");
    Service::started(command, &own)
}
