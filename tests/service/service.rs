//! A running service, and what a user does to it.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// How many of something a test has: more in the long forms (`make check-slurm`, `make check-kubernetes`).
pub fn number(variable: &str, short: usize) -> usize {
    std::env::var(variable).map_or(short, |text| text.parse().expect("a number"))
}

/// Asks until there is an answer.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A data directory that the account of the embedded database can reach; removed at the end.
pub fn data_dir() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let everybody = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("estimatord-service-").permissions(everybody).tempdir().expect("made")
}

/// A service.
pub struct Service {
    process: Child,
    log: PathBuf,
    pub base: String,
    http: reqwest::Client,
    /// What requests are sent with.
    pub token: Option<String>,
    runtime: tokio::runtime::Runtime,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The command line of a service on the given directory, with nothing of this process's environment in the way.
pub fn command(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_estimatord"));
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--cancel-grace-seconds", "1", "--data-dir"])
        .arg(data_dir)
        .env_remove("DATABASE_URL")
        // Scripts leave notes wherever a test wants them, and run with whatever `python3` is: tests/security has users of their own.
        .env("ESTIMATORD_RUN_UIDS", "none")
        .stdin(Stdio::null());
    command
}

impl Service {
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    pub fn start_with(data_dir: &Path, options: &[&str]) -> Self {
        let mut command = command(data_dir);
        command.args(options);
        Self::started(command, data_dir)
    }

    /// Starts with these variables, beside those of this process.
    pub fn start_in(data_dir: &Path, variables: &[(&str, &Path)]) -> Self {
        let mut command = command(data_dir);
        command.envs(variables.iter().copied());
        Self::started(command, data_dir)
    }

    /// Starts what a command line says, and waits until it is ready.
    pub fn started(mut command: Command, data_dir: &Path) -> Self {
        let log = data_dir.join("service-test.log");
        // A log of its own per start: what an earlier service said must not be read as this one's.
        let _ = std::fs::remove_file(&log);
        let sink = File::create(&log).expect("a log");
        let process =
            command.stdout(sink.try_clone().expect("cloned")).stderr(sink).spawn().expect("started");
        // Building a client needs a provider, also where no TLS is spoken. Another test may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let http = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        let mut service = Self { process, log, base: String::new(), http, token: None, runtime };
        service.base = until("the service is ready", || {
            if let Some(status) = service.process.try_wait().expect("asked") {
                panic!("the service ended ({status}):\n{}", service.read_log());
            }
            let log = service.read_log();
            let at = log.find("ready: http://")? + "ready: ".len();
            log[at..].split("/docs/").next().map(str::to_owned)
        });
        service
    }

    pub fn read_log(&self) -> String {
        let mut text = String::new();
        File::open(&self.log).expect("a log").read_to_string(&mut text).expect("UTF-8");
        text
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a pid"));
        kill(pid, signal).expect("signalled");
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.process.wait().expect("waited");
    }

    /// SIGTERM, and how it ended.
    pub fn stop(self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.end()
    }

    /// How it ended, once it has been told to.
    pub fn end(mut self) -> ExitStatus {
        until("the service stops", || self.process.try_wait().expect("asked"))
    }

    pub fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let body = body.map(|b| ("application/json", b.to_string().into_bytes()));
        self.send(method, path, body)
    }

    /// With these headers, and no body.
    pub fn call_with(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.request(method, path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.answer(request)
    }

    pub fn send(&self, method: &str, path: &str, body: Option<(&str, Vec<u8>)>) -> Answer {
        let mut request = self.request(method, path);
        if let Some((content_type, bytes)) = body {
            request = request.header("content-type", content_type).body(bytes);
        }
        self.answer(request)
    }

    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method.parse().expect("a method"), format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        self.runtime.block_on(async {
            let answer = request.send().await.expect("an answer");
            let content_type = answer.headers().get("content-type").map(|v| v.to_str().expect("ASCII"));
            Answer {
                status: answer.status().as_u16(),
                content_type: content_type.unwrap_or("").to_owned(),
                body: answer.bytes().await.expect("a body").to_vec(),
            }
        })
    }

    /// Uploads files; answers the snapshot's id.
    pub fn upload(&self, files: &[(&str, &str)]) -> String {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, text.as_bytes()).expect("packed");
        }
        let bytes = archive.into_inner().expect("packed");
        let answer = self.send("POST", "/v1/snapshots", Some(("application/x-tar", bytes)));
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    /// A definition that runs `train.py` with the interpreter that is there.
    pub fn definition(&self, script: &str) -> Value {
        let snapshot = self.upload(&[("train.py", script)]);
        json!({"source_directory": snapshot, "compute_target": "local", "entry_script": "train.py", "user_managed": true,
            // Also where Docker answers.
            "use_docker": false})
    }

    /// Submits; answers the run's id.
    pub fn submit(&self, definition: &Value) -> String {
        let body = json!({"experiment_name": "tests", "estimator": definition});
        let answer = self.call("POST", "/v1/runs", Some(&body));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["id"].as_str().expect("an id").to_owned()
    }

    pub fn run(&self, id: &str) -> Value {
        let answer = self.call("GET", &format!("/v1/runs/{id}"), None);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    pub fn until_status(&self, id: &str, wanted: &[&str]) -> Value {
        let mut last = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            last = self.run(id);
            if wanted.contains(&last["status"].as_str().unwrap_or("")) {
                return last;
            }
            let terminal =
                ["Completed", "Failed", "Canceled"].contains(&last["status"].as_str().unwrap_or(""));
            assert!(!terminal, "ended otherwise: {last:#}\n{}", self.log_text(id));
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("not {wanted:?} in time: {last:#}\n{}", self.read_log());
    }

    pub fn log_text(&self, id: &str) -> String {
        self.call("GET", &format!("/v1/runs/{id}/logs/user_logs/std_log.txt"), None).text()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| !rest.trim_start().starts_with('Z')))
}
