//! How environments are built, with a stand-in for uv: quick, and without the network.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use estimatord::{
    backend::{
        Attempt, Backend as _, PrepareError,
        process::{Isolation, ProcessBackend, Settings},
    },
    domain::environment::EnvironmentKind,
};

use crate::{
    harness::{self, Lab as _, scripts},
    process::Machine,
};

/// A backend whose uv is the given shell script, and an attempt that needs it.
fn with_uv(machine: &Machine, script: &str) -> (ProcessBackend, Attempt) {
    let uv = machine.note("uv");
    fs::write(&uv, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
    let backend = ProcessBackend::new(Settings {
        data_dir: machine.data_dir(),
        supervisor: env!("CARGO_BIN_EXE_estimatord").into(),
        cancel_grace: Duration::from_secs(1),
        build_timeout: Duration::from_secs(60),
        max_environments_bytes: 0,
        uv: Some(uv.into()),
        conda: None,
        conda_channel_alias: None,
        isolation: Isolation::default(),
    })
    .unwrap();
    (backend, another(machine))
}

/// An attempt of a run of its own that needs an environment.
fn another(machine: &Machine) -> Attempt {
    let mut attempt = machine.watched(harness::attempt("exits.py", &["0"]));
    attempt.plan.environment.kind = EnvironmentKind::Managed;
    attempt.plan.environment.interpreter_path = None;
    attempt
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn the_installer_trusts_the_system_and_leaves_nothing_behind() {
    let machine = Machine::new();
    let seen = machine.note("seen");
    let script = format!(
        "env > {seen}\ntouch \"$TMPDIR/uv-setuptools-1.lock\" || exit 1\n\
         for last; do :; done\nmkdir -p \"$last/bin\"\necho 'error: no network'\nexit 1"
    );
    let (backend, attempt) = with_uv(&machine, &script);
    let error = backend.prepare(&attempt, &scripts()).await.unwrap_err();
    assert!(
        matches!(&error, PrepareError::EnvironmentBuild { message } if message == "error: no network"),
        "{error}"
    );
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.lines().any(|line| line == "UV_SYSTEM_CERTS=true"), "{seen}");
    assert!(seen.lines().any(|line| line == "UV_NATIVE_TLS=true"), "{seen}");
    let temporary = machine.data_dir().join("cache/tmp");
    let told = seen.lines().find_map(|line| line.strip_prefix("TMPDIR=")).unwrap();
    assert!(Path::new(told).starts_with(&temporary), "{told}");
    assert_eq!(names(&temporary), [""; 0]);
    let left = names(&machine.data_dir().join("environments"));
    assert!(left.iter().all(|name| name.ends_with(".log") || name.ends_with(".lock")), "{left:?}");
}

/// Also where packages have the service's own account.
#[tokio::test]
async fn nothing_goes_on_after_a_build() {
    let machine = Machine::new();
    let left = machine.note("left");
    let script = format!(
        "setsid sh -c 'echo $$ >> {left}; exec sleep 1000' > /dev/null 2>&1 &\nwhile ! test -s {left}; do :; done\n{}",
        noting_uv(&machine)
    );
    let (backend, attempt) = with_uv(&machine, &script);
    backend.prepare(&asking_for(attempt, "six"), &scripts()).await.unwrap();
    let left = fs::read_to_string(left).unwrap();
    assert!(!left.is_empty(), "something was left");
    for pid in left.lines() {
        let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} is left: {stat}");
    }
}

/// A uv that resolves every package to one version and writes down what it is asked.
fn noting_uv(machine: &Machine) -> String {
    let calls = machine.note("calls");
    format!(
        r#"echo "$*" >> {calls}
case "$*" in
    *" venv "*) for last; do :; done; mkdir -p "$last/bin" && : > "$last/bin/python" ;;
    *" pip compile "*) while [ "$1" != --output-file ]; do shift; done; for last; do :; done
        sed 's/[>=].*//; s/$/==1.16.0/' "$last" > "$2" ;;
    *" pip list "*) echo '[{{"name":"six","version":"1.16.0"}}]' ;;
esac"#
    )
}

fn asking_for(mut attempt: Attempt, package: &str) -> Attempt {
    attempt.plan.environment.pip_packages = vec![package.to_owned()];
    attempt
}

/// How often the noting uv was asked for something.
fn count(machine: &Machine, what: &str) -> usize {
    fs::read_to_string(machine.note("calls")).unwrap().lines().filter(|line| line.contains(what)).count()
}

/// Prepares all at once by three backends, as by several workers on one data directory. Answers the keys, and how many were
/// built.
async fn prepare_all(machine: &Machine, attempts: Vec<Attempt>) -> (BTreeSet<String>, usize) {
    let backends = [(); 3].map(|()| with_uv(machine, &noting_uv(machine)).0);
    let calls: Vec<_> = attempts
        .into_iter()
        .zip(backends.iter().cycle())
        .map(|(attempt, backend)| {
            let backend = backend.clone();
            tokio::spawn(async move { backend.prepare(&attempt, &scripts()).await.unwrap() })
        })
        .collect();
    let (mut keys, mut built) = (BTreeSet::new(), 0);
    for call in calls {
        let environment = call.await.unwrap();
        assert_eq!(environment.packages, ["six==1.16.0"]);
        built += usize::from(!environment.reused);
        keys.extend(environment.build_key);
    }
    (keys, built)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_that_ask_at_once_ask_the_indexes_once_and_build_once() {
    let machine = Machine::new();
    let attempts = (0..100).map(|_| asking_for(another(&machine), "six")).collect();
    let (keys, built) = prepare_all(&machine, attempts).await;
    assert_eq!((keys.len(), built), (1, 1));
    assert_eq!((count(&machine, "pip compile"), count(&machine, "pip install")), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_resolve_to_the_same_share_what_is_built() {
    let machine = Machine::new();
    let package = |index: usize| ["six", "six>1"][index % 2];
    let attempts = (0..20).map(|index| asking_for(another(&machine), package(index))).collect();
    let (keys, built) = prepare_all(&machine, attempts).await;
    assert_eq!((keys.len(), built), (1, 1));
    assert_eq!((count(&machine, "pip compile"), count(&machine, "pip install")), (2, 1));
    // Without the environment nobody believes what was remembered of it.
    let key = keys.first().unwrap();
    fs::remove_dir_all(machine.data_dir().join("environments").join(key)).unwrap();
    let (again, built) = prepare_all(&machine, vec![asking_for(another(&machine), "six")]).await;
    assert_eq!((&again, built), (&keys, 1));
    assert_eq!(count(&machine, "pip compile"), 3);
}

/// The keys of what a backend keeps after tidying.
async fn kept(backend: &ProcessBackend) -> BTreeSet<String> {
    backend.tidy_environments().await.unwrap().into_iter().map(|kept| kept.key.into()).collect()
}

#[tokio::test]
async fn what_no_attempt_uses_any_more_is_evicted() {
    let machine = Machine::new();
    let (backend, _) = with_uv(&machine, &noting_uv(&machine));
    let attempts = ["six", "tqdm"].map(|package| asking_for(another(&machine), package));
    let mut keys = Vec::new();
    for attempt in &attempts {
        keys.extend(backend.prepare(attempt, &scripts()).await.unwrap().build_key);
    }
    assert_eq!(kept(&backend).await, keys.iter().cloned().collect());
    backend.remove(&attempts[0]).await.unwrap();
    assert_eq!(kept(&backend).await, BTreeSet::from([keys[1].clone()]));
    // As after a restart of the service: the attempt's directory is all that there is to know.
    let (restarted, _) = with_uv(&machine, &noting_uv(&machine));
    assert_eq!(kept(&restarted).await, BTreeSet::from([keys[1].clone()]));
    restarted.remove_run(attempts[1].run_id).await.unwrap();
    assert_eq!(kept(&restarted).await, BTreeSet::new());
}

#[tokio::test]
async fn a_kill_between_renaming_and_removing_leaves_nothing_to_be_used() {
    let machine = Machine::new();
    let (backend, _) = with_uv(&machine, &noting_uv(&machine));
    let attempt = asking_for(another(&machine), "six");
    let built = backend.prepare(&attempt, &scripts()).await.unwrap();
    let key = built.build_key.unwrap();
    backend.remove(&attempt).await.unwrap();
    // What the one that was killed had done: another name, and half of it gone.
    let root = machine.data_dir().join("environments").join(&key);
    let doomed = root.with_extension("0123456789abcdef.doomed");
    fs::rename(&root, &doomed).unwrap();
    fs::remove_dir_all(doomed.join("venv/bin")).unwrap();
    let attempt = asking_for(another(&machine), "six");
    let again = backend.prepare(&attempt, &scripts()).await.unwrap();
    assert!(!again.reused && again.build_key.as_ref() == Some(&key));
    assert!(Path::new(&again.interpreter).is_file());
    assert_eq!(kept(&backend).await, BTreeSet::from([key]));
    assert!(!doomed.exists() && Path::new(&again.interpreter).is_file());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_environment_is_there_for_as_long_as_an_attempt_uses_it() {
    let machine = Machine::new();
    let backends = [(); 3].map(|()| with_uv(&machine, &noting_uv(&machine)).0);
    let calls: Vec<_> = (0..30)
        .zip(backends.iter().cycle())
        .map(|(index, backend)| {
            let attempt = asking_for(another(&machine), ["six", "tqdm"][index % 2]);
            let backend = backend.clone();
            tokio::spawn(async move {
                let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
                for _ in 0..3 {
                    let kept = kept(&backend).await;
                    assert!(environment.build_key.as_ref().is_some_and(|key| kept.contains(key)), "{kept:?}");
                    assert!(Path::new(&environment.interpreter).is_file());
                }
                backend.remove(&attempt).await.unwrap();
                kept(&backend).await;
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(kept(&backends[0]).await, BTreeSet::new());
}
