//! The shell texts of the backend's pods, run by the shells that images have.

use std::{
    fs,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use estimatord::{
    backend::Attempt,
    domain::{
        environment::EnvironmentKind,
        kubernetes::KubernetesSettings,
        plan::Launcher,
        render::{Subject, kubernetes as rendering},
    },
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    fake_kubernetes::{expanded, runs_processes},
    harness,
};

/// Every kind of object that the backend makes.
pub fn objects(settings: &KubernetesSettings) -> Vec<Value> {
    let mut plain = harness::attempt("train.py", &["--a", "$(b) c"]);
    plain.plan.environment.interpreter_path = Some("python3".into());
    plain.plan.environment.image = Some("python:3.11".into());
    let mut managed = plain.clone();
    managed.plan.environment.kind = EnvironmentKind::Managed;
    managed.plan.environment.pip_packages = vec!["numpy".into()];
    managed.plan.environment.shm_size = Some("2g".into());
    managed.plan.max_run_duration_seconds = Some(60);
    managed.plan.use_gpu = true;
    managed.plan.gpus_per_node = 1;
    let mut ranks = managed.clone();
    ranks.plan.launcher = Launcher::Mpi;
    ranks.plan.node_count = 2;
    let settings = KubernetesSettings {
        queue: Some("team".into()),
        cache_claim: Some("environments".into()),
        service_account: Some("estimatord-run".into()),
        ..settings.clone()
    };
    let made = |attempt: &Attempt| {
        let service = rendering::Service {
            run_id: attempt.run_id,
            attempt: attempt.number,
            settings: &settings,
            interpreter: "python3",
            variables: &[],
            grace_seconds: 30,
        };
        rendering::object(&Subject { plan: &attempt.plan, definition: None }, &service)
    };
    [plain, managed, ranks].iter().map(made).collect()
}

/// The command of a container, as Kubernetes hands it to the runtime.
fn command(object: &Value, list: &str, name: &str) -> Vec<String> {
    let containers = object["spec"]["template"]["spec"][list].as_array().unwrap();
    let container = containers.iter().find(|container| container["name"] == name).unwrap();
    let words = container["command"].as_array().unwrap();
    words.iter().map(|word| expanded(word.as_str().unwrap(), &[])).collect()
}

/// The text that steers a script.
fn steering() -> String {
    command(&objects(&KubernetesSettings::default())[0], "containers", "script").remove(2)
}

/// Those that are here of the shells that images have as `sh`.
fn shells() -> Vec<Vec<&'static str>> {
    let all = [vec!["dash"], vec!["bash", "--posix"], vec!["busybox", "sh"]];
    all.into_iter()
        .filter(|words| {
            Command::new(words[0]).args(["-c", "true"]).output().is_ok()
                || words[0] == "busybox" && Command::new("busybox").output().is_ok()
        })
        .collect()
}

/// A script that is steered, as the first process of a container.
fn start(shell: &[&str], grace: &str, words: &[&str]) -> Child {
    let mut steered = Command::new("unshare");
    steered.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]).args(shell);
    steered.args(["-c", &steering(), "sh", grace]).args(words);
    steered.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn run(shell: &[&str], words: &[&str]) -> (Option<i32>, String, String) {
    let output = start(shell, "30", words).wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_script_s_words_streams_and_end_are_its_own() {
    if !runs_processes() {
        return;
    }
    for shell in shells() {
        let print = "printf '%s|' \"$@\"; echo err >&2; read -r line; printf '<%s>' \"$line\"; exit 7";
        let words = ["sh", "-c", print, "sh", "", "a b", "$HOME `x` \\", "two\nlines", "-n", "--", "*"];
        let (code, out, err) = run(&shell, &words);
        assert_eq!((code, err.as_str()), (Some(7), "err\n"), "{shell:?}");
        assert_eq!(out, "|a b|$HOME `x` \\|two\nlines|-n|--|*|<>", "{shell:?}: and there is nothing to read");
        assert_eq!(run(&shell, &["true"]).0, Some(0), "{shell:?}");
        for (signal, code) in [("SEGV", 139), ("KILL", 137), ("TERM", 143)] {
            assert_eq!(
                run(&shell, &["sh", "-c", &format!("kill -s {signal} $$")]).0,
                Some(code),
                "{shell:?}"
            );
        }
    }
}

#[test]
fn a_program_that_is_not_there_is_said() {
    if !runs_processes() {
        return;
    }
    for shell in shells() {
        let (code, _, err) = run(&shell, &["/nowhere/python", "train.py"]);
        assert_eq!(code, Some(127), "{shell:?}");
        assert_eq!(err, "estimatord: cannot start: there is no /nowhere/python in the image\n", "{shell:?}");
    }
}

/// Waits until a script has written a line, and tells its first process to end.
fn told_to_end(shell: &[&str], grace: &str, script: &str) -> (Option<i32>, String) {
    let mut child = start(shell, grace, &["sh", "-c", script]);
    let mut output = child.stdout.take().unwrap();
    let mut byte = [0];
    output.read_exact(&mut byte).unwrap();
    let outer = child.id();
    let inner = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    kill(Pid::from_raw(inner.trim().parse().unwrap()), Signal::SIGTERM).unwrap();
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    (child.wait().unwrap().code(), rest)
}

#[test]
fn term_reaches_everybody_and_kill_comes_after_the_grace() {
    if !runs_processes() {
        return;
    }
    for shell in shells() {
        // A child of its own that it does not pass anything on to, and that it waits for.
        let child = "trap \"echo child; exit\" TERM; echo; while :; do sleep 0.05; done";
        let family = &format!("trap : TERM; sh -c '{child}' & wait; wait; exit 3");
        let (code, out) = told_to_end(&shell, "30", family);
        assert_eq!((code, out.contains("child")), (Some(3), true), "{shell:?}: {out}");
        let handles = "trap 'echo bye; exit 9' TERM; echo; while :; do sleep 0.05; done";
        assert_eq!(told_to_end(&shell, "30", handles).0, Some(9), "{shell:?}");
        let began = std::time::Instant::now();
        let stubborn = "trap '' TERM; echo; while :; do sleep 0.05; done";
        assert_eq!(told_to_end(&shell, "1", stubborn).0, Some(137), "{shell:?}");
        assert!(began.elapsed() >= Duration::from_secs(1), "{shell:?}");
    }
}

/// The text that installs packages once for all who share a claim, with a stand-in for the installation.
fn installation(claim: &Path, work: &Path) -> (String, std::path::PathBuf) {
    let text = command(&objects(&KubernetesSettings::default())[1], "initContainers", "packages").remove(2);
    let directory = text.lines().find_map(|line| line.strip_prefix("mkdir -p ")).unwrap().to_owned();
    let (head, _) = text.split_once(&format!("mkdir -p {directory}\n")).unwrap();
    let install = format!(
        "mkdir -p {directory}\necho x >>{work}/installs\nmkdir {directory}/half\n[ ! -e {work}/die ] || kill -s KILL $$\nsleep 0.3\n\
         mv {directory}/half {directory}/whole\ntouch {directory}/complete",
        work = work.display()
    );
    let text = format!("{head}{install}").replace("/environments/", &format!("{}/", claim.display()));
    (text, claim.join(directory.rsplit('/').next().unwrap()))
}

#[test]
fn packages_are_installed_once_for_all_and_never_half() {
    let (claim, work) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (text, directory) = installation(claim.path(), work.path());
    let pod = || Command::new("sh").args(["-c", &text]).stdout(Stdio::piped()).spawn().unwrap();
    // One that is killed half-way: what it left is not used.
    fs::write(work.path().join("die"), "").unwrap();
    assert!(!pod().wait().unwrap().success() && directory.join("half").exists());
    fs::remove_file(work.path().join("die")).unwrap();
    let pods: Vec<Child> = (0..8).map(|_| pod()).collect();
    let said: Vec<String> = pods
        .into_iter()
        .map(|pod| {
            let output = pod.wait_with_output().unwrap();
            assert!(output.status.success());
            String::from_utf8(output.stdout).unwrap()
        })
        .collect();
    assert_eq!(said.iter().filter(|said| said.contains("installed before")).count(), 7, "{said:?}");
    assert_eq!(fs::read_to_string(work.path().join("installs")).unwrap(), "x\nx\n");
    assert!(directory.join("whole").exists() && !directory.join("half").exists());
}
