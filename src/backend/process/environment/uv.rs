//! Finding uv, or getting it once.

use std::{
    fs::TryLockError,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{process::Command, time::Instant};

use super::{
    super::{
        confinement::{closed_to_others, open_way, why_closed},
        files, layout,
    },
    build::{self, BuildLog, CommandError},
    find_program,
    interpreters::Interpreter,
};

/// Between two tries to get a lock that another process holds.
const LOCK_INTERVAL: Duration = Duration::from_millis(100);
/// What is got where no usable interpreter is: the newest that chainer works with.
const FALLBACK_PYTHON: &str = "3.11";

/// Where uv is looked for, and what it is installed with when it is not there.
pub(super) struct Search<'a> {
    /// The one that the operator names.
    pub(super) configured: Option<&'a Path>,
    pub(super) data_dir: &'a Path,
    pub(super) environment: &'a [(String, String)],
    /// The interpreters that are there.
    pub(super) present: &'a [Interpreter],
    /// Whether every user of the machine must be able to run it.
    pub(super) for_all: bool,
    pub(super) deadline: Instant,
}

impl Search<'_> {
    /// The configured one, the one on `PATH`, or one installed with pip into the data directory.
    pub(super) async fn for_this_machine(&self, log: &mut BuildLog) -> Result<PathBuf, CommandError> {
        if let Some(path) = self.configured()? {
            return Ok(path);
        }
        if let Some(path) = find_program("uv", self.environment)
            && (!self.for_all || matches!(closed_to_others(&path), Ok(None)))
        {
            return Ok(path);
        }
        self.installed("uv", &[], log).await
    }

    /// One that runs in every image: it needs no C library, and is no script of the machine's.
    pub(super) async fn for_images(&self, log: &mut BuildLog) -> Result<PathBuf, CommandError> {
        if let Some(path) = self.configured()? {
            return Ok(path);
        }
        let platform = format!("musllinux_1_1_{}", std::env::consts::ARCH);
        let options = ["--only-binary", ":all:", "--platform", &platform];
        self.installed("uv-for-images", &options, log).await
    }

    fn configured(&self) -> Result<Option<PathBuf>, CommandError> {
        let Some(path) = self.configured else { return Ok(None) };
        if !path.is_file() {
            let said = format!("the configured uv, {}, is not there", path.display());
            return Err(CommandError::Failed(said));
        }
        match if self.for_all { why_closed(path)? } else { None } {
            None => Ok(Some(path.to_owned())),
            Some(why) => Err(CommandError::Failed(format!(
                "the configured uv, {}, builds as the user of the run, who cannot reach it: {why}",
                path.display()
            ))),
        }
    }

    /// The one that pip put into the data directory, now or before; where every user of the machine gets to it, if they must.
    async fn installed(
        &self,
        name: &str,
        options: &[&str],
        log: &mut BuildLog,
    ) -> Result<PathBuf, CommandError> {
        let program = self.install(name, options, log).await?;
        if self.for_all {
            open_way(self.data_dir, &program)?;
        }
        Ok(program)
    }

    async fn install(
        &self,
        name: &str,
        options: &[&str],
        log: &mut BuildLog,
    ) -> Result<PathBuf, CommandError> {
        let tools = self.data_dir.join("tools");
        let own = tools.join(name);
        let program = own.join("bin/uv");
        if program.is_file() {
            return Ok(program);
        }
        layout::create_private_dir(&tools)?;
        let lock = lock(&tools.join(format!("{name}.lock")), self.deadline, || Ok(())).await?;
        if program.is_file() {
            return Ok(program);
        }
        log.line("uv is not on this machine: installing it with pip, once")?;
        let partial = tools.join(format!("{name}.partial"));
        files::remove_tree(&partial)?;
        let mut pythons: Vec<PathBuf> = find_program("python3", self.environment).into_iter().collect();
        pythons.extend(self.present.iter().map(|interpreter| interpreter.path.clone()));
        for python in pythons {
            let mut command = Command::new(python);
            command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input"]);
            command.args(options).arg("--target").arg(&partial).arg("uv");
            command.env_clear().envs(self.environment.iter().cloned());
            match build::run(command, &lock, log, self.deadline).await {
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
