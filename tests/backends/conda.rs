//! Environments with packages of conda, from a channel that the tests make, by a stand-in for micromamba.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use estimatord::{
    backend::{
        Attempt, Backend as _, PrepareError,
        process::{Isolation, ProcessBackend, Settings},
    },
    domain::environment::EnvironmentKind,
};
use serde_json::json;

use crate::{
    harness::{self, Directory, Lab as _, content, ended, until},
    process::Machine,
};

struct Bench {
    machine: Machine,
    channels: tempfile::TempDir,
    scripts: tempfile::TempDir,
}

impl Bench {
    /// A channel `own` with one package, `greeting`, and a script that uses it.
    fn new() -> Self {
        let (channels, scripts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let noarch = channels.path().join("own/noarch");
        fs::create_dir_all(&noarch).unwrap();
        let package =
            json!({"name": "greeting", "version": "1.2", "files": {"greeting.py": "TEXT = 'from conda'"}});
        let repodata = json!({"packages": {"greeting-1.2-0.tar.bz2": package}});
        fs::write(noarch.join("repodata.json"), repodata.to_string()).unwrap();
        let script = "import os, greeting\nprint(greeting.TEXT, 'VIRTUAL_ENV' in os.environ, os.environ['CONDA_PREFIX'])\n";
        fs::write(scripts.path().join("greets.py"), script).unwrap();
        Self { machine: Machine::new(), channels, scripts }
    }

    fn source(&self) -> Directory {
        Directory(self.scripts.path().to_owned())
    }

    fn backend(&self, conda: Option<&Path>) -> ProcessBackend {
        let uv = self.machine.note("uv");
        fs::write(&uv, "#!/bin/sh\necho '[{\"name\":\"greeting\",\"version\":\"1.2\"}]'\n").unwrap();
        fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
        ProcessBackend::new(Settings {
            data_dir: self.machine.data_dir(),
            supervisor: env!("CARGO_BIN_EXE_estimatord").into(),
            cancel_grace: Duration::from_secs(1),
            build_timeout: Duration::from_secs(60),
            max_environments_bytes: 0,
            uv: Some(uv.into()),
            conda: conda.map(Path::to_owned),
            conda_channel_alias: Some(format!("file://{}", self.channels.path().display())),
            isolation: Isolation::default(),
        })
        .unwrap()
    }

    fn attempt(&self, packages: &[&str], channels: &[&str]) -> Attempt {
        let mut attempt = self.machine.watched(harness::attempt("greets.py", &[]));
        let environment = &mut attempt.plan.environment;
        environment.kind = EnvironmentKind::Managed;
        environment.interpreter_path = None;
        environment.conda_packages = packages.iter().map(|package| (*package).to_owned()).collect();
        environment.conda_channels = channels.iter().map(|channel| (*channel).to_owned()).collect();
        attempt
    }
}

fn stand_in() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends/conda/micromamba.py")
}

#[tokio::test]
async fn packages_of_a_channel_are_there_and_built_once() {
    let bench = Bench::new();
    let backend = bench.backend(Some(&stand_in()));
    let attempt = bench.attempt(&["greeting=1.2"], &["own"]);
    let environment = backend.prepare(&attempt, &bench.source()).await.unwrap();
    assert_eq!((environment.kind.as_str(), environment.reused), ("conda", false));
    assert!(environment.packages.contains(&"greeting==1.2".to_owned()), "{:?}", environment.packages);
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    let exit = ended(&backend, &attempt).await;
    let logs = backend.log_files(&attempt).await.unwrap();
    let log = content(&logs, "user_logs/std_log.txt");
    assert_eq!(exit.exit_code, Some(0), "{log}");
    assert!(log.starts_with("from conda False ") && log.trim_end().ends_with("/venv"), "{log}");
    let build = content(&logs, "azureml-logs/20_image_build_log.txt");
    assert!(
        build.contains("create --yes --no-rc --prefix")
            && build.contains("--channel own python greeting=1.2"),
        "{build}"
    );
    let again = bench.attempt(&["greeting=1.2"], &["own"]);
    let reused = backend.prepare(&again, &bench.source()).await.unwrap();
    assert_eq!((reused.reused, &reused.build_key), (true, &environment.build_key));
}

#[tokio::test]
async fn all_who_ask_at_once_get_one_environment() {
    let bench = Bench::new();
    let backend = bench.backend(Some(&stand_in()));
    let address = format!("file://{}/own", bench.channels.path().display());
    let mut calls = Vec::new();
    for _ in 0..20 {
        let (backend, attempt, source) =
            (backend.clone(), bench.attempt(&["greeting"], &[&address]), bench.source());
        calls.push(tokio::spawn(async move { backend.prepare(&attempt, &source).await.unwrap().reused }));
    }
    let mut built = 0;
    for call in calls {
        built += usize::from(!call.await.unwrap());
    }
    assert_eq!(built, 1);
}

#[tokio::test]
async fn what_cannot_be_solved_is_the_run_s_error_and_leaves_nothing() {
    let bench = Bench::new();
    let backend = bench.backend(Some(&stand_in()));
    let error = backend.prepare(&bench.attempt(&["scipy"], &["own"]), &bench.source()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message }
        if message.contains("The following package is missing: scipy")),
        "{error}"
    );
    let left: Vec<_> = fs::read_dir(bench.machine.data_dir().join("environments")).unwrap().collect();
    assert!(left.iter().all(|entry| !entry.as_ref().unwrap().path().is_dir()), "{left:?}");
}

#[tokio::test]
async fn a_killed_build_is_not_used_and_not_in_the_way() {
    let bench = Bench::new();
    let (hangs, started) = (bench.machine.note("micromamba"), bench.machine.note("started"));
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && exec echo 2.0.5\n[ -e {started} ] && exec {} \"$@\"\n\
         while [ \"$1\" != --prefix ]; do shift; done\nmkdir -p \"$2/bin\" && : >\"$2/bin/python\" && : >{started}\nexec sleep 600\n",
        stand_in().display()
    );
    fs::write(&hangs, script).unwrap();
    fs::set_permissions(&hangs, fs::Permissions::from_mode(0o755)).unwrap();
    let backend = bench.backend(Some(Path::new(&hangs)));
    let first = tokio::spawn({
        let (backend, attempt, source) =
            (backend.clone(), bench.attempt(&["greeting"], &["own"]), bench.source());
        async move { backend.prepare(&attempt, &source).await.map(drop) }
    });
    until("the build has begun", async || Path::new(&started).exists().then_some(())).await;
    first.abort();
    let environment =
        backend.prepare(&bench.attempt(&["greeting"], &["own"]), &bench.source()).await.unwrap();
    assert!(!environment.reused && environment.packages.contains(&"greeting==1.2".to_owned()));
}

#[tokio::test]
async fn without_a_program_the_error_says_what_to_install() {
    let bench = Bench::new();
    // Whatever is on the machine's PATH: this one is named, and is not there.
    let backend = bench.backend(Some(Path::new("/gone/micromamba")));
    let error = backend.prepare(&bench.attempt(&["greeting"], &["own"]), &bench.source()).await.unwrap_err();
    assert!(error.to_string().contains("/gone/micromamba cannot be started"), "{error}");
}
