//! What a run takes of the disk, as its supervisor measures it: no file system has to be told.

use std::{
    collections::HashSet,
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::{super::super::attempt_file::open_beneath, nameless, shared};

/// Directories within directories beyond which nothing is looked at: a run that goes deeper hides what it writes.
const DEEPEST: usize = 256;
/// In what `st_blocks` counts, whatever the file system's own blocks are.
const BLOCK: u64 = 512;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Found {
    /// So many bytes, or more than was asked about.
    Bytes(u64),
    /// Directories deeper than anybody looks.
    TooDeep,
    /// Nothing yet: there was something else to do.
    Interrupted,
}

/// What is measured.
#[derive(Clone, Debug)]
pub(in super::super) struct DiskUse<'a> {
    /// The attempt's directory.
    pub(in super::super) root: &'a Path,
    /// The run's own user: only its files count, and those that it has elsewhere too.
    pub(in super::super) user: Option<u32>,
}

/// Measures until more than `enough` bytes are found, or `go_on` says no: a tree may be large.
pub(in super::super) fn measure(
    what: &DiskUse<'_>,
    enough: u64,
    go_on: impl Fn() -> bool,
) -> io::Result<Found> {
    let mut open: Vec<(PathBuf, PathBuf)> = vec![(what.root.to_owned(), PathBuf::new())];
    if let Some(user) = what.user {
        for (directory, name) in shared::left_by(user)? {
            open.push((directory, name));
        }
    }
    let (mut seen, mut blocks) = (HashSet::new(), 0_u64);
    let is_counted = |metadata: &fs::Metadata| what.user.is_none_or(|user| metadata.uid() == user);
    // Each is in as many processes as have it open.
    for metadata in nameless::files(what.user)? {
        if is_counted(&metadata) && seen.insert((metadata.dev(), metadata.ino())) {
            blocks += metadata.blocks();
        }
    }
    while let Some((root, path)) = open.pop() {
        if !go_on() {
            return Ok(Found::Interrupted);
        }
        if path.components().count() > DEEPEST {
            return Ok(Found::TooDeep);
        }
        // The script may exchange any of it meanwhile: what is opened is what is listed.
        let handle = match open_beneath(&root, &path, OFlag::empty()) {
            Ok(handle) => fs::File::from(handle),
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        let metadata = handle.metadata()?;
        if is_counted(&metadata) {
            blocks += metadata.blocks();
        }
        if !metadata.is_dir() {
            continue;
        }
        for entry in fs::read_dir(format!("/proc/self/fd/{}", handle.as_raw_fd()))? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            if metadata.is_dir() {
                open.push((root.clone(), path.join(entry.file_name())));
            } else if is_counted(&metadata) && seen.insert((metadata.dev(), metadata.ino())) {
                blocks += metadata.blocks();
            }
        }
        if blocks.saturating_mul(BLOCK) > enough {
            break;
        }
    }
    Ok(Found::Bytes(blocks.saturating_mul(BLOCK)))
}

/// Gone since it was seen, no directory any more, or nothing that can be opened (a socket).
fn is_gone(error: &io::Error) -> bool {
    use nix::libc::{ELOOP, ENXIO};
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || matches!(error.raw_os_error(), Some(ELOOP | ENXIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(root: &Path, enough: u64) -> Found {
        measure(&DiskUse { root, user: None }, enough, || true).unwrap()
    }

    #[test]
    fn what_is_written_is_measured_and_names_of_one_file_count_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        let Found::Bytes(empty) = found(root, u64::MAX) else { panic!("it is small") };
        fs::create_dir(root.join("a")).unwrap();
        fs::write(root.join("a/f"), vec![1; 1 << 20]).unwrap();
        fs::hard_link(root.join("a/f"), root.join("g")).unwrap();
        std::os::unix::fs::symlink("/usr", root.join("link")).unwrap();
        let Found::Bytes(bytes) = found(root, u64::MAX) else { panic!("it is small") };
        assert!((1 << 20..(1 << 20) + 100_000).contains(&(bytes - empty)), "{bytes} {empty}");
        assert!(matches!(found(root, 1000), Found::Bytes(bytes) if bytes > 1000));
    }

    #[test]
    fn a_hole_too_deep_to_look_into_is_told_and_so_is_an_interruption() {
        let directory = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("a", DEEPEST + 1).collect();
        fs::create_dir_all(directory.path().join(deep)).unwrap();
        assert_eq!(found(directory.path(), u64::MAX), Found::TooDeep);
        let interrupted = measure(&DiskUse { root: directory.path(), user: None }, u64::MAX, || false);
        assert_eq!(interrupted.unwrap(), Found::Interrupted);
    }
}
