//! Places to run attempts in, cleaned up whatever happens.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use estimatord::{
    backend::{
        ActualEnvironment, Attempt, Backend, Exit, Observation, SourceTree,
        process::{Isolation, Settings},
    },
    clock,
    clock::Clock as _,
    domain::{
        compute_target,
        environment::{Environment, EnvironmentKind, Variable},
        ids::{RunId, SnapshotId},
        plan::{Launcher, Plan},
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long anything that must come may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of compute under test.
pub trait Lab {
    /// Its backend.
    type Backend: Backend + 'static;

    /// Another backend object over the same compute, as after a restart of the service.
    fn backend(&self) -> Self::Backend;

    /// Where scripts and tests leave each other notes.
    fn notes(&self) -> &Path;

    /// A new attempt that runs `script` of `tests/backends/scripts` with the machine's own interpreter.
    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt;

    /// Whether the backend tells CPU time and memory by itself.
    fn measures(&self) -> bool {
        true
    }

    /// Whether it knows the version of Python before the script runs.
    fn knows_python(&self) -> bool {
        true
    }

    /// Whether a process is there that noted its number.
    fn is_alive(&self, pid: i32) -> bool {
        is_alive(pid)
    }

    /// A path in [`Lab::notes`], as text.
    fn note(&self, name: &str) -> String {
        self.notes().join(name).to_str().unwrap().to_owned()
    }
}

/// The machine's interpreter: not a wrapper, which would add variables of its own.
static PYTHON: LazyLock<String> = LazyLock::new(|| {
    let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output().unwrap();
    assert!(output.status.success(), "the tests need python3");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
});

/// What a backend is told that builds nothing special.
pub fn settings(data_dir: PathBuf, cancel_grace: Duration) -> Settings {
    Settings {
        data_dir,
        supervisor: env!("CARGO_BIN_EXE_estimatord").into(),
        cancel_grace,
        build_timeout: Duration::from_secs(600),
        max_environments_bytes: u64::MAX,
        uv: None,
        conda: None,
        conda_channel_alias: None,
        isolation: Isolation::default(),
    }
}

/// A source tree that lies in a directory of this repository.
pub struct Directory(pub PathBuf);

impl SourceTree for Directory {
    async fn unpack(&self, directory: &Path) -> io::Result<()> {
        copy(&self.0, directory)
    }
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// The scripts of the conformance suite.
pub fn scripts() -> Directory {
    Directory(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends/scripts"))
}

/// Ends the processes of the attempts it knows when it goes out of scope.
#[derive(Default)]
pub struct Sweeper(Mutex<Vec<RunId>>);

impl Sweeper {
    pub fn watch(&self, run_id: RunId) {
        self.0.lock().unwrap().push(run_id);
    }

    pub fn runs(&self) -> Vec<String> {
        self.0.lock().unwrap().iter().map(ToString::to_string).collect()
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        let runs = self.runs();
        let ours =
            |text: &[u8]| runs.iter().any(|run| text.windows(run.len()).any(|part| part == run.as_bytes()));
        // Supervisors have the run in their command line, scripts in their environment.
        for _ in 0..100 {
            let mut found = 0;
            for entry in fs::read_dir("/proc").unwrap().flatten() {
                let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
                    continue;
                };
                let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
                if pid != Pid::this().as_raw() && (ours(&read("environ")) || ours(&read("cmdline"))) {
                    found += 1;
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
            }
            if found == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A user-managed attempt of one process.
pub fn attempt(script: &str, arguments: &[&str]) -> Attempt {
    Attempt {
        run_id: RunId::generate(clock::SystemClock.now(), clock::entropy()),
        number: 1,
        experiment_name: "conformance".into(),
        tags: Default::default(),
        plan: Plan {
            snapshot_id: SnapshotId::from_digest([7; 32]),
            entry_script: script.into(),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            launcher: Launcher::Single,
            node_count: 1,
            process_count_per_node: 1,
            compute_target: "local".into(),
            one_off_target: None,
            target_nodes: None,
            containers: Default::default(),
            use_gpu: false,
            gpus_per_node: 0,
            max_run_duration_seconds: None,
            data: Default::default(),
            environment: Environment {
                kind: EnvironmentKind::UserManaged,
                interpreter_path: Some(PYTHON.clone()),
                framework: "Chainer".into(),
                framework_version: None,
                python_version: None,
                docker: false,
                image: None,
                container: Default::default(),
                prebuilt_packages: Vec::new(),
                pip_packages: Vec::new(),
                pip_origins: Default::default(),
                conda_packages: Vec::new(),
                conda_channels: Vec::new(),
                environment_variables: Vec::new(),
                shm_size: None,
                hash: "sha256:".into(),
            },
        },
        backend: compute_target::Backend::process(),
        registry: None,
        access: None,
    }
}

/// Adds a variable to what a definition asks for.
pub fn with_variable(mut attempt: Attempt, name: &str, value: &str) -> Attempt {
    let variable = Variable { name: name.into(), value: value.into() };
    attempt.plan.environment.environment_variables.push(variable);
    attempt
}

/// Waits until a condition holds; says what was waited for when it never does.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < give_up, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Prepares and starts an attempt of the conformance suite, and waits until it runs.
pub async fn start<B: Backend>(backend: &B, attempt: &Attempt) -> ActualEnvironment {
    let environment = backend.prepare(attempt, &scripts()).await.unwrap();
    backend.ensure_submitted(attempt, &environment).await.unwrap();
    until("the start of the attempt", async || {
        let seen = backend.observe(attempt).await.unwrap();
        (!matches!(seen, Observation::Queued { .. } | Observation::Starting)).then_some(())
    })
    .await;
    environment
}

/// Waits until an attempt has ended.
pub async fn ended<B: Backend>(backend: &B, attempt: &Attempt) -> Exit {
    until("the end of the attempt", async || match backend.observe(attempt).await.unwrap() {
        Observation::Exited(exit) => Some(exit),
        Observation::Queued { .. } | Observation::Starting | Observation::Running { .. } => None,
        other => panic!("it should run or have ended, and is {other:?}"),
    })
    .await
}

/// Waits for a file with numbers of processes, one per line.
pub async fn noted_pids(path: &str) -> Vec<i32> {
    let text = until(path, async || fs::read_to_string(path).ok().filter(|text| text.ends_with('\n'))).await;
    text.lines().map(|line| line.parse().unwrap()).collect()
}

/// Whether a process is there, and not only as an entry that waits to be read.
pub fn is_alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

/// The content of one of the files that a backend lists.
pub fn content(files: &[estimatord::backend::AttemptFile], name: &str) -> String {
    let file =
        files.iter().find(|file| file.name == name).unwrap_or_else(|| panic!("{name} is not in {files:?}"));
    io::read_to_string(file.open().unwrap()).unwrap()
}
