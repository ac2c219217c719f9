//! The place of one environment: built once, whole or not at all, and reused.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;
use tokio::time::Instant;

use super::{
    super::{
        LOOK_INTERVAL, files,
        layout::{self, AttemptDir},
        records::UsedEnvironment,
    },
    BuildLog, CommandError, build,
    builder::Builder,
    kept::{self, Complete},
    resolution::Lock,
    uv,
    wanted::Wanted,
};

/// How often removing an unfinished environment is tried.
const CLEAR_TRIES: u32 = 50;

/// One line of `uv pip list`.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    version: String,
}

/// What was found at the place of an environment.
pub(super) enum Claim {
    /// It is whole.
    There(Complete),
    /// Nothing: whoever holds the lock builds it, and says to the log what happens.
    Vacant { lock: fs::File, log: BuildLog },
}

/// What was built.
pub(super) struct Built {
    pub(super) kind: &'static str,
    pub(super) python_version: String,
    pub(super) packages: Vec<String>,
}

/// The place where one environment is built, for good: the paths in it are absolute.
pub(super) struct Site {
    root: PathBuf,
    key: String,
    /// The attempt that uses it.
    user: AttemptDir,
    /// Whether it is for an image: its interpreter may be a link to where only the image has something.
    in_image: bool,
}

impl Site {
    pub(super) fn new(environments: &Path, key: String, user: AttemptDir, in_image: bool) -> Self {
        Self { root: environments.join(&key), key, user, in_image }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Where it is, with what it was built of beside it.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where its `bin` is.
    pub(super) fn prefix(&self) -> PathBuf {
        self.root.join("venv")
    }

    pub(super) fn interpreter(&self) -> PathBuf {
        self.prefix().join("bin/python")
    }

    fn sibling(&self, ending: &str) -> PathBuf {
        self.root.with_extension(ending)
    }

    /// What is there, if it is whole and its interpreter has not been removed since.
    fn complete(&self) -> Option<Complete> {
        let interpreter = self.interpreter();
        let is_there =
            if self.in_image { interpreter.symlink_metadata().is_ok() } else { interpreter.is_file() };
        if !is_there {
            return None;
        }
        Complete::read(&self.root)
    }

    /// The environment, if it is there. From before it is looked up the attempt counts as one that uses it.
    pub(super) async fn reuse(
        &self,
        deadline: Instant,
        log: &mut BuildLog,
    ) -> Result<Option<Complete>, CommandError> {
        layout::write_json(&self.user.environment(), &UsedEnvironment { key: self.key.clone() })?;
        let mut waited = false;
        // Who removes an environment holds the lock while it looks for users: either it has seen this one, or what is
        // looked up below is gone.
        let lock = uv::lock_shared(&self.sibling("lock"), deadline, || {
            waited = true;
            log.line("Another run is building this environment: waiting for it.")
        })
        .await?;
        let Some(complete) = self.complete() else { return Ok(None) };
        drop(lock);
        if waited {
            self.repeat_log(log)?;
        }
        self.note_use(log)?;
        Ok(Some(complete))
    }

    /// Says that it is reused, and writes down when.
    fn note_use(&self, log: &mut BuildLog) -> Result<(), CommandError> {
        let marker = fs::File::options().append(true).open(kept::marker(&self.root))?;
        marker.set_modified(SystemTime::now())?;
        Ok(log.line(&format!("Reusing the environment {}, built before.", self.root.display()))?)
    }

    /// Shows to one who waited what building it said.
    pub(super) fn repeat_log(&self, log: &mut BuildLog) -> Result<(), CommandError> {
        if let Ok(said) = fs::read(self.sibling("log")) {
            log.bytes(&said)?;
        }
        Ok(())
    }

    /// The environment, built if it is not there. Answers whether it was.
    pub(super) async fn ensure(
        &self,
        wanted: &Wanted,
        resolved: &Lock,
        builder: &Builder<'_>,
        log: &mut BuildLog,
    ) -> Result<(Complete, bool), CommandError> {
        match self.claim(builder.deadline, log).await? {
            Claim::There(complete) => Ok((complete, true)),
            Claim::Vacant { lock, mut log } => {
                let built = self.build(wanted, resolved, builder, &lock, &mut log).await;
                let built = self.taken_back(built, builder).await;
                Ok((self.conclude(built, &mut log).await?, false))
            }
        }
    }

    /// The environment if it is there, else the right to build it.
    pub(super) async fn claim(&self, deadline: Instant, log: &mut BuildLog) -> Result<Claim, CommandError> {
        if let Some(complete) = self.reuse(deadline, log).await? {
            return Ok(Claim::There(complete));
        }
        let mut waited = false;
        let lock = uv::lock(&self.sibling("lock"), deadline, || {
            waited = true;
            log.line("Another run is building this environment: waiting for it.")
        })
        .await?;
        if let Some(complete) = self.complete() {
            if waited {
                self.repeat_log(log)?;
            }
            self.note_use(log)?;
            return Ok(Claim::There(complete));
        }
        let log = log.also(&self.sibling("log"))?;
        kept::forget(&self.root)?;
        // Left behind by a build that was interrupted.
        self.blocking(|root| files::remove_tree(&root)).await?;
        layout::create_private_dir(&self.root)?;
        Ok(Claim::Vacant { lock, log })
    }

    /// What was built, once nothing of it changes any more. What cannot be taken back was not made by an installer.
    pub(super) async fn taken_back(
        &self,
        built: Result<Built, CommandError>,
        builder: &Builder<'_>,
    ) -> Result<Built, CommandError> {
        let taken = builder.take_back(&self.root).await;
        let built = built?;
        taken.map_err(|error| CommandError::Failed(format!("what was built cannot be used: {error}")))?;
        Ok(built)
    }

    /// Says that what was built is whole, or removes what a failed build made.
    pub(super) async fn conclude(
        &self,
        built: Result<Built, CommandError>,
        log: &mut BuildLog,
    ) -> Result<Complete, CommandError> {
        let Built { kind, python_version, packages } = match built {
            Ok(built) => built,
            Err(error) => {
                self.clear().await;
                return Err(error);
            }
        };
        let complete = self
            .blocking(move |root| {
                let bytes = files::disk_usage(&root)?;
                let complete = Complete { kind: kind.to_owned(), python_version, packages, bytes };
                // All of it first: a power failure must not leave a marker without its packages.
                nix::unistd::syncfs(fs::File::open(&root)?)?;
                complete.write(&root)?;
                Ok(complete)
            })
            .await?;
        log.line("The environment is complete.")?;
        Ok(complete)
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
        wanted: &Wanted,
        resolved: &Lock,
        builder: &Builder<'_>,
        lock: &fs::File,
        log: &mut BuildLog,
    ) -> Result<Built, CommandError> {
        let uv = builder.uv(log).await?;
        let placed = wanted.place(&self.root).await?;
        let versions = self.root.join("lock.txt");
        fs::write(&versions, resolved.constraints())?;
        let version = wanted.python.version_text();
        log.line(&format!("Building {} with Python {version}.", self.root.display()))?;
        let command = |arguments: &[&str]| {
            let mut command = builder.installer(&uv, &self.root, &placed.directory);
            command.args(arguments);
            command
        };
        builder.give(&self.root)?;
        let mut make = command(&["venv", "--no-project", "--no-python-downloads", "--python"]);
        make.arg(&wanted.python.path).arg(self.root.join("venv"));
        build::run(make, lock, log, builder.deadline).await?;
        if !wanted.is_empty() {
            let mut install = command(&["pip", "install", "--python"]);
            install.arg(self.interpreter());
            for file in &placed.requirements {
                install.arg("-r").arg(file);
            }
            // The definition's own lists once more, and not the resolved versions alone, for the sake of the digests in them.
            install.arg("-c").arg(&versions).arg("-b").arg(&placed.constraints);
            placed.override_with(&mut install);
            install.args(&wanted.found.arguments);
            build::run(install, lock, log, builder.deadline).await?;
        }
        let packages = self.installed(builder, lock).await?;
        Ok(Built { kind: "virtual_environment", python_version: version, packages })
    }

    /// What is installed in it, as `name==version`, in order.
    pub(super) async fn installed(
        &self,
        builder: &Builder<'_>,
        lock: &fs::File,
    ) -> Result<Vec<String>, CommandError> {
        let mut silent = BuildLog::open(Path::new("/dev/null"))?;
        let uv = builder.uv(&mut silent).await?;
        let mut list = builder.installer(&uv, &self.root, &self.root);
        list.args(["pip", "list", "--quiet", "--format", "json", "--python"]).arg(self.interpreter());
        packages(&build::run(list, lock, &mut silent, builder.deadline).await?)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(PathBuf) -> io::Result<T> + Send + 'static,
    ) -> Result<T, CommandError> {
        let root = self.root.clone();
        Ok(tokio::task::spawn_blocking(move || work(root)).await.map_err(io::Error::other)??)
    }
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
    fn packages_are_listed_in_order() {
        let listed = r#"[{"name":"numpy","version":"1.23.5"},{"name":"chainer","version":"7.0.0"}]"#;
        assert_eq!(packages(listed).unwrap(), ["chainer==7.0.0", "numpy==1.23.5"]);
        assert!(packages("no").is_err());
    }
}
