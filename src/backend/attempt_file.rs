//! A file that a script wrote: listed and opened without ever leaving the directory that the script was given.

use std::{
    fs::File,
    io,
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
};

use nix::{
    fcntl::{OFlag, open, openat},
    sys::stat::Mode,
};

/// A file of an attempt on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFile {
    /// The name it is known by, with `/`: `user_logs/std_log.txt`, `logs/tb/events`, or (outputs) `model.npz`.
    pub name: String,
    /// The directory that it must not leave, which the script cannot exchange.
    pub root: PathBuf,
    /// Where it lies, from there.
    pub path: PathBuf,
    /// Its size when it was listed.
    pub bytes: u64,
}

impl AttemptFile {
    /// Opens it to read.
    ///
    /// # Errors
    /// When it is no longer a regular file, or there is a link on the way to it: the script may have exchanged any of
    /// it since it was listed.
    pub fn open(&self) -> io::Result<File> {
        let file = File::from(open_beneath(&self.root, &self.path, OFlag::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("no regular file any more")) }
    }
}

/// Opens what lies at `path` from `root`, one component after the other: no link is followed behind `root`, also not one
/// that appears while this goes on.
pub(in crate::backend) fn open_beneath(root: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    // A pipe without a writer would be waited for.
    let always = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let mut place = open(root, always | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut components = path.components().peekable();
    while let Some(component) = components.next() {
        let Component::Normal(name) = component else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path from the root, without `..`"));
        };
        let kind = if components.peek().is_some() { OFlag::O_DIRECTORY } else { flags };
        place = openat(&place, name, always | OFlag::O_NOFOLLOW | kind, Mode::empty())?;
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read as _, os::unix::fs::symlink};

    use super::*;

    fn file(root: &Path, path: &str) -> AttemptFile {
        AttemptFile { name: path.to_owned(), root: root.to_owned(), path: path.into(), bytes: 0 }
    }

    #[test]
    fn a_file_is_read_where_it_was_listed() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("outputs/a")).unwrap();
        fs::write(directory.path().join("outputs/a/b"), "mine").unwrap();
        let mut text = String::new();
        file(directory.path(), "outputs/a/b").open().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "mine");
    }

    #[test]
    fn a_link_put_in_the_place_of_any_part_leads_nowhere() {
        let directory = tempfile::tempdir().unwrap();
        let (root, secrets) = (directory.path().join("work"), directory.path().join("secrets"));
        fs::create_dir_all(root.join("outputs")).unwrap();
        fs::create_dir_all(secrets.join("a")).unwrap();
        fs::write(secrets.join("a/b"), "not mine").unwrap();
        // Listed as outputs/a/b before; now the last, the middle and the first part lead outside.
        fs::create_dir_all(root.join("outputs/a")).unwrap();
        symlink(secrets.join("a/b"), root.join("outputs/a/b")).unwrap();
        assert!(file(&root, "outputs/a/b").open().is_err());
        fs::remove_dir_all(root.join("outputs/a")).unwrap();
        symlink(secrets.join("a"), root.join("outputs/a")).unwrap();
        assert!(file(&root, "outputs/a/b").open().is_err());
        fs::remove_dir_all(root.join("outputs")).unwrap();
        symlink(&secrets, root.join("outputs")).unwrap();
        assert!(file(&root, "outputs/a/b").open().is_err());
        assert!(file(&root, "../secrets/a/b").open().is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_not_read_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&directory.path().join("pipe"), Mode::S_IRWXU).unwrap();
        assert!(file(directory.path(), "pipe").open().is_err());
        assert!(file(directory.path(), "").open().is_err());
    }
}
