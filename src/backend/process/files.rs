//! Listing what an attempt wrote.

use std::{
    collections::HashSet,
    ffi::OsString,
    fs, io,
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;

use super::super::{AttemptFile, attempt_file::open_beneath};

pub(super) use super::remove::remove_tree;

/// Directories within directories beyond which nothing is collected. No datastore takes such names, and each costs a walk from the root.
const DEEPEST: usize = 256;

/// The regular files below the directory `below` of `root`, named from `prefix` on, sorted by name. Links are never
/// followed: a script could point them anywhere.
pub(in crate::backend) fn list(root: &Path, below: &str, prefix: &str) -> io::Result<Vec<AttemptFile>> {
    let mut files = Vec::new();
    let mut open: Vec<(PathBuf, String)> = vec![(below.into(), prefix.to_owned())];
    while let Some((directory, prefix)) = open.pop() {
        let handle = match open_beneath(root, &directory, OFlag::O_DIRECTORY) {
            Ok(handle) => handle,
            Err(error) if is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        // Through the handle: whatever is put in the directory's place meanwhile, this one is listed.
        let entries = fs::read_dir(format!("/proc/self/fd/{}", handle.as_raw_fd()))?;
        let entries = entries.collect::<io::Result<Vec<_>>>()?;
        let taken: HashSet<String> =
            entries.iter().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        for entry in entries {
            let name = format!("{prefix}{}", text_name(entry.file_name(), &taken));
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if is_gone(&error) => continue,
                Err(error) => return Err(error),
            };
            let path = directory.join(entry.file_name());
            if metadata.is_dir() {
                if path.components().count() <= DEEPEST {
                    open.push((path, format!("{name}/")));
                }
            } else if metadata.is_file() {
                files.push(AttemptFile { name, root: root.to_owned(), path, bytes: metadata.len() });
            }
        }
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// What the script's module was copying to the outputs when it ended.
pub(in crate::backend) fn is_partial_upload(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|name| name.starts_with(".estimatord-"))
}

/// Never there, removed by the script since it was seen, or no directory any more (a link is none).
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The name as text. Bytes that are none are written `%FF`, and `%` beside them `%25`: two names never become one. Where
/// the result is the name of another file, `%` is escaped once more.
fn text_name(name: OsString, taken: &HashSet<String>) -> String {
    let bytes = match name.into_string() {
        Ok(name) => return name,
        Err(name) => name.into_vec(),
    };
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(&chunk.valid().replace('%', "%25"));
        text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02X}")));
    }
    while taken.contains(&text) {
        text = text.replace('%', "%25");
    }
    text
}

/// The entries of a directory; none when it is not there.
pub(super) fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// What a tree takes of the disk, in bytes: a file with several names in it counts once.
pub(super) fn disk_usage(root: &Path) -> io::Result<u64> {
    /// In what `st_blocks` counts, whatever the file system's own blocks are.
    const BLOCK: u64 = 512;
    let mut seen = HashSet::new();
    let mut blocks = fs::symlink_metadata(root)?.blocks();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in entries(&directory)? {
            let metadata = entry.metadata()?;
            if metadata.nlink() == 1 || metadata.is_dir() || seen.insert((metadata.dev(), metadata.ino())) {
                blocks += metadata.blocks();
            }
            if metadata.is_dir() {
                open.push(entry.path());
            }
        }
    }
    Ok(blocks * BLOCK)
}

/// Copies a tree, links as links.
pub(super) fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (kind, target) = (entry.file_type()?, to.join(entry.file_name()));
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_name_and_links_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("outputs");
        fs::create_dir_all(root.join("b/c")).unwrap();
        fs::write(root.join("b/c/deep.txt"), "12345").unwrap();
        fs::write(root.join("a.txt"), "1").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("leak")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("leaks")).unwrap();
        let files = list(directory.path(), "outputs", "x/").unwrap();
        let names: Vec<_> = files.iter().map(|file| (file.name.as_str(), file.bytes)).collect();
        assert_eq!(names, [("x/a.txt", 1), ("x/b/c/deep.txt", 5)]);
    }

    #[test]
    fn what_has_several_names_takes_its_place_once() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("tree");
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::write(root.join("file"), vec![1; 100_000]).unwrap();
        let once = disk_usage(&root).unwrap();
        assert!((100_000..200_000).contains(&once), "{once}");
        fs::hard_link(root.join("file"), root.join("sub/again")).unwrap();
        std::os::unix::fs::symlink("/", root.join("elsewhere")).unwrap();
        assert!(disk_usage(&root).unwrap() < once + 50_000);
        fs::copy(root.join("file"), root.join("copy")).unwrap();
        assert!(disk_usage(&root).unwrap() >= once + 100_000);
    }

    #[test]
    fn what_is_nested_too_deep_is_left_out() {
        let directory = tempfile::tempdir().unwrap();
        let deep: PathBuf = std::iter::repeat_n("d", DEEPEST + 1).collect();
        fs::create_dir_all(directory.path().join(&deep)).unwrap();
        fs::write(directory.path().join(&deep).join("too-deep"), "").unwrap();
        fs::write(directory.path().join("d/file"), "").unwrap();
        let files = list(directory.path(), "", "").unwrap();
        assert_eq!(files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>(), ["d/file"]);
    }

    #[test]
    fn names_that_are_no_text_stay_apart() {
        let directory = tempfile::tempdir().unwrap();
        let names: [&[u8]; 5] = [b"a\xff", b"a\xfe", b"a%FF", b"b%\xff", b"c%FF"];
        for name in names {
            fs::write(directory.path().join(OsString::from_vec(name.to_vec())), name).unwrap();
        }
        let files = list(directory.path(), "", "").unwrap();
        let listed: Vec<_> = files
            .iter()
            .map(|file| (file.name.as_str(), fs::read(file.root.join(&file.path)).unwrap()))
            .collect();
        let expected: [(&str, &[u8]); 5] = [
            ("a%25FF", b"a\xff"),
            ("a%FE", b"a\xfe"),
            ("a%FF", b"a%FF"),
            ("b%25%FF", b"b%\xff"),
            ("c%FF", b"c%FF"),
        ];
        assert_eq!(listed, expected.map(|(name, content)| (name, content.to_vec())));
    }

    #[test]
    fn a_directory_that_is_a_link_or_missing_holds_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(list(directory.path(), "outputs", "").unwrap().is_empty());
        std::os::unix::fs::symlink("/etc", directory.path().join("outputs")).unwrap();
        assert!(list(directory.path(), "outputs", "").unwrap().is_empty());
    }
}
