//! Removing a tree that a script made.
//!
//! Not the standard library's way, which goes down as deep as the tree does and keeps a directory open at each step: some ten
//! thousand nested directories end the process that does it. Here one directory is open at a time, and the way back is `..`.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open, openat},
    libc::{dev_t, ino_t},
    sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};

/// How often somebody may put something into a directory that is about to be removed.
const CONTESTED: u32 = 1000;
const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// A directory on the way down.
struct Level {
    name: OsString,
    /// By which it is known again on the way up.
    identity: (dev_t, ino_t),
    /// What is still in it.
    rest: Vec<OsString>,
}

impl Level {
    fn of(directory: &OwnedFd, name: OsString) -> io::Result<Self> {
        Ok(Self { name, identity: identity(directory)?, rest: list(directory)? })
    }
}

/// Removes what is at a path, also a tree in which a script took away its own permissions; nothing there is as good. No link is
/// followed, whatever is put in the way meanwhile.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no path to remove"));
    };
    let parent = match open(parent, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    if remove_file(&parent, name)? {
        return Ok(());
    }
    let mut contested = 0;
    loop {
        empty(open_directory(&parent, name)?, &mut contested)?;
        if remove_directory(&parent, name, &mut contested)? {
            return Ok(());
        }
    }
}

/// Removes everything in a directory.
fn empty(root: OwnedFd, contested: &mut u32) -> io::Result<()> {
    let mut levels = vec![Level::of(&root, OsString::new())?];
    let mut current = root;
    loop {
        let Some(level) = levels.last_mut() else { return Ok(()) };
        if let Some(name) = level.rest.pop() {
            if !remove_file(&current, &name)? {
                current = open_directory(&current, &name)?;
                levels.push(Level::of(&current, name)?);
            }
            continue;
        }
        let emptied = levels.pop();
        let (Some(Level { name, .. }), Some(above)) = (emptied, levels.last_mut()) else { return Ok(()) };
        current = openat(&current, "..", DIRECTORY, Mode::empty())?;
        if identity(&current)? != above.identity {
            return Err(io::Error::other("a directory was moved while it was removed"));
        }
        if !remove_directory(&current, &name, contested)? {
            above.rest.push(name);
        }
    }
}

fn identity(directory: &OwnedFd) -> io::Result<(dev_t, ino_t)> {
    let found = fstat(directory)?;
    Ok((found.st_dev, found.st_ino))
}

/// Removes what is no directory; false where it is one.
fn remove_file(parent: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Removes an empty directory; false where it is not empty.
fn remove_directory(parent: impl AsFd, name: &OsStr, contested: &mut u32) -> io::Result<bool> {
    match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) if *contested < CONTESTED => {
            *contested += 1;
            Ok(false)
        }
        Err(errno) => Err(errno.into()),
    }
}

/// Opens a directory, and makes it one whose content can be listed and removed.
fn open_directory(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let opened = match openat(&parent, name, DIRECTORY, Mode::empty()) {
        Err(Errno::EACCES) => {
            fchmodat(&parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            openat(&parent, name, DIRECTORY, Mode::empty())?
        }
        opened => opened?,
    };
    let mode = Mode::from_bits_truncate(fstat(&opened)?.st_mode);
    if !mode.contains(Mode::S_IRWXU) {
        fchmod(&opened, Mode::S_IRWXU)?;
    }
    Ok(opened)
}

fn list(directory: &OwnedFd) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_is_nested_deeper_than_any_stack_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        fs::create_dir(&root).unwrap();
        let mut deepest = open(&root, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..4000 {
            nix::sys::stat::mkdirat(&deepest, "a", Mode::S_IRWXU).unwrap();
            deepest = openat(&deepest, "a", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(deepest);
        // As deep for this stack as 30,000 are for the usual one.
        let (tree, small) = (root.clone(), std::thread::Builder::new().stack_size(256 << 10));
        small.spawn(move || remove_tree(&tree).unwrap()).unwrap().join().unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn closed_directories_are_removed_and_links_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (root, kept) = (directory.path().join("tree"), directory.path().join("kept"));
        fs::create_dir_all(root.join("a/b/c")).unwrap();
        fs::write(root.join("a/b/file"), "").unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "kept").unwrap();
        symlink(&kept, root.join("a/link")).unwrap();
        for closed in ["a/b", "a"] {
            fs::set_permissions(root.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_tree(&root).unwrap();
        assert!(!root.exists());
        assert_eq!(fs::read_to_string(kept.join("file")).unwrap(), "kept");
        symlink(&kept, &root).unwrap();
        remove_tree(&root).unwrap();
        assert!(root.symlink_metadata().is_err() && kept.join("file").exists());
        remove_tree(&root).unwrap();
        remove_tree(&root.join("nowhere/at/all")).unwrap();
    }
}
