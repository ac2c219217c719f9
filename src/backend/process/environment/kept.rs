//! What is known of the environments that are kept in a data directory.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};

use super::super::{files, layout};
use crate::domain::built_environment::{BuiltEnvironment, EnvironmentKey};

/// Written last: an environment without it was never finished. When it was changed is when the environment was last used. It lies beside
/// the environment, where packages do not write while they are built.
pub(super) fn marker(root: &Path) -> PathBuf {
    root.with_extension("complete")
}

/// Takes back that an environment is whole, before anything of it changes.
pub(super) fn forget(root: &Path) -> io::Result<()> {
    match fs::remove_file(marker(root)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// What is known of a finished environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Complete {
    /// How it was built.
    pub(super) kind: String,
    pub(super) python_version: String,
    pub(super) packages: Vec<String>,
    /// What it took of the disk when it was finished.
    pub(super) bytes: u64,
}

impl Complete {
    /// What is written of the environment in this directory; none when it was not finished, or by another version.
    pub(super) fn read(root: &Path) -> Option<Self> {
        layout::read_json(&marker(root)).ok().flatten()
    }

    /// Says that the environment in this directory is whole.
    pub(super) fn write(&self, root: &Path) -> io::Result<()> {
        layout::write_json(&marker(root), self)
    }
}

/// An environment, and when it was last used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) built: BuiltEnvironment,
    pub(super) last_used: SystemTime,
}

/// Whether a name is that of an environment.
pub(super) fn is_key(name: &str) -> bool {
    name.parse::<EnvironmentKey>().is_ok()
}

/// The finished environments below a directory, in no order.
pub(super) fn list(environments: &Path) -> io::Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for entry in files::entries(environments)? {
        // Whatever else is in there has no key as its name.
        let Some(key) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let root = entry.path();
        let (Some(complete), Ok(marker)) = (Complete::read(&root), fs::metadata(self::marker(&root))) else {
            continue;
        };
        let Complete { kind, python_version, packages, bytes } = complete;
        let built = BuiltEnvironment { key, kind, python_version, packages, bytes };
        kept.push(Kept { built, last_used: marker.modified()? });
    }
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finished_environments_are_listed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        assert!(list(&directory.path().join("none")).unwrap().is_empty());
        let complete = Complete {
            kind: "virtual_environment".into(),
            python_version: "3.11.7".into(),
            packages: vec!["six==1.16.0".into()],
            bytes: 5,
        };
        let (whole, unfinished) = ("a".repeat(64), "b".repeat(64));
        for name in [&whole, &unfinished, "tools"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        complete.write(&directory.path().join(&whole)).unwrap();
        complete.write(&directory.path().join("tools")).unwrap();
        fs::write(marker(&directory.path().join(unfinished)), r#"{"python_version":"3.8.1"}"#).unwrap();
        fs::write(directory.path().join(format!("{whole}.lock")), "").unwrap();
        let found = list(directory.path()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].built.key.as_str(), found[0].built.bytes), (whole.as_str(), 5));
    }
}
