//! Unpacking: a bundle into a pod, and what pods sent into the worker's directory.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt as _, symlink},
    path::{Component, Path, PathBuf},
};

use tar::{Archive, EntryType};

use crate::domain::exchange::{HOME, WORK};

/// More than any run writes, and few enough that listing them ends.
const MAX_ENTRIES: usize = 1_000_000;

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Regular files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

fn refused(name: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} in the archive {why}", name.display()))
}

/// The top-level directory of an entry, and its path from there.
fn place(name: &Path) -> io::Result<(&str, PathBuf)> {
    let mut parts = name.components();
    let top = match parts.next() {
        Some(Component::Normal(top)) if top == WORK => WORK,
        Some(Component::Normal(top)) if top == HOME => HOME,
        _ => return Err(refused(name, "is in neither of the two directories that it may be in")),
    };
    let rest = parts.as_path();
    if rest.components().all(|part| matches!(part, Component::Normal(_))) {
        Ok((top, rest.to_owned()))
    } else {
        Err(refused(name, "leads out of its directory"))
    }
}

/// Unpacks a bundle of this service into a pod's directories. What a killed predecessor left half-done is written over.
///
/// # Errors
/// When it is no bundle, breaks off, or the disk fails.
pub fn unpack_bundle(tar: impl Read, work: &Path, home: &Path) -> io::Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let mut archive = Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let (top, rest) = place(&name)?;
        let target = if top == WORK { work.join(rest) } else { home.join(rest) };
        match entry.header().entry_type() {
            EntryType::Directory => fs::create_dir_all(&target)?,
            EntryType::Symlink => {
                let link = entry.link_name()?.ok_or_else(|| refused(&name, "is a link to nowhere"))?;
                remove_file(&target)?;
                symlink(link, &target)?;
            }
            EntryType::Regular => {
                let mode = entry.header().mode()? & 0o755;
                remove_file(&target)?;
                let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?;
                unpacked.bytes += io::copy(&mut entry, &mut file)?;
                unpacked.files += 1;
            }
            _ => return Err(refused(&name, "is neither a file, a directory nor a link")),
        }
    }
    Ok(unpacked)
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Unpacks what a pod sent below `into`, a directory of this service's own. Users' programs run in pods: only regular files and
/// directories are taken, nowhere else than there, and a file that is there already stays as it is.
///
/// # Errors
/// When it is something else, breaks off, or the disk fails.
pub fn unpack_returned(tar: impl Read, into: &Path) -> io::Result<Unpacked> {
    let mut unpacked = Unpacked::default();
    let mut archive = Archive::new(tar);
    for (count, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        if count >= MAX_ENTRIES {
            return Err(refused(&name, &format!("is behind the {MAX_ENTRIES} entries that it may have")));
        }
        let (top, rest) = place(&name)?;
        // No link is ever made here, so that none can be followed.
        let target = into.join(top).join(rest);
        match entry.header().entry_type() {
            EntryType::Directory => match fs::create_dir_all(&target) {
                // Another pod has a file of that name.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            },
            EntryType::Regular => {
                if let Some(parent) = target.parent()
                    && fs::create_dir_all(parent)
                        .is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists)
                {
                    return Err(refused(&name, "has no directory to be in"));
                }
                match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&target) {
                    Ok(mut file) => {
                        unpacked.bytes += io::copy(&mut entry, &mut file)?;
                        unpacked.files += 1;
                    }
                    Err(error)
                        if matches!(
                            error.kind(),
                            io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory
                        ) => {}
                    Err(error) => return Err(error),
                }
            }
            _ => return Err(refused(&name, "is neither a file nor a directory")),
        }
    }
    Ok(unpacked)
}
