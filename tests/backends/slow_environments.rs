//! Environments that are really built, and the example trained in them: these take a while, and the network.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use estimatord::{
    backend::{
        Attempt, Backend as _, ExitReason, PrepareError,
        process::{Isolation, ProcessBackend, Settings},
    },
    domain::{environment::EnvironmentKind, plan::Launcher},
};

use crate::{
    harness::{self, Directory, Sweeper, content, ended, is_alive, noted_pids, scripts, until},
    process::Machine,
};

/// What is built here stays from one test to the next, and from one `cargo test` to the next.
struct Kept(Sweeper, std::sync::Mutex<Vec<Attempt>>);

impl Kept {
    fn new() -> Self {
        Self(Sweeper::default(), std::sync::Mutex::default())
    }

    fn data_dir() -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("environments")
    }

    fn backend() -> ProcessBackend {
        backend(Self::data_dir(), Duration::from_secs(900))
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        let attempt = managed(harness::attempt(script, arguments), &EXAMPLE);
        self.0.watch(attempt.run_id);
        self.1.lock().unwrap().push(attempt.clone());
        attempt
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for attempt in self.1.lock().unwrap().iter() {
            let _ = fs::remove_dir_all(Self::data_dir().join("runs").join(attempt.run_id.to_string()));
        }
    }
}

/// What the definition of the example resolves to.
const EXAMPLE: [&str; 4] = ["azureml-defaults", "chainer==7.0.0", "mpi4py==3.0.0", "scikit-learn"];

pub fn backend(data_dir: PathBuf, build_timeout: Duration) -> ProcessBackend {
    let supervisor = env!("CARGO_BIN_EXE_estimatord").into();
    let cancel_grace = Duration::from_secs(10);
    // Where it was installed before, it need not be installed again for every fresh data directory.
    let uv = Some(Kept::data_dir().join("tools/uv/bin/uv")).filter(|uv| uv.is_file());
    let max_environments_bytes = u64::MAX;
    ProcessBackend::new(Settings {
        data_dir,
        supervisor,
        cancel_grace,
        build_timeout,
        max_environments_bytes,
        uv,
        conda: None,
        conda_channel_alias: None,
        isolation: Isolation::default(),
    })
    .unwrap()
}

pub fn managed(mut attempt: Attempt, packages: &[&str]) -> Attempt {
    let environment = &mut attempt.plan.environment;
    environment.kind = EnvironmentKind::Managed;
    environment.interpreter_path = None;
    environment.python_version = Some("3.6.2".into());
    environment.docker = true;
    environment.image = Some("mcr.microsoft.com/azureml/base:intelmpi2018.3-ubuntu16.04".into());
    environment.pip_packages = packages.iter().map(|package| (*package).to_owned()).collect();
    attempt
}

fn on_ranks(mut attempt: Attempt, nodes: u64) -> Attempt {
    attempt.plan.launcher = Launcher::Mpi;
    attempt.plan.node_count = nodes;
    attempt
}

fn example() -> Directory {
    Directory(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/digits"))
}

/// The number at the end of the line that the example ends with.
fn accuracy(log: &str) -> f64 {
    log.lines()
        .next_back()
        .unwrap()
        .strip_prefix("validation accuracy: ")
        .unwrap_or_else(|| panic!("{log}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn the_example_learns_alone() {
    let kept = Kept::new();
    let (backend, attempt) = (Kept::backend(), kept.attempt("train.py", &["--epochs", "20"]));
    let environment = backend.prepare(&attempt, &example()).await.unwrap();
    assert_eq!(environment.kind, "virtual_environment");
    for package in ["chainer==7.0.0", "numpy==1.23.5"] {
        assert!(
            environment.packages.iter().any(|installed| installed == package),
            "{:?}",
            environment.packages
        );
    }
    let asked: Vec<&str> = environment.substitutions.iter().map(|s| s.asked.as_str()).collect();
    assert!(asked.contains(&"python 3.6.2") && asked.contains(&"mpi4py==3.0.0"), "{asked:?}");
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    let log = content(&backend.log_files(&attempt).await.unwrap(), "user_logs/std_log.txt");
    assert_eq!((exit.reason, exit.exit_code), (ExitReason::Exited, Some(0)), "{log}");
    println!("alone: {} in {}", accuracy(&log), exit.finished_at - exit.started_at.unwrap());
    assert!(accuracy(&log) > 0.9, "{log}");
    let outputs = backend.output_files(&attempt).await.unwrap();
    assert!(outputs.iter().any(|file| file.name == "model.npz" && file.bytes > 0));
    let metrics: serde_json::Value = serde_json::from_str(&content(&outputs, "metrics.json")).unwrap();
    assert_eq!(metrics["ranks"], 1);
}

#[tokio::test]
async fn the_example_learns_on_two_ranks() {
    let kept = Kept::new();
    let attempt = on_ranks(kept.attempt("train.py", &["--epochs", "20", "--distributed"]), 2);
    let backend = Kept::backend();
    let environment = backend.prepare(&attempt, &example()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    let logs = backend.log_files(&attempt).await.unwrap();
    let log = content(&logs, "user_logs/std_log_0.txt");
    assert_eq!(exit.exit_code, Some(0), "{log}{}", content(&logs, "azureml-logs/70_mpirun_log.txt"));
    println!("on two ranks: {} in {}", accuracy(&log), exit.finished_at - exit.started_at.unwrap());
    assert!(accuracy(&log) > 0.9, "{log}");
    assert!(logs.iter().any(|file| file.name == "user_logs/std_log_1.txt"));
    let outputs = backend.output_files(&attempt).await.unwrap();
    let metrics: serde_json::Value = serde_json::from_str(&content(&outputs, "metrics.json")).unwrap();
    assert_eq!(metrics["ranks"], 2);
}

#[tokio::test]
async fn the_default_version_learns_too_alone_and_on_ranks() {
    let kept = Kept::new();
    let backend = Kept::backend();
    let packages = ["azureml-defaults", "chainer==5.1.0", "mpi4py==3.0.0", "scikit-learn"];
    let alone = managed(kept.attempt("train.py", &[]), &packages);
    let ranks = on_ranks(managed(kept.attempt("train.py", &["--distributed"]), &packages), 2);
    for (attempt, log) in [(alone, "user_logs/std_log.txt"), (ranks, "user_logs/std_log_0.txt")] {
        let environment = backend.prepare(&attempt, &example()).await.unwrap();
        assert!(environment.packages.contains(&"chainer==5.1.0".to_owned()), "{:?}", environment.packages);
        backend.ensure_submitted(&attempt, &environment).await.unwrap();
        let exit = ended(&backend, &attempt).await;
        let log = content(&backend.log_files(&attempt).await.unwrap(), log);
        assert_eq!(exit.exit_code, Some(0), "{log}");
        println!("chainer 5.1.0: {}", accuracy(&log));
        assert!(accuracy(&log) > 0.9, "{log}");
    }
}

#[tokio::test]
async fn one_rank_is_started_under_mpi_too_and_logs_like_one_process() {
    let kept = Kept::new();
    let (backend, attempt) =
        (Kept::backend(), on_ranks(kept.attempt("train.py", &["--epochs", "1", "--distributed"]), 1));
    let environment = backend.prepare(&attempt, &example()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let log = content(&backend.log_files(&attempt).await.unwrap(), "user_logs/std_log.txt");
    assert!(log.starts_with("chainer 7.0.0, 1 rank(s)"), "{log}");
}

#[tokio::test]
async fn ranks_of_a_user_managed_interpreter_start_with_the_mpi_beside_it() {
    let kept = Kept::new();
    let backend = Kept::backend();
    let built = backend.prepare(&kept.attempt("one_raises.py", &[]), &scripts()).await.unwrap();
    // Open MPI has a meaning of its own for a bare colon.
    let mut attempt = on_ranks(kept.attempt("one_raises.py", &["a b", ":", "=x"]), 2);
    attempt.plan.environment.kind = EnvironmentKind::UserManaged;
    attempt.plan.environment.interpreter_path = Some(built.interpreter.clone());
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    assert_eq!((environment.kind.as_str(), &environment.interpreter), ("user_managed", &built.interpreter));
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(1));
    let log = content(&backend.log_files(&attempt).await.unwrap(), "user_logs/std_log_0.txt");
    assert!(log.starts_with("rank 0 of 2 with ['a b', ':', '=x']"), "{log}");
}

#[tokio::test]
async fn a_rank_that_raises_ends_the_run() {
    let kept = Kept::new();
    let (backend, attempt) = (Kept::backend(), on_ranks(kept.attempt("one_raises.py", &[]), 3));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert_eq!((exit.reason, exit.exit_code), (ExitReason::Exited, Some(1)));
    let logs = backend.log_files(&attempt).await.unwrap();
    assert!(content(&logs, "user_logs/std_log_1.txt").contains("ValueError: rank 1 gives up"));
    assert!(content(&logs, "user_logs/std_log_0.txt").starts_with("rank 0 of 3"));
}

#[tokio::test]
async fn cancelling_ends_all_ranks() {
    let kept = Kept::new();
    let notes = tempfile::tempdir().unwrap();
    let note = notes.path().join("rank").to_str().unwrap().to_owned();
    let (backend, attempt) = (Kept::backend(), on_ranks(kept.attempt("rank_waits.py", &[&note]), 2));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let mut ranks = noted_pids(&format!("{note}.0")).await;
    ranks.extend(noted_pids(&format!("{note}.1")).await);
    backend.cancel(&attempt).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.reason, ExitReason::Canceled);
    assert!(!ranks.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn runs_that_ask_at_once_build_once() {
    let machine = Machine::new();
    let attempts: Vec<Attempt> = (0..4)
        .map(|_| machine.watched(managed(harness::attempt("exits.py", &["0"]), &["six==1.16.0"])))
        .collect();
    let calls: Vec<_> = attempts
        .iter()
        .map(|attempt| {
            let (backend, attempt) = (backend(machine.data_dir(), Duration::from_secs(300)), attempt.clone());
            tokio::spawn(async move { backend.prepare(&attempt, &scripts()).await.unwrap() })
        })
        .collect();
    let mut built = Vec::new();
    for call in calls {
        let environment = call.await.unwrap();
        assert_eq!(environment.packages, ["six==1.16.0"]);
        built.push(!environment.reused);
    }
    assert_eq!(built.iter().filter(|built| **built).count(), 1, "{built:?}");
    let backend = backend(machine.data_dir(), Duration::from_secs(300));
    for attempt in &attempts {
        let log = content(&backend.log_files(attempt).await.unwrap(), "azureml-logs/20_image_build_log.txt");
        assert!(log.contains("six==1.16.0"), "everybody who waited has the build's output: {log}");
    }
}

#[tokio::test]
async fn packages_of_the_source_tree_are_installed_from_a_copy() {
    let machine = Machine::new();
    let tree = machine.data_dir().with_file_name("tree");
    fs::create_dir(&tree).unwrap();
    fs::write(
        tree.join("pyproject.toml"),
        "[project]\nname = \"own\"\nversion = \"0.3\"\n[tool.setuptools]\npy-modules = [\"own\"]\n",
    )
    .unwrap();
    fs::write(tree.join("own.py"), "answer = 42\n").unwrap();
    fs::write(tree.join("train.py"), "import own\nprint(own.answer, own.__file__)\n").unwrap();
    let backend = backend(machine.data_dir(), Duration::from_secs(300));
    let attempt = machine.watched(managed(harness::attempt("train.py", &[]), &["-e ."]));
    let environment = backend.prepare(&attempt, &Directory(tree)).await.unwrap();
    assert_eq!(environment.packages, ["own==0.3"]);
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let log = content(&backend.log_files(&attempt).await.unwrap(), "user_logs/std_log.txt");
    assert!(log.starts_with("42 "), "{log}");
}

#[tokio::test]
async fn a_failed_build_says_what_the_resolver_said() {
    let machine = Machine::new();
    let backend = backend(machine.data_dir(), Duration::from_secs(300));
    let attempt =
        machine.watched(managed(harness::attempt("exits.py", &["0"]), &["six==1.16.0", "six==1.15.0"]));
    let error = backend.prepare(&attempt, &scripts()).await.unwrap_err();
    let PrepareError::EnvironmentBuild { message } = &error else { panic!("{error}") };
    assert!(message.contains("six==1.15.0") && !message.contains('╰'), "{message}");
    let log = content(&backend.log_files(&attempt).await.unwrap(), "azureml-logs/20_image_build_log.txt");
    assert!(log.contains(message.as_str()), "{log}");
}

#[tokio::test]
async fn an_interrupted_build_leaves_no_process_and_is_built_anew() {
    let machine = Machine::new();
    let data_dir = machine.data_dir();
    let attempt = machine.watched(managed(harness::attempt("exits.py", &["0"]), &["six==1.16.0"]));
    let task = {
        let (backend, attempt) = (backend(data_dir.clone(), Duration::from_secs(300)), attempt.clone());
        tokio::spawn(async move { backend.prepare(&attempt, &scripts()).await })
    };
    let builders = || {
        let mark = data_dir.to_str().unwrap().to_owned();
        let lines =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|p| fs::read(p.path().join("cmdline")).ok());
        lines.filter(|line| String::from_utf8_lossy(line).contains(&mark)).count()
    };
    until("an installer to run", async || (builders() > 0).then_some(())).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    until("the installer to be gone", async || (builders() == 0).then_some(())).await;
    let again =
        backend(data_dir.clone(), Duration::from_secs(300)).prepare(&attempt, &scripts()).await.unwrap();
    assert!(!again.reused);
    let other = machine.watched(managed(harness::attempt("exits.py", &["0"]), &["six==1.16.0"]));
    let third = backend(data_dir, Duration::from_secs(300)).prepare(&other, &scripts()).await.unwrap();
    assert!(third.reused && third.packages == again.packages && third.build_key == again.build_key);
}

#[tokio::test]
async fn a_build_that_takes_too_long_is_stopped() {
    let machine = Machine::new();
    let backend = backend(machine.data_dir(), Duration::from_millis(1));
    let attempt = machine.watched(managed(harness::attempt("exits.py", &["0"]), &["six==1.16.0"]));
    let error = backend.prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message } if message.contains("not finished")),
        "{error}"
    );
}
