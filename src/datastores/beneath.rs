//! The way to what lies in a folder: one part after the other, each opened from the one before it, and none through a link.
//!
//! Scripts write into folders that the service reads and writes as itself, which may be root. What a path leads to they can change
//! at any time; what is open they cannot.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat},
    sys::stat::{Mode, SFlag, fstatat, mkdirat},
};

/// Why something cannot be reached.
#[derive(Debug)]
pub(super) enum Blocked {
    /// There is a link at this path, from the folder.
    Link(String),
    /// The machine says so.
    Io(io::Error),
}

impl From<io::Error> for Blocked {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A pipe without a writer would be waited for.
const ALWAYS: OFlag = OFlag::O_CLOEXEC.union(OFlag::O_NOFOLLOW).union(OFlag::O_NONBLOCK);

/// A folder of this machine, open: whatever its path leads to later, this is what is read and written.
pub(super) fn open_root(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    Ok(nix::fcntl::open(path, flags, Mode::empty())?)
}

/// The folder at a path from the root.
pub(super) fn directory(root: &OwnedFd, path: &str) -> Result<OwnedFd, Blocked> {
    walk(root, path, |_, _| Ok(()))
}

/// The same, which is made where it is not there.
pub(super) fn made_directory(root: &OwnedFd, path: &str) -> Result<OwnedFd, Blocked> {
    walk(root, path, |above, name| match mkdirat(above, name, Mode::from_bits_truncate(0o777)) {
        // Or what was promised to be kept would be in a folder that is not.
        Ok(()) => File::from(above.try_clone()?).sync_all(),
        Err(Errno::EEXIST) => Ok(()),
        Err(errno) => Err(errno.into()),
    })
}

fn walk(
    root: &OwnedFd,
    path: &str,
    before: impl Fn(&OwnedFd, &str) -> io::Result<()>,
) -> Result<OwnedFd, Blocked> {
    let mut place = root.try_clone()?;
    let mut walked = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        before(&place, name)?;
        push(&mut walked, name);
        place = step(&place, name.as_ref(), OFlag::O_DIRECTORY, &walked)?;
    }
    Ok(place)
}

/// The regular file at a path from the root.
pub(super) fn file(root: &OwnedFd, path: &str) -> Result<File, Blocked> {
    let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
    let file = File::from(step(&directory(root, above)?, name.as_ref(), OFlag::empty(), path)?);
    // A pipe or a device holds nothing that could be copied.
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::from(io::ErrorKind::NotFound).into()),
    }
}

/// Puts a name behind a path.
pub(super) fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('/');
    }
    path.push_str(name);
}

fn step(above: &impl AsFd, name: &OsStr, flags: OFlag, path: &str) -> Result<OwnedFd, Blocked> {
    match openat(above, name, ALWAYS | OFlag::O_RDONLY | flags, Mode::empty()) {
        Ok(place) => Ok(place),
        // Both are said of a link. What is there by now matters to the message alone.
        Err(Errno::ELOOP | Errno::ENOTDIR) if is_link(above, name) => Err(Blocked::Link(path.to_owned())),
        Err(errno) => Err(Blocked::Io(errno.into())),
    }
}

fn is_link(above: &impl AsFd, name: &OsStr) -> bool {
    let found = fstatat(above, name, AtFlags::AT_SYMLINK_NOFOLLOW);
    found.is_ok_and(|found| SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) == SFlag::S_IFLNK)
}
