//! Finding uv, or getting it once.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::Instant};

use super::{
    super::{files, layout},
    build::{self, BuildLog, CommandError},
    find_program,
    interpreters::Interpreter,
};

/// Between two tries to get a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// What is got where no usable interpreter is: the newest that chainer works with.
const FALLBACK_PYTHON: &str = "3.11";

/// The uv to use: the configured one, the one on `PATH`, or one installed with pip into the data directory.
pub(super) async fn locate(
    configured: Option<&Path>,
    data_dir: &Path,
    environment: &[(String, String)],
    present: &[Interpreter],
    log: &mut BuildLog,
    deadline: Instant,
) -> Result<PathBuf, CommandError> {
    if let Some(path) = configured {
        return if path.is_file() {
            Ok(path.to_owned())
        } else {
            Err(CommandError::Failed(format!("the configured uv, {}, is not there", path.display())))
        };
    }
    if let Some(path) = find_program("uv", environment) {
        return Ok(path);
    }
    let tools = data_dir.join("tools");
    let (own, program) = (tools.join("uv"), tools.join("uv/bin/uv"));
    if program.is_file() {
        return Ok(program);
    }
    layout::create_private_dir(&tools)?;
    let lock = lock(&tools.join("uv.lock"), deadline, || Ok(())).await?;
    if program.is_file() {
        return Ok(program);
    }
    log.line("uv is not on this machine: installing it with pip, once")?;
    let partial = tools.join("uv.partial");
    files::remove_tree(&partial)?;
    let mut pythons: Vec<PathBuf> = find_program("python3", environment).into_iter().collect();
    pythons.extend(present.iter().map(|interpreter| interpreter.path.clone()));
    for python in pythons {
        let mut command = Command::new(python);
        command.args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
            "--target",
        ]);
        command.arg(&partial).arg("uv").env_clear().envs(environment.iter().cloned());
        match build::run(command, &lock, log, deadline).await {
            Ok(_) => {
                std::fs::rename(&partial, &own)?;
                return Ok(program);
            }
            // Debian's interpreter comes without; another may have it.
            Err(CommandError::Failed(said)) if said.contains("No module named pip") => {}
            Err(CommandError::Failed(said)) => {
                return Err(CommandError::Failed(format!("cannot install uv with pip: {said}")));
            }
            Err(other) => return Err(other),
        }
    }
    Err(CommandError::Failed(
        "uv is needed to build environments, and no Python on this machine has pip to install it with. Install uv, or \
         pip (`apt-get install python3-pip`), and submit again"
            .to_owned(),
    ))
}

/// Lets uv get an interpreter for the service itself, into `own`.
pub(super) async fn install_python(
    uv: &Path,
    own: &Path,
    environment: &[(String, String)],
    log: &mut BuildLog,
    deadline: Instant,
) -> Result<(), CommandError> {
    layout::create_private_dir(own)?;
    let lock = lock(&own.with_extension("lock"), deadline, || Ok(())).await?;
    log.line(&format!("No usable Python on this machine: getting {FALLBACK_PYTHON} with uv."))?;
    let mut command = Command::new(uv);
    command.args(["--color", "never", "--no-progress", "python", "install", "--no-bin", "--install-dir"]);
    command.arg(own).arg(FALLBACK_PYTHON).env_clear().envs(environment.iter().cloned());
    build::run(command, &lock, log, deadline).await.map(|_| ())
}

/// Waits for an exclusive lock; `waiting` is called once if it is not to be had at once.
pub(in super::super) async fn lock(
    path: &Path,
    deadline: Instant,
    waiting: impl FnMut() -> io::Result<()>,
) -> Result<std::fs::File, CommandError> {
    wait_for(path, std::fs::File::try_lock, deadline, waiting).await
}

/// [`lock`], for one of many who only look.
pub(super) async fn lock_shared(
    path: &Path,
    deadline: Instant,
    waiting: impl FnMut() -> io::Result<()>,
) -> Result<std::fs::File, CommandError> {
    wait_for(path, std::fs::File::try_lock_shared, deadline, waiting).await
}

async fn wait_for(
    path: &Path,
    attempt: impl Fn(&std::fs::File) -> Result<(), TryLockError>,
    deadline: Instant,
    mut waiting: impl FnMut() -> io::Result<()>,
) -> Result<std::fs::File, CommandError> {
    let file = layout::open_lock_file(path)?;
    let mut told = false;
    loop {
        match attempt(&file) {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error.into()),
            Err(TryLockError::WouldBlock) => {}
        }
        if !told {
            told = true;
            waiting()?;
        }
        if Instant::now() >= deadline {
            return Err(CommandError::TimedOut);
        }
        tokio::time::sleep(LOCK_INTERVAL).await;
    }
}
