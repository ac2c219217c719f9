//! Whether another user reaches a path: by the rights that everybody has.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// Everybody may pass through a directory, or execute a file.
const PASS: u32 = 0o001;

/// The first part of an absolute path, links followed, that others do not get past: a directory that they may not pass through, or
/// the file itself, which they may not read. `None` when they reach it.
pub(in super::super) fn closed_to_others(path: &Path) -> io::Result<Option<PathBuf>> {
    // As it is written, and as it is: the links on the way lie in directories too.
    for path in [path.to_owned(), fs::canonicalize(path)?] {
        let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
        parents.reverse();
        for parent in parents.into_iter().filter(|parent| !parent.as_os_str().is_empty()) {
            if mode(parent)? & PASS == 0 {
                return Ok(Some(parent.to_owned()));
            }
        }
        let wanted = if path.is_dir() { PASS } else { 0o004 };
        if mode(&path)? & wanted == 0 {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Why another user does not reach a path, as a clause; `None` when it does.
pub(in super::super) fn why_closed(path: &Path) -> io::Result<Option<String>> {
    let Some(closed) = closed_to_others(path)? else { return Ok(None) };
    Ok(Some(format!("{} is closed to other users (mode {:o})", closed.display(), mode(&closed)? & 0o7777)))
}

/// Whether others get something of what is at a path: read or list it, or pass through it.
pub(super) fn is_open(path: &Path) -> io::Result<bool> {
    // One that is given as seen from here has parents too.
    let path = &std::path::absolute(path)?;
    match path.parent().map(closed_to_others).transpose()?.flatten() {
        Some(_) => Ok(false),
        None => Ok(mode(path)? & 0o007 != 0),
    }
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_closes_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let (root, inner) = (directory.path(), directory.path().join("a"));
        let file = inner.join("f");
        fs::create_dir(&inner).unwrap();
        fs::write(&file, "x").unwrap();
        set(&file, 0o644);
        set(&inner, 0o711);
        set(root, 0o700);
        assert_eq!(closed_to_others(&file).unwrap(), Some(root.to_owned()));
        set(root, 0o755);
        assert_eq!(closed_to_others(&file).unwrap(), None);
        assert!(is_open(&file).unwrap());
        assert!(is_open(Path::new("Cargo.toml")).is_ok(), "a path as seen from here");
        set(&inner, 0o700);
        assert_eq!(closed_to_others(&file).unwrap(), Some(inner.clone()));
        assert!(why_closed(&file).unwrap().unwrap().ends_with("/a is closed to other users (mode 700)"));
        assert!(!is_open(&file).unwrap() && !is_open(&inner).unwrap());
        let link = root.join("link");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(closed_to_others(&link).unwrap(), Some(inner.clone()), "where the link leads is closed");
        set(&inner, 0o711);
        set(&file, 0o640);
        assert_eq!(closed_to_others(&file).unwrap(), Some(file));
    }
}
