//! The interpreter and packages of an attempt: built once with uv and kept, or the user's own.

pub(super) mod build;
mod contained;
mod interpreters;
mod substitutions;
mod user_managed;
mod uv;

pub(super) use self::{
    build::{BuildLog, CommandError},
    user_managed::mpirun,
    uv::lock,
};

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{process::Command, time::Instant};

use self::{interpreters::Interpreter, substitutions::Asks};
use super::{
    super::{ActualEnvironment, Attempt, PrepareError, Substitution},
    LOOK_INTERVAL, ProcessBackend, Settings, container, files, launch,
    layout::{self, AttemptDir, BUILD_LOG},
};
use crate::domain::{environment::EnvironmentKind, plan::Launcher};

/// Changes when environments are built differently, so that none of the old ones is taken for a new one.
const RECIPE: u32 = 1;
/// Written last: an environment without it was never finished.
const MARKER: &str = ".complete";

/// How often removing an unfinished environment is tried.
const CLEAR_TRIES: u32 = 50;

/// What is known of a finished environment.
#[derive(Debug, Serialize, Deserialize)]
struct Complete {
    python_version: String,
    packages: Vec<String>,
}

/// One line of `uv pip list`.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    version: String,
}

/// Everything that makes one environment differ from another.
#[derive(Debug, Serialize)]
struct Key<'a> {
    recipe: u32,
    requirements: &'a [String],
    constraints: &'a [String],
    python: &'a Interpreter,
    platform: [&'a str; 2],
    /// Set when requirements come out of the source tree.
    snapshot: Option<&'a str>,
}

/// Makes the environment of an attempt whose source tree is in place.
pub(super) async fn prepare(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
) -> Result<ActualEnvironment, PrepareError> {
    let refuse = |message: String| PrepareError::EnvironmentBuild { message };
    let engine = container::engine(attempt, &backend.service_environment).await.map_err(refuse)?;
    if engine.is_none() && attempt.plan.environment.kind == EnvironmentKind::UserManaged {
        return user_managed::prepare(backend, attempt, directory).await;
    }
    let log_path = directory.logs().join(BUILD_LOG);
    let mut log =
        BuildLog::open(&log_path).map_err(|source| PrepareError::Io { path: log_path.clone(), source })?;
    let result = match &engine {
        Some(engine) => contained::prepare(backend, attempt, directory, engine, &mut log).await,
        None => managed(backend, attempt, directory, &mut log).await,
    };
    result.map_err(|error| explain(error, &mut log, backend))
}

fn explain(error: CommandError, log: &mut BuildLog, backend: &ProcessBackend) -> PrepareError {
    let message = match error {
        CommandError::Failed(message) => message,
        CommandError::TimedOut => {
            format!("not finished after {} s: stopped", backend.settings.build_timeout.as_secs())
        }
        CommandError::Io(source) => {
            return PrepareError::Io { path: backend.settings.data_dir.join("environments"), source };
        }
    };
    // The message is returned in any case.
    let _ = log.line(&format!("The environment could not be built: {message}"));
    PrepareError::EnvironmentBuild { message }
}

async fn managed(
    backend: &ProcessBackend,
    attempt: &Attempt,
    directory: &AttemptDir,
    log: &mut BuildLog,
) -> Result<ActualEnvironment, CommandError> {
    let environment = &attempt.plan.environment;
    let asks = substitutions::resolve(environment, attempt.plan.launcher == Launcher::Mpi)
        .map_err(CommandError::Failed)?;
    // One of its own for each build: installers leave locks and the like in there, and all of it goes in the end.
    let temporary = tempfile::tempdir_in(layout::scratch(&backend.settings.data_dir)?)?;
    let mut builder = Builder {
        settings: &backend.settings,
        variables: installer_environment(&backend.service_environment, temporary.path()),
        present: Vec::new(),
        deadline: build::deadline(backend.settings.build_timeout),
    };
    let (python, python_substitution) =
        builder.interpreter(environment.python_version.as_deref(), asks.chainer, log).await?;
    let key = key(&asks, &python, attempt.plan.snapshot_id.as_str());
    let root = backend.settings.data_dir.join("environments").join(&key);
    let site = Site { root, source: directory.work(), builder };
    let (complete, reused) = site.ensure(&asks, &python, log).await?;
    let substitutions = substitutions::with_installed(asks.substitutions, &complete.packages);
    Ok(ActualEnvironment {
        kind: "virtual_environment".to_owned(),
        interpreter: site.interpreter().to_string_lossy().into_owned(),
        python_version: complete.python_version,
        packages: complete.packages,
        substitutions: python_substitution.into_iter().chain(substitutions).collect(),
        build_key: Some(key),
        reused,
        container: None,
    })
}

fn key(asks: &Asks, python: &Interpreter, snapshot: &str) -> String {
    let key = Key {
        recipe: RECIPE,
        requirements: &asks.requirements,
        constraints: &asks.constraints,
        python,
        platform: [std::env::consts::OS, std::env::consts::ARCH],
        snapshot: asks.local.then_some(snapshot),
    };
    // A struct of texts and numbers always serialises.
    let json = serde_json::to_vec(&key).unwrap_or_default();
    digest(&json)
}

/// The SHA-256 of some content, in hexadecimal digits.
pub(super) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the installer is given of the service's environment: what scripts get, and where packages come from. Build
/// scripts of packages run with it, so that no secret of the service may be in there.
fn installer_environment(service: &[(String, String)], temporary: &Path) -> Vec<(String, String)> {
    const SOURCES: [&str; 6] = ["UV_", "PIP_", "PYENV_ROOT", "CURL_CA_BUNDLE", "ALL_PROXY", "all_proxy"];
    // These would lead the installer to another place than the one it is told.
    const STEERING: [&str; 7] = [
        "UV_PYTHON",
        "UV_CACHE_DIR",
        "UV_SYSTEM_PYTHON",
        "UV_CONSTRAINT",
        "PIP_TARGET",
        "PIP_PREFIX",
        "TMPDIR",
    ];
    // By these uv trusts whom the machine trusts, and not only whom it was built to trust: the new name and the old
    // one, as variables, because a version that does not know a variable does not mind it.
    const SYSTEM_CERTIFICATES: [&str; 2] = ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS"];
    let mut kept: Vec<(String, String)> = service
        .iter()
        .filter(|(name, _)| launch::is_inherited(name) || SOURCES.iter().any(|start| name.starts_with(start)))
        .filter(|(name, _)| !STEERING.contains(&name.as_str()))
        .cloned()
        .collect();
    // An operator who said something about it, by whichever name, is heeded.
    if !kept.iter().any(|(name, _)| SYSTEM_CERTIFICATES.contains(&name.as_str())) {
        kept.extend(SYSTEM_CERTIFICATES.map(|name| (name.to_owned(), "true".to_owned())));
    }
    kept.push(("TMPDIR".to_owned(), temporary.to_string_lossy().into_owned()));
    kept
}

/// The first program of that name on `PATH`.
pub(super) fn find_program(name: &str, environment: &[(String, String)]) -> Option<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;
    let path = environment.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.as_str())?;
    std::env::split_paths(path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(name))
        .find(|file| {
            fs::metadata(file).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

/// What building takes, whichever environment it is.
struct Builder<'a> {
    settings: &'a Settings,
    variables: Vec<(String, String)>,
    /// The interpreters that are there.
    present: Vec<Interpreter>,
    deadline: Instant,
}

impl Builder<'_> {
    async fn uv(&self, log: &mut BuildLog) -> Result<PathBuf, CommandError> {
        let configured = self.settings.uv.as_deref();
        uv::locate(configured, &self.settings.data_dir, &self.variables, &self.present, log, self.deadline)
            .await
    }

    /// The interpreter to build with: one that is there, else one that uv gets.
    async fn interpreter(
        &mut self,
        asked: Option<&str>,
        chainer: bool,
        log: &mut BuildLog,
    ) -> Result<(Interpreter, Option<Substitution>), CommandError> {
        let own = self.settings.data_dir.join("tools/python");
        self.present = interpreters::discover(&own, &self.variables).await;
        let none = match interpreters::choose(asked, chainer, &self.present) {
            Ok(chosen) => return Ok(chosen),
            Err(none) => none,
        };
        let got = match self.uv(log).await {
            Ok(uv) => uv::install_python(&uv, &own, &self.variables, log, self.deadline).await,
            Err(error) => Err(error),
        };
        match got {
            Ok(()) => {}
            Err(CommandError::Failed(said)) => {
                return Err(CommandError::Failed(format!("{none}. Getting one with uv failed: {said}")));
            }
            Err(other) => return Err(other),
        }
        self.present = interpreters::discover(&own, &self.variables).await;
        interpreters::choose(asked, chainer, &self.present).map_err(CommandError::Failed)
    }
}

/// The place where one environment is built, for good: the paths in it are absolute.
struct Site<'a> {
    root: PathBuf,
    source: PathBuf,
    builder: Builder<'a>,
}

impl Site<'_> {
    fn interpreter(&self) -> PathBuf {
        self.root.join("venv/bin/python")
    }

    fn sibling(&self, ending: &str) -> PathBuf {
        self.root.with_extension(ending)
    }

    /// What is there, if it is whole and its interpreter has not been removed since.
    fn complete(&self) -> Option<Complete> {
        if !self.interpreter().is_file() {
            return None;
        }
        layout::read_json(&self.root.join(MARKER)).ok().flatten()
    }

    async fn ensure(
        &self,
        asks: &Asks,
        python: &Interpreter,
        log: &mut BuildLog,
    ) -> Result<(Complete, bool), CommandError> {
        if let Some(complete) = self.complete() {
            log.line(&format!("Reusing the environment {}, built before.", self.root.display()))?;
            return Ok((complete, true));
        }
        if let Some(parent) = self.root.parent() {
            layout::create_private_dir(parent)?;
        }
        let mut waited = false;
        let lock = uv::lock(&self.sibling("lock"), self.builder.deadline, || {
            waited = true;
            log.line("Another run is building this environment: waiting for it.")
        })
        .await?;
        if let Some(complete) = self.complete() {
            if waited && let Ok(said) = fs::read(self.sibling("log")) {
                log.bytes(&said)?;
            }
            log.line(&format!("Reusing the environment {}.", self.root.display()))?;
            return Ok((complete, true));
        }
        let mut log = log.also(&self.sibling("log"))?;
        // Left behind by a build that was interrupted.
        self.blocking(|root| files::remove_tree(&root)).await?;
        match self.build(asks, python, &lock, &mut log).await {
            Ok(complete) => Ok((complete, false)),
            Err(error) => {
                self.clear().await;
                Err(error)
            }
        }
    }

    /// Removes what a failed build made, under its lock. What cannot be removed is left to the next build.
    async fn clear(&self) {
        for _ in 0..CLEAR_TRIES {
            if self.blocking(|root| files::remove_tree(&root)).await.is_ok() {
                return;
            }
            // An installer that was killed may be writing still.
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    async fn build(
        &self,
        asks: &Asks,
        python: &Interpreter,
        lock: &fs::File,
        log: &mut BuildLog,
    ) -> Result<Complete, CommandError> {
        let Builder { settings, variables, deadline, .. } = &self.builder;
        let uv = self.builder.uv(log).await?;
        layout::create_private_dir(&self.root)?;
        let constraints = self.root.join("constraints.txt");
        fs::write(&constraints, lines(&asks.constraints))?;
        let directory = self.place_sources(asks).await?;
        let requirements = directory.join(".estimatord-requirements.txt");
        fs::write(&requirements, lines(&asks.requirements))?;

        log.line(&format!("Building {} with Python {}.", self.root.display(), python.version_text()))?;
        for requirement in &asks.requirements {
            log.line(&format!("  {requirement}"))?;
        }
        let command = |arguments: &[&str]| {
            let mut command = Command::new(&uv);
            command
                .args(["--color", "never", "--no-progress", "--cache-dir"])
                .arg(settings.data_dir.join("cache/uv"));
            command.args(arguments);
            command.current_dir(&directory).env_clear().envs(variables.iter().cloned());
            command
        };
        let mut make = command(&["venv", "--no-project", "--no-python-downloads", "--python"]);
        make.arg(&python.path).arg(self.root.join("venv"));
        build::run(make, lock, log, *deadline).await?;
        if !asks.requirements.is_empty() {
            let mut install = command(&["pip", "install", "--python"]);
            install.arg(self.interpreter()).arg("-r").arg(&requirements);
            install.arg("-c").arg(&constraints).arg("-b").arg(&constraints);
            build::run(install, lock, log, *deadline).await?;
        }
        let mut list = command(&["pip", "list", "--quiet", "--format", "json", "--python"]);
        list.arg(self.interpreter());
        let mut silent = BuildLog::open(Path::new("/dev/null"))?;
        let listed = build::run(list, lock, &mut silent, *deadline).await?;
        let complete = Complete { python_version: python.version_text(), packages: packages(&listed)? };
        self.finish(&complete).await?;
        log.line("The environment is complete.")?;
        Ok(complete)
    }

    /// Where the installer runs. Requirements that name things in the source tree get a copy of it, which stays as
    /// long as the environment: an editable package is used where it lies.
    async fn place_sources(&self, asks: &Asks) -> Result<PathBuf, CommandError> {
        if !asks.local {
            return Ok(self.root.clone());
        }
        let source = self.source.clone();
        self.blocking(move |root| {
            let target = root.join("source");
            files::copy_tree(&source, &target)?;
            for ours in ["outputs", "logs"] {
                // Builders would take these for packages. What the snapshot itself has in there stays.
                let _ = fs::remove_dir(target.join(ours));
            }
            Ok(target)
        })
        .await
    }

    /// Writes the marker once all of it is on the disk: a power failure must not leave a marker without its packages.
    async fn finish(&self, complete: &Complete) -> Result<(), CommandError> {
        self.blocking(|root| Ok(nix::unistd::syncfs(fs::File::open(root)?)?)).await?;
        Ok(layout::write_json(&self.root.join(MARKER), complete)?)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CommandError> {
        let root = self.root.clone();
        Ok(tokio::task::spawn_blocking(move || work(root)).await.map_err(io::Error::other)??)
    }
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

fn packages(listed: &str) -> Result<Vec<String>, CommandError> {
    let listed: Vec<Listed> = serde_json::from_str(listed.trim())
        .map_err(|error| CommandError::Failed(format!("cannot read the list of packages: {error}")))?;
    let mut packages: Vec<String> =
        listed.into_iter().map(|package| format!("{}=={}", package.name, package.version)).collect();
    packages.sort();
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_installer_knows_where_packages_come_from_and_nothing_else_of_the_service() {
        let names =
            ["UV_DEFAULT_INDEX", "PIP_CERT", "DATABASE_URL", "ESTIMATORD_TOKEN", "UV_CACHE_DIR", "PATH"];
        let service: Vec<_> = names.map(|name| (name.to_owned(), String::new())).into();
        let kept: Vec<_> =
            installer_environment(&service, Path::new("/t")).into_iter().map(|(name, _)| name).collect();
        let expected = ["UV_DEFAULT_INDEX", "PIP_CERT", "PATH", "UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "TMPDIR"];
        assert_eq!(kept, expected);
    }

    #[test]
    fn what_the_operator_says_of_certificates_is_heeded() {
        let service = [("UV_NATIVE_TLS".to_owned(), "false".to_owned()), ("TMPDIR".into(), "/other".into())];
        let expected = [service[0].clone(), ("TMPDIR".into(), "/t".into())];
        assert_eq!(installer_environment(&service, Path::new("/t")), expected);
    }

    #[tokio::test]
    async fn where_no_interpreter_is_uv_gets_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let real =
            std::process::Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let real = String::from_utf8(real.unwrap().stdout).unwrap();
        // Stands for uv: puts the machine's interpreter where it is told to install one.
        let uv = directory.path().join("uv");
        let script = format!(
            "#!/bin/sh\nwhile [ \"$1\" != --install-dir ]; do shift; done\n\
             /bin/mkdir -p \"$2/python/bin\" && /bin/ln -s {} \"$2/python/bin/python3\"\n",
            real.trim()
        );
        fs::write(&uv, script).unwrap();
        fs::set_permissions(&uv, fs::Permissions::from_mode(0o755)).unwrap();
        let settings = Settings {
            data_dir: directory.path().join("data"),
            supervisor: "/nowhere".into(),
            cancel_grace: std::time::Duration::ZERO,
            build_timeout: std::time::Duration::ZERO,
            uv: Some(uv.clone()),
        };
        let builder = || Builder {
            settings: &settings,
            variables: vec![("PATH".into(), "/nowhere".into()), ("HOME".into(), "/nowhere".into())],
            present: Vec::new(),
            deadline: build::deadline(std::time::Duration::from_secs(60)),
        };
        let mut log = BuildLog::open(&directory.path().join("log")).unwrap();
        let (chosen, _) = builder().interpreter(None, false, &mut log).await.unwrap();
        assert!(chosen.version >= [3, 8, 0]);
        fs::write(&uv, "#!/bin/sh\necho 'error: no network'\nexit 1\n").unwrap();
        files::remove_tree(&settings.data_dir).unwrap();
        let error = builder().interpreter(Some("3.6.2"), true, &mut log).await.unwrap_err().to_string();
        assert!(error.contains("3.8, 3.9, 3.10 and 3.11") && error.ends_with("error: no network"), "{error}");
    }

    #[test]
    fn packages_are_listed_in_order() {
        let listed = r#"[{"name":"numpy","version":"1.23.5"},{"name":"chainer","version":"7.0.0"}]"#;
        assert_eq!(packages(listed).unwrap(), ["chainer==7.0.0", "numpy==1.23.5"]);
        assert!(packages("no").is_err());
    }
}
