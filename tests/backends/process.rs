//! The process backend: the conformance suite, and what only it promises.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use estimatord::{
    backend::{Attempt, Backend as _, ExitReason, Observation, PrepareError, process::ProcessBackend},
    domain::plan::Launcher,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    conformance,
    harness::{self, Lab, Sweeper, content, ended, is_alive, noted_pids, scripts, start, until},
};

const GRACE: Duration = Duration::from_millis(700);

/// A data directory of its own, gone with all its processes when the test ends.
pub struct Machine {
    // First: processes go before the directory that they write to.
    sweeper: Sweeper,
    directory: tempfile::TempDir,
    notes: PathBuf,
    grace: Duration,
}

impl Machine {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let notes = directory.path().join("notes");
        fs::create_dir(&notes).unwrap();
        Self { sweeper: Sweeper::default(), directory, notes, grace: GRACE }
    }

    pub fn with_grace(grace: Duration) -> Self {
        Self { grace, ..Self::new() }
    }

    pub fn watched(&self, attempt: Attempt) -> Attempt {
        self.sweeper.watch(attempt.run_id);
        attempt
    }

    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub fn attempt_dir(&self, attempt: &Attempt) -> PathBuf {
        self.data_dir().join("runs").join(attempt.run_id.to_string()).join(attempt.number.to_string())
    }

    fn supervisor(&self, attempt: &Attempt) -> Pid {
        let record = fs::read(self.attempt_dir(attempt).join("supervisor.json")).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        Pid::from_raw(record["pid"].as_i64().unwrap().try_into().unwrap())
    }
}

impl Lab for Machine {
    type Backend = ProcessBackend;

    fn backend(&self) -> ProcessBackend {
        ProcessBackend::new(harness::settings(self.data_dir(), self.grace)).unwrap()
    }

    fn notes(&self) -> &Path {
        &self.notes
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        self.watched(harness::attempt(script, arguments))
    }
}

macro_rules! conforms {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            conformance::$name(&Machine::with_grace(Duration::from_secs(20))).await;
        }
    )*};
}

conformance::suite!(conforms);

#[tokio::test]
async fn who_ignores_term_is_killed_after_the_grace() {
    conformance::who_ignores_term_is_killed_after_the_grace(&Machine::new(), GRACE).await;
}

/// A runtime of its own stands for a service: when it is dropped, its tasks and children's handles are too.
fn service() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn a_run_outlives_the_service() {
    let machine = Machine::new();
    let attempt = machine.attempt("waits.py", &[&machine.note("starts")]);
    let first = service();
    first.block_on(async { start(&machine.backend(), &attempt).await });
    drop(first);
    service().block_on(async {
        let backend = machine.backend();
        let state = backend.observe(&attempt).await.unwrap();
        assert!(matches!(state, Observation::Running { .. }), "{state:?}");
        fs::write(machine.note("go"), "").unwrap();
        assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    });
}

#[tokio::test]
async fn a_killed_supervisor_means_lost_and_nothing_left() {
    let machine = Machine::new();
    let notes = machine.note("family");
    let (backend, attempt) = (machine.backend(), machine.attempt("family.py", &[&notes, "stay", "stubborn"]));
    start(&backend, &attempt).await;
    let family = noted_pids(&notes).await;
    kill(machine.supervisor(&attempt), Signal::SIGKILL).unwrap();
    let state = until("the loss to be seen", async || match backend.observe(&attempt).await.unwrap() {
        Observation::Running { .. } => None,
        state => Some(state),
    })
    .await;
    assert!(matches!(&state, Observation::Lost { detail } if detail.contains("3 processes")), "{state:?}");
    assert!(!family.iter().any(|pid| is_alive(*pid)));
    assert_eq!(machine.backend().observe(&attempt).await.unwrap(), state, "the first count stays");
}

#[tokio::test]
async fn a_lost_attempt_is_not_started_again() {
    let machine = Machine::new();
    let (backend, attempt) = (machine.backend(), machine.attempt("waits.py", &[&machine.note("starts")]));
    let environment = start(&backend, &attempt).await;
    noted_pids(&machine.note("starts")).await;
    kill(machine.supervisor(&attempt), Signal::SIGKILL).unwrap();
    until("the loss to be seen", async || {
        matches!(backend.observe(&attempt).await.unwrap(), Observation::Lost { .. }).then_some(())
    })
    .await;
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    assert_eq!(noted_pids(&machine.note("starts")).await.len(), 1);
    assert!(matches!(backend.observe(&attempt).await.unwrap(), Observation::Lost { .. }));
}

#[tokio::test]
async fn a_machine_that_goes_down_loses_a_run_and_cancels_none() {
    let machine = Machine::new();
    let notes = machine.note("family");
    let (backend, attempt) = (machine.backend(), machine.attempt("family.py", &[&notes, "stay"]));
    start(&backend, &attempt).await;
    let family = noted_pids(&notes).await;
    kill(machine.supervisor(&attempt), Signal::SIGTERM).unwrap();
    until("the loss to be seen", async || {
        matches!(backend.observe(&attempt).await.unwrap(), Observation::Lost { .. }).then_some(())
    })
    .await;
    assert!(!family.iter().any(|pid| is_alive(*pid)));
}

/// What a restart of the machine leaves of an attempt that had begun: no process, `launch.json` by its name, perhaps not whole, and of
/// what was written later perhaps nothing but the name.
#[tokio::test]
async fn what_was_begun_before_a_restart_of_the_machine_is_lost_and_not_started_again() {
    for is_whole in [true, false] {
        let machine = Machine::new();
        let notes = machine.note("starts");
        let (backend, attempt) = (machine.backend(), machine.attempt("waits.py", &[&notes]));
        let environment = start(&backend, &attempt).await;
        let script = noted_pids(&notes).await[0];
        kill(machine.supervisor(&attempt), Signal::SIGKILL).unwrap();
        kill(Pid::from_raw(script), Signal::SIGKILL).unwrap();
        until("both are gone", async || (!is_alive(script)).then_some(())).await;
        let place = |name: &str| machine.attempt_dir(&attempt).join(name);
        let launch = fs::read(place("launch.json")).unwrap();
        let mut launch: serde_json::Value = serde_json::from_slice(&launch).unwrap();
        launch["boot_id"] = "another".into();
        fs::write(place("launch.json"), if is_whole { launch.to_string() } else { String::new() }).unwrap();
        fs::write(place("supervisor.json"), "").unwrap();
        fs::remove_file(place("started.json")).unwrap();

        let backend = machine.backend();
        backend.ensure_submitted(&attempt, &environment).await.unwrap();
        backend.cancel(&attempt).await.unwrap();
        let seen = backend.observe(&attempt).await.unwrap();
        assert!(matches!(&seen, Observation::Lost { detail } if detail.contains("restarted")), "{seen:?}");
        backend.ensure_submitted(&attempt, &environment).await.unwrap();
        assert_eq!(noted_pids(&notes).await.len(), 1, "it was started once");
        backend.remove(&attempt).await.unwrap();
    }
}

/// Its service ends while it waits: nothing says that the attempt was begun, so nothing may begin.
#[tokio::test]
async fn a_supervisor_without_its_service_starts_nothing() {
    let machine = Machine::new();
    let (backend, attempt) = (machine.backend(), machine.attempt("waits.py", &[&machine.note("starts")]));
    start(&backend, &attempt).await;
    noted_pids(&machine.note("starts")).await;
    let again = machine.data_dir().join("again");
    fs::create_dir(&again).unwrap();
    let launch = fs::read(machine.attempt_dir(&attempt).join("launch.json")).unwrap();
    let launch: serde_json::Value = serde_json::from_slice(&launch).unwrap();
    let mut older = launch.clone();
    older["boot_id"] = serde_json::Value::Null;
    fs::write(machine.note("go"), "").unwrap();
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    // A service of an older version says nothing.
    let starts = |told: &str, launch: &serde_json::Value| told == "pb" || launch["boot_id"].is_null();
    for (told, launch) in [("", &launch), ("p", &launch), ("pb", &launch), ("", &older)] {
        let starts = starts(told, launch);
        for record in ["supervisor.json", "started.json", "exit.json"] {
            let _ = fs::remove_file(again.join(record));
        }
        fs::write(again.join("launch.json"), launch.to_string()).unwrap();
        let mut supervisor = std::process::Command::new(env!("CARGO_BIN_EXE_estimatord"))
            .arg("supervise")
            .arg(&again)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        supervisor.stdin.take().unwrap().write_all(told.as_bytes()).unwrap();
        assert_eq!(supervisor.wait().unwrap().code(), Some(i32::from(!starts)), "{told:?}");
        assert_eq!(again.join("supervisor.json").exists(), starts, "{told:?}");
        assert_eq!(again.join("exit.json").exists(), starts, "{told:?}");
    }
    assert_eq!(noted_pids(&machine.note("starts")).await.len(), 3);
}

#[tokio::test]
async fn half_a_source_tree_is_never_used() {
    struct Breaks;
    impl estimatord::backend::SourceTree for Breaks {
        async fn unpack(&self, directory: &Path) -> std::io::Result<()> {
            fs::write(directory.join("exits.py"), "half")?;
            Err(std::io::Error::other("the store is gone"))
        }
    }
    let machine = Machine::new();
    let (backend, attempt) = (machine.backend(), machine.attempt("exits.py", &["4"]));
    let error = backend.prepare(&attempt, &Breaks).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::Io { source, .. } if source.to_string().contains("the store is gone"))
    );
    let left = machine.attempt_dir(&attempt).join("work.partial-left");
    fs::create_dir(&left).unwrap();
    start(&backend, &attempt).await;
    assert!(!left.exists());
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(4));
}

#[tokio::test]
async fn preparing_twice_at_once_makes_one_tree() {
    let machine = Machine::new();
    let (backend, attempt) = (machine.backend(), machine.attempt("exits.py", &["0"]));
    let (one, two, source) = (machine.backend(), machine.backend(), scripts());
    let (one, two) = tokio::join!(one.prepare(&attempt, &source), two.prepare(&attempt, &source));
    assert_eq!(one.unwrap(), two.unwrap());
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
}

#[tokio::test]
async fn starting_what_was_not_prepared_is_refused() {
    let machine = Machine::new();
    let (backend, attempt) = (machine.backend(), machine.attempt("exits.py", &["0"]));
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    let other = machine.attempt("exits.py", &["0"]);
    let error = backend.ensure_submitted(&other, &environment).await.unwrap_err();
    assert!(error.to_string().contains("start in"), "{error}");
}

#[tokio::test]
async fn an_interpreter_that_is_not_there_is_a_fault_of_the_environment() {
    let machine = Machine::new();
    let mut attempt = machine.attempt("exits.py", &["0"]);
    attempt.plan.environment.interpreter_path = Some("/nowhere/python3".into());
    let error = machine.backend().prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message } if message.contains("/nowhere/python3"))
    );
    attempt.plan.environment.interpreter_path = Some("/bin/true".into());
    let error = machine.backend().prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message } if message.contains("does not answer"))
    );
}

#[tokio::test]
async fn ranks_without_an_mpi_are_refused_with_a_way_out() {
    let machine = Machine::new();
    let mut attempt = machine.attempt("exits.py", &["0"]);
    attempt.plan.launcher = Launcher::Mpi;
    // Beside this interpreter there is an mpirun, so that only mpi4py is missing.
    let bin = machine.note("bin");
    fs::create_dir(&bin).unwrap();
    let python = attempt.plan.environment.interpreter_path.clone().unwrap();
    std::os::unix::fs::symlink("/bin/true", format!("{bin}/mpirun")).unwrap();
    fs::write(format!("{bin}/python3"), format!("#!/bin/sh\nexec {python} -S \"$@\"\n")).unwrap();
    std::os::unix::fs::symlink(&python, format!("{bin}/real")).unwrap();
    let script = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(format!("{bin}/python3"), script).unwrap();
    attempt.plan.environment.interpreter_path = Some(format!("{bin}/python3"));
    let error = machine.backend().prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message } if message.contains("no mpi4py")),
        "{error}"
    );
}

#[tokio::test]
async fn the_supervisor_has_nothing_of_the_service_in_its_environment() {
    let machine = Machine::new();
    let (backend, attempt) = (machine.backend(), machine.attempt("waits.py", &[&machine.note("starts")]));
    start(&backend, &attempt).await;
    let environ = fs::read(format!("/proc/{}/environ", machine.supervisor(&attempt))).unwrap();
    assert!(environ.is_empty(), "{}", String::from_utf8_lossy(&environ));
    fs::write(machine.note("go"), "").unwrap();
    ended(&backend, &attempt).await;
    let logs = backend.log_files(&attempt).await.unwrap();
    assert_eq!(content(&logs, "user_logs/std_log.txt"), "waiting\n");
}

#[tokio::test]
async fn a_file_where_the_run_needs_a_directory_is_a_fault_of_the_definition() {
    struct Holds(&'static str);
    impl estimatord::backend::SourceTree for Holds {
        async fn unpack(&self, directory: &Path) -> std::io::Result<()> {
            fs::write(directory.join(self.0), "")
        }
    }
    for name in ["outputs", "logs"] {
        let machine = Machine::new();
        let (backend, attempt) = (machine.backend(), machine.attempt("exits.py", &["0"]));
        let error = backend.prepare(&attempt, &Holds(name)).await.unwrap_err();
        let PrepareError::EnvironmentBuild { message } = &error else { panic!("{error}") };
        assert!(message.contains(&format!("`{name}`")) && message.contains("rename it"), "{message}");
        assert!(!message.contains(machine.data_dir().to_str().unwrap()), "{message}");
    }
}

#[tokio::test]
async fn a_script_that_removes_its_attempt_is_ended_and_lost() {
    let machine = Machine::new();
    let notes = machine.note("pid");
    let (backend, attempt) = (machine.backend(), machine.attempt("removes.py", &[&notes]));
    start(&backend, &attempt).await;
    let pids = noted_pids(&notes).await;
    let state = backend.observe(&attempt).await.unwrap();
    assert!(matches!(&state, Observation::Lost { detail } if detail.contains("removed")), "{state:?}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    assert_eq!(backend.observe(&attempt).await.unwrap(), state);
}

#[tokio::test]
async fn a_daemon_with_an_empty_environment_does_not_survive_its_supervisor() {
    let machine = Machine::new();
    let notes = machine.note("pids");
    let (backend, attempt) = (machine.backend(), machine.attempt("hides.py", &[&notes]));
    start(&backend, &attempt).await;
    let pids = noted_pids(&notes).await;
    kill(machine.supervisor(&attempt), Signal::SIGKILL).unwrap();
    until("the loss to be seen", async || {
        matches!(backend.observe(&attempt).await.unwrap(), Observation::Lost { .. }).then_some(())
    })
    .await;
    let left: Vec<_> = pids.into_iter().filter(|pid| is_alive(*pid)).collect();
    for pid in &left {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    assert!(left.is_empty(), "{left:?}");
}

/// Its directory is the script's own user's: what it removes there must not make the run look gone while it goes on.
#[tokio::test]
async fn a_script_that_removes_the_record_of_its_supervisor_is_still_seen_and_ended() {
    let machine = Machine::new();
    let notes = machine.note("starts");
    let (backend, attempt) = (machine.backend(), machine.attempt("waits.py", &[&notes]));
    start(&backend, &attempt).await;
    let pids = noted_pids(&notes).await;
    let supervisor = machine.supervisor(&attempt);
    fs::remove_file(machine.attempt_dir(&attempt).join("supervisor.json")).unwrap();
    let state = backend.observe(&attempt).await.unwrap();
    assert!(matches!(state, Observation::Running { .. }), "{state:?}");
    backend.cancel(&attempt).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.reason, ExitReason::Canceled);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));

    // With the supervisor gone as well, nothing is left, and nobody says that it had not begun.
    let attempt = machine.attempt("waits.py", &[&machine.note("starts-2")]);
    start(&backend, &attempt).await;
    let pids = noted_pids(&machine.note("starts-2")).await;
    assert_ne!(machine.supervisor(&attempt), supervisor);
    kill(machine.supervisor(&attempt), Signal::SIGKILL).unwrap();
    fs::remove_file(machine.attempt_dir(&attempt).join("supervisor.json")).unwrap();
    backend.cancel(&attempt).await.unwrap();
    let state = until("the loss to be seen", async || match backend.observe(&attempt).await.unwrap() {
        Observation::Running { .. } => None,
        state => Some(state),
    })
    .await;
    assert!(matches!(&state, Observation::Lost { detail } if detail.contains("are gone")), "{state:?}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

/// A supervisor that somebody stopped hears of no cancel and keeps no time.
#[tokio::test]
async fn a_supervisor_that_was_stopped_is_continued() {
    let machine = Machine::new();
    let notes = machine.note("starts");
    let (backend, attempt) = (machine.backend(), machine.attempt("waits.py", &[&notes]));
    start(&backend, &attempt).await;
    let pids = noted_pids(&notes).await;
    let supervisor = machine.supervisor(&attempt);
    let state_of = |pid: Pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(')').next().unwrap().trim_start().chars().next().unwrap()
    };
    kill(supervisor, Signal::SIGSTOP).unwrap();
    until("it is stopped", async || (state_of(supervisor) == 'T').then_some(())).await;
    until("a look continues it", async || {
        backend.observe(&attempt).await.unwrap();
        (state_of(supervisor) != 'T').then_some(())
    })
    .await;
    kill(supervisor, Signal::SIGSTOP).unwrap();
    until("it is stopped again", async || (state_of(supervisor) == 'T').then_some(())).await;
    backend.cancel(&attempt).await.unwrap();
    assert_eq!(ended(&backend, &attempt).await.reason, ExitReason::Canceled);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

/// A full disk is when a supervisor has something to say that it cannot write.
#[test]
fn a_supervisor_that_can_say_nothing_does_not_panic() {
    let directory = tempfile::tempdir().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_estimatord"))
        .arg("supervise")
        .arg(directory.path().join("nothing-here"))
        .stderr(full)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1), "101 is a panic");
}
