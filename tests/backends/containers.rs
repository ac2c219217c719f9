//! The process backend in real containers. `make check-containers` brings a Docker and runs these.

use std::{fs, path::Path, process::Command, time::Duration};

use estimatord::{
    backend::{
        Attempt, Backend as _, ExitReason, Observation, PrepareError, RegistryLogin, process::ProcessBackend,
    },
    domain::secret::Secret,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    conformance,
    harness::{self, Lab, content, ended, scripts, start, until},
    process::Machine,
};

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make check-containers`"))
}

/// Every attempt runs in the test image.
struct Contained(Machine);

impl Lab for Contained {
    type Backend = ProcessBackend;

    fn backend(&self) -> ProcessBackend {
        self.0.backend()
    }

    fn notes(&self) -> &Path {
        self.0.notes()
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        let mut attempt = self.0.attempt(script, arguments);
        let environment = &mut attempt.plan.environment;
        environment.docker = true;
        environment.image = Some(variable("ESTIMATORD_TEST_IMAGE"));
        environment.interpreter_path = Some("python3".into());
        environment.shm_size = Some("64m".into());
        let notes = self.notes().display();
        environment.container.arguments = vec![format!("--mount=type=bind,source={notes},target={notes}")];
        attempt
    }
}

/// The containers of an attempt, running or not.
pub fn containers(attempt: &Attempt) -> usize {
    let label = format!("label=estimatord.attempt={}.{}", attempt.run_id, attempt.number);
    let output = Command::new("docker").args(["ps", "-aq", "--filter", &label]).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().lines().count()
}

macro_rules! conforms {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        #[ignore = "needs a container runtime: make check-containers"]
        async fn $name() {
            conformance::$name(&Contained(Machine::with_grace(Duration::from_secs(20)))).await;
        }
    )*};
}

conforms! {
    tells_the_exit_code,
    starts_once_however_often_it_is_asked,
    cancelled_before_the_start_it_never_starts,
    lists_logs_and_outputs_without_links,
    what_a_script_logs_is_recorded,
    logs_can_be_read_while_it_runs,
    arguments_arrive_verbatim_and_variables_are_set,
    a_script_finds_the_service,
    removing_leaves_nothing_and_spares_what_runs,
    what_a_run_left_can_be_removed_without_its_attempts,
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn the_script_sees_its_container() {
    let lab = Contained(Machine::new());
    let (backend, attempt) = (lab.backend(), lab.attempt("shows.py", &[]));
    let environment = start(&backend, &attempt).await;
    let container = environment.container.unwrap();
    assert_eq!(container.image, variable("ESTIMATORD_TEST_IMAGE"));
    assert!(container.image_id.starts_with("sha256:"));
    let exit = ended(&backend, &attempt).await;
    assert_eq!(exit.exit_code, Some(0), "{exit:?}");
    let outputs = backend.output_files(&attempt).await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&content(&outputs, "seen.json")).unwrap();
    assert_eq!(seen["shm_bytes"], 64 << 20);
    assert!(seen["pid"].as_u64().unwrap() < 20, "it has process numbers of its own");
    assert!(seen["environment"].get("TINI_KILL_PROCESS_GROUP").is_none());
    assert_eq!(seen["directory"], lab.0.attempt_dir(&attempt).join("work").to_str().unwrap());
    assert_eq!(containers(&attempt), 0);
    // Neither variables nor arguments are on the command line that everybody can read.
    let launch = fs::read_to_string(lab.0.attempt_dir(&attempt).join("launch.json")).unwrap();
    assert!(launch.contains("--shm-size") && !launch.contains("shows.py"));
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn cancelling_tells_the_script_and_leaves_no_container() {
    let lab = Contained(Machine::with_grace(Duration::from_secs(20)));
    let (backend, attempt) = (lab.backend(), lab.attempt("family.py", &[&lab.note("family"), "stay"]));
    start(&backend, &attempt).await;
    harness::noted_pids(&lab.note("family")).await;
    assert_eq!(containers(&attempt), 1);
    backend.cancel(&attempt).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert_eq!(containers(&attempt), 0, "it has ended only when nothing is left");
    // As a shell says it: 128 and the number of TERM.
    assert_eq!((exit.reason, exit.exit_code), (ExitReason::Canceled, Some(143)));
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn who_ignores_term_is_killed_with_the_container() {
    let lab = Contained(Machine::new());
    let (backend, attempt) =
        (lab.backend(), lab.attempt("family.py", &[&lab.note("family"), "stay", "stubborn"]));
    start(&backend, &attempt).await;
    harness::noted_pids(&lab.note("family")).await;
    backend.cancel(&attempt).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert_eq!(exit.reason, ExitReason::Canceled);
    assert_eq!(containers(&attempt), 0);
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn too_long_a_run_is_ended() {
    let lab = Contained(Machine::with_grace(Duration::from_secs(20)));
    let mut attempt = lab.attempt("waits.py", &[&lab.note("starts")]);
    attempt.plan.max_run_duration_seconds = Some(2);
    let backend = lab.backend();
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.reason, ExitReason::MaxRunDurationExceeded);
    assert_eq!(containers(&attempt), 0);
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn a_container_whose_supervisor_was_killed_is_ended_before_it_counts_as_lost() {
    let lab = Contained(Machine::new());
    let (backend, attempt) = (lab.backend(), lab.attempt("waits.py", &[&lab.note("starts")]));
    start(&backend, &attempt).await;
    harness::noted_pids(&lab.note("starts")).await;
    let record = fs::read(lab.0.attempt_dir(&attempt).join("supervisor.json")).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    let supervisor = Pid::from_raw(record["pid"].as_i64().unwrap().try_into().unwrap());
    kill(supervisor, Signal::SIGKILL).unwrap();
    until("the loss", async || match backend.observe(&attempt).await.unwrap() {
        Observation::Lost { .. } => Some(()),
        _ => None,
    })
    .await;
    assert_eq!(containers(&attempt), 0);
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn what_the_runtime_refuses_says_why() {
    let lab = Contained(Machine::new());
    let (backend, mut attempt) = (lab.backend(), lab.attempt("exits.py", &["0"]));
    attempt.plan.environment.container.arguments.push("--no-such-option".into());
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    assert!(exit.start_error.as_ref().unwrap().contains("no-such-option"), "{exit:?}");
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn a_private_image_is_pulled_without_leaving_the_password() {
    let lab = Contained(Machine::new());
    let (backend, mut attempt) = (lab.backend(), lab.attempt("exits.py", &["0"]));
    let environment = &mut attempt.plan.environment;
    environment.image = Some("private/python:1".into());
    environment.container.registry_address = Some(variable("ESTIMATORD_TEST_REGISTRY"));
    let refused = backend.prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(matches!(refused, PrepareError::EnvironmentBuild { .. }), "{refused}");
    let password = variable("ESTIMATORD_TEST_PASSWORD");
    attempt.registry = Some(RegistryLogin {
        username: variable("ESTIMATORD_TEST_USER"),
        password: Secret::new(password.clone()),
    });
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let found = Command::new("grep").args(["-rlF", &password]).arg(lab.0.data_dir()).output().unwrap();
    assert_eq!(String::from_utf8(found.stdout).unwrap(), "");
    let left = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    assert_eq!(
        left.filter(|entry| entry.file_name().to_string_lossy().starts_with("estd-login-")).count(),
        0
    );
}

#[tokio::test]
#[ignore = "needs a container runtime: make check-containers"]
async fn an_image_is_built_of_the_definition_s_dockerfile() {
    let lab = Contained(Machine::new());
    let (backend, mut attempt) = (lab.backend(), lab.attempt("shows.py", &[]));
    let environment = &mut attempt.plan.environment;
    let base = environment.image.take().unwrap();
    environment.container.base_dockerfile =
        Some(format!("FROM {base}\nENV OWN=\"of the image\"\nUSER 1234\n"));
    start(&backend, &attempt).await;
    assert_eq!(ended(&backend, &attempt).await.exit_code, Some(0));
    let outputs = backend.output_files(&attempt).await.unwrap();
    let seen: serde_json::Value = serde_json::from_str(&content(&outputs, "seen.json")).unwrap();
    assert_eq!(seen["environment"]["OWN"], "of the image");
}
