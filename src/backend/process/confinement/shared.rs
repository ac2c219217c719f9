//! The directories of everybody's on this machine, in which a run can leave files as well.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Those that there always are.
const ALWAYS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];
/// Where others are looked for, and how deep: systems keep there what does not last. What people share with each other lies elsewhere, and
/// is not ours to remove.
const LOOKED_THROUGH: [(&str, usize); 3] = [("/run", 3), ("/var", 2), ("/dev", 1)];
/// What is there is kept, by programs and by people.
const KEPT: &str = "/var/lib";
/// Everybody may write, and remove only what is his.
const EVERYBODYS: u32 = 0o1002;

/// All of them, looked for once in the life of this process.
pub(super) fn directories() -> &'static [PathBuf] {
    static FOUND: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found: Vec<PathBuf> = ALWAYS.map(PathBuf::from).into();
        for (root, depth) in LOOKED_THROUGH {
            look(Path::new(root), depth, &mut found);
        }
        found
    })
}

/// Adds those at and below a directory. What cannot be looked into cannot be written into by others either.
fn look(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) {
    if directory == Path::new(KEPT) || found.iter().any(|known| known == directory) {
        return;
    }
    let Ok(metadata) = fs::symlink_metadata(directory) else { return };
    if !metadata.is_dir() {
        return;
    }
    if metadata.mode() & EVERYBODYS == EVERYBODYS {
        found.push(directory.to_owned());
        return;
    }
    if depth == 0 {
        return;
    }
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        look(&entry.path(), depth - 1, found);
    }
}

/// What a user has in them: directory and name.
pub(super) fn left_by(user: u32) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut left = Vec::new();
    for directory in directories() {
        for entry in super::super::files::entries(directory)? {
            if entry.metadata().is_ok_and(|metadata| metadata.uid() == user) {
                left.push((directory.clone(), entry.file_name().into()));
            }
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn everybodys_directories_are_found_as_deep_as_is_looked_and_no_deeper() {
        let place = tempfile::tempdir().unwrap();
        let make = |path: &str, mode| {
            let path = place.path().join(path);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let lock = make("a/lock", 0o1777);
        let spool = make("spool", 0o1733);
        make("a/b/c/deep", 0o1777);
        make("a/lock/within", 0o1777);
        make("team", 0o777);
        make("own", 0o1755);
        std::os::unix::fs::symlink(&lock, place.path().join("link")).unwrap();
        let mut found = Vec::new();
        look(place.path(), 3, &mut found);
        found.sort();
        assert_eq!(found, [lock, spool]);
    }

    #[test]
    fn those_that_there_always_are_are_named_once() {
        for always in ALWAYS {
            assert_eq!(directories().iter().filter(|found| *found == Path::new(always)).count(), 1);
        }
    }
}
