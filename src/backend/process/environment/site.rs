//! The place of one environment: built once, whole or not at all, and reused.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::{
    super::{LOOK_INTERVAL, files, layout},
    BuildLog, CommandError, build,
    builder::Builder,
    interpreters::Interpreter,
    requirements::Found,
    substitutions::Asks,
    uv,
};
use crate::domain::rules::grammar::pip;

/// Written last: an environment without it was never finished.
const MARKER: &str = ".complete";

/// How often removing an unfinished environment is tried.
const CLEAR_TRIES: u32 = 50;

/// What is known of a finished environment.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Complete {
    pub(super) python_version: String,
    pub(super) packages: Vec<String>,
}

/// One line of `uv pip list`.
#[derive(Debug, Deserialize)]
struct Listed {
    name: String,
    version: String,
}

/// The place where one environment is built, for good: the paths in it are absolute.
pub(super) struct Site<'a> {
    pub(super) root: PathBuf,
    pub(super) source: PathBuf,
    pub(super) builder: Builder<'a>,
}

impl Site<'_> {
    pub(super) fn interpreter(&self) -> PathBuf {
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

    pub(super) async fn ensure(
        &self,
        asks: &Asks,
        found: &Found,
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
        match self.build(asks, found, python, &lock, &mut log).await {
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
        found: &Found,
        python: &Interpreter,
        lock: &fs::File,
        log: &mut BuildLog,
    ) -> Result<Complete, CommandError> {
        let Builder { settings, variables, deadline, .. } = &self.builder;
        let uv = self.builder.uv(log).await?;
        layout::create_private_dir(&self.root)?;
        let constraints = self.root.join("constraints.txt");
        fs::write(&constraints, lines(&asks.constraints))?;
        let overrides = self.root.join("overrides.txt");
        fs::write(&overrides, lines(&asks.overrides))?;
        let directory = self.place_sources(asks, found).await?;
        // In the source tree's copy, because what its lines include is named from there.
        let requirements = directory.join(".estimatord-requirements.txt");
        fs::write(&requirements, lines(&asks.requirements))?;

        log.line(&format!("Building {} with Python {}.", self.root.display(), python.version_text()))?;
        for requirement in &asks.requirements {
            log.line(&format!("  {}", pip::without_credentials(requirement)))?;
        }
        if let Some(file) = &asks.file {
            log.line(&format!("  and the requirements file {file}"))?;
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
        if !asks.requirements.is_empty() || asks.file.is_some() {
            let mut install = command(&["pip", "install", "--python"]);
            install.arg(self.interpreter()).arg("-r").arg(&requirements);
            if let Some(file) = &asks.file {
                install.arg("-r").arg(Path::new(".").join(file));
            }
            install.arg("-c").arg(&constraints).arg("-b").arg(&constraints);
            install.arg("--override").arg(&overrides).args(&found.arguments);
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
    async fn place_sources(&self, asks: &Asks, found: &Found) -> Result<PathBuf, CommandError> {
        if !found.local && asks.file.is_none() && found.files.is_empty() {
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
    fn packages_are_listed_in_order() {
        let listed = r#"[{"name":"numpy","version":"1.23.5"},{"name":"chainer","version":"7.0.0"}]"#;
        assert_eq!(packages(listed).unwrap(), ["chainer==7.0.0", "numpy==1.23.5"]);
        assert!(packages("no").is_err());
    }
}
