//! What is to be installed, as the files that the installer reads.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tokio::process::Command;

use super::{
    super::{files, layout},
    CommandError,
    interpreters::Interpreter,
    requirements::Found,
    substitutions::Asks,
};

/// What is to be installed, and for which interpreter.
pub(super) struct Wanted {
    pub(super) asks: Asks,
    pub(super) found: Found,
    pub(super) python: Interpreter,
    /// The content of the image that it is for, if it is for one.
    pub(super) image: Option<String>,
    /// The source tree: nothing is ever written into it.
    pub(super) source: PathBuf,
}

/// The files of a [`Wanted`], in a directory.
pub(super) struct Placed {
    /// Where the installer runs: paths in pip's lines are named from here.
    pub(super) directory: PathBuf,
    /// Relative to that.
    pub(super) requirements: Vec<PathBuf>,
    pub(super) constraints: PathBuf,
    /// The installer complains of an empty one.
    overrides: Option<PathBuf>,
}

impl Placed {
    /// Says to the installer what takes the place of requirements.
    pub(super) fn override_with(&self, command: &mut Command) {
        if let Some(overrides) = &self.overrides {
            command.arg("--override").arg(overrides);
        }
    }
}

impl Wanted {
    /// Whether nothing is to be installed.
    pub(super) const fn is_empty(&self) -> bool {
        self.asks.requirements.is_empty() && self.asks.file.is_none()
    }

    /// Writes the files into a directory that is there. Lines that read the source tree get a copy of it: builders write
    /// beside what they build, and an editable package is used where it lies.
    pub(super) async fn place(&self, directory: &Path) -> Result<Placed, CommandError> {
        let (constraints, overrides) = (directory.join("constraints.txt"), directory.join("overrides.txt"));
        fs::write(&constraints, lines(&self.asks.constraints))?;
        fs::write(&overrides, lines(&self.asks.overrides))?;
        let mut directory = directory.to_owned();
        if self.found.local || !self.found.files.is_empty() {
            let (source, target) = (self.source.clone(), directory.join("source"));
            directory.clone_from(&target);
            tokio::task::spawn_blocking(move || copy_sources(&source, &target))
                .await
                .map_err(io::Error::other)??;
        }
        // In the copy of the source tree, because what its lines include is named from there.
        let mut requirements = vec![PathBuf::from("./.estimatord-requirements.txt")];
        fs::write(directory.join(&requirements[0]), lines(&self.asks.requirements))?;
        requirements.extend(self.asks.file.iter().map(|file| Path::new(".").join(file)));
        let overrides = (!self.asks.overrides.is_empty()).then_some(overrides);
        Ok(Placed { directory, requirements, constraints, overrides })
    }
}

fn copy_sources(source: &Path, target: &Path) -> io::Result<()> {
    layout::create_private_dir(target)?;
    files::copy_tree(source, target)?;
    for ours in ["outputs", "logs"] {
        // Builders would take these for packages. What the snapshot itself has in there stays.
        let _ = fs::remove_dir(target.join(ours));
    }
    Ok(())
}

fn lines(lines: &[String]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}
