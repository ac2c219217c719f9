//! The process backend as a service runs it that is root: each attempt has a user of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use estimatord::{
    backend::{
        Attempt,
        process::{Isolation, ProcessBackend, Settings},
    },
    domain::run_users::UserRange,
};

use crate::{
    conformance,
    harness::{self, Lab},
    process::Machine,
};

/// A user that is nobody, to ask with.
const STRANGER: u32 = 64_999;

/// A machine whose runs have users of their own, and where all of them may leave notes.
struct OwnUsers {
    machine: Machine,
    python: String,
}

impl OwnUsers {
    /// None where this cannot be: only root can.
    fn new() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("not root: what only root can do is not tested");
            return None;
        }
        let machine = Machine::with_grace(Duration::from_secs(20));
        let directory = machine.data_dir().parent().unwrap().to_owned();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(machine.notes(), fs::Permissions::from_mode(0o777)).unwrap();
        Some(Self { machine, python: python_for_all() })
    }
}

/// An interpreter that every user of this machine can run.
fn python_for_all() -> String {
    use std::os::unix::process::CommandExt as _;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join("python3")).find(|python| {
        let mut command = Command::new(python);
        command.args(["-c", ""]).uid(STRANGER).gid(STRANGER);
        command.status().is_ok_and(|status| status.success())
    });
    found.expect("the tests need a python3 that every user can run").to_str().unwrap().to_owned()
}

impl Lab for OwnUsers {
    type Backend = ProcessBackend;

    fn backend(&self) -> ProcessBackend {
        let isolation = Isolation { users: Some(UserRange::DEFAULT), ..Isolation::default() };
        let settings = harness::settings(self.machine.data_dir(), Duration::from_secs(20));
        // As the service makes it.
        let data_dir: PathBuf = settings.data_dir.clone();
        if !data_dir.exists() {
            fs::create_dir(&data_dir).unwrap();
        }
        ProcessBackend::new(Settings { isolation, ..settings }).unwrap()
    }

    fn notes(&self) -> &Path {
        self.machine.notes()
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        let mut attempt = self.machine.attempt(script, arguments);
        attempt.plan.environment.interpreter_path = Some(self.python.clone());
        attempt
    }
}

macro_rules! conforms {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test]
        async fn $name() {
            if let Some(lab) = OwnUsers::new() {
                conformance::$name(&lab).await;
            }
        }
    )*};
}

conformance::suite!(conforms);
