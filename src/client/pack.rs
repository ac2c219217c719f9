//! The source directory as an upload: which files, and the archive of them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use ignore::WalkBuilder;
use tar::{Builder, EntryType, Header};

/// The ignore files, the first one that lies in the source directory wins.
const IGNORE_FILES: [&str; 2] = [".amlignore", ".gitignore"];

/// Why a directory cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is no directory.
    #[error("{} is no directory that can be read: {source}", path.display())]
    NoDirectory {
        /// The path.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
    /// An ignore file, or a directory, cannot be read.
    #[error("cannot list the source directory: {0}")]
    List(#[from] ignore::Error),
    /// A link to somewhere else.
    #[error(
        "the link {} leads to {}, outside of the source directory; copy the file in, or ignore the link",
        path.display(), target.display()
    )]
    LinkLeavesTree {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// A link to nothing, or to a directory that it lies in.
    #[error("the link {} leads {what}; remove or ignore it", path.display())]
    BadLink {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        what: &'static str,
    },
    /// A pipe, a socket or a device.
    #[error("{} is neither file, directory nor link; ignore it", path.display())]
    SpecialFile {
        /// The path.
        path: PathBuf,
    },
    /// A name that cannot be written into an archive.
    #[error("the name of {} is not UTF-8; rename or ignore it", path.display())]
    NameNotUtf8 {
        /// The path.
        path: PathBuf,
    },
    /// A file became shorter or longer meanwhile.
    #[error("{} changed while it was read; try again", path.display())]
    Changed {
        /// The path.
        path: PathBuf,
    },
    /// A file cannot be read, or the archive not written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> PackError + use<> {
    let path = path.to_owned();
    move |source| PackError::Io { path, source }
}

/// What is uploaded.
#[derive(Debug)]
pub struct PackingList {
    /// Path in the archive → file on this machine; sorted, so that the archive is always the same.
    pub files: BTreeMap<String, PathBuf>,
    /// The name of the ignore file that was obeyed.
    pub ignore_file: Option<&'static str>,
}

impl PackingList {
    /// Lists the files of a directory: hidden ones too, `.git` and what the ignore files name left out.
    ///
    /// # Errors
    /// When something cannot be read or must not be uploaded.
    pub fn of(directory: &Path) -> Result<Self, PackError> {
        let no_directory = |source| PackError::NoDirectory { path: directory.to_owned(), source };
        let root = directory.canonicalize().map_err(no_directory)?;
        fs::read_dir(&root).map_err(no_directory)?;
        let ignore_file = IGNORE_FILES.into_iter().find(|name| root.join(name).is_file());
        let mut walk = WalkBuilder::new(&root);
        walk.standard_filters(false).follow_links(false).filter_entry(|entry| entry.file_name() != ".git");
        if let Some(name) = ignore_file {
            walk.add_custom_ignore_filename(name);
        }
        let mut list = Self { files: BTreeMap::new(), ignore_file };
        let mut linked_directories = Vec::new();
        for entry in walk.build() {
            let entry = entry?;
            if let Some(error) = entry.error() {
                return Err(error.clone().into());
            }
            let Some(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                continue;
            }
            let name = archive_name(&root, entry.path())?;
            if kind.is_file() {
                list.files.insert(name, entry.into_path());
            } else if kind.is_symlink() {
                let (target, is_directory) = link_target(&root, entry.path())?;
                if is_directory {
                    linked_directories.push((name, archive_name(&root, &target)?));
                } else {
                    list.files.insert(name, target);
                }
            } else {
                return Err(PackError::SpecialFile { path: entry.into_path() });
            }
        }
        list.copy_linked(&linked_directories);
        Ok(list)
    }

    /// A link to a directory becomes a copy of those of its files that are uploaded themselves.
    fn copy_linked(&mut self, links: &[(String, String)]) {
        let mut copies = BTreeMap::new();
        for (link, target) in links {
            let below = format!("{target}/");
            let linked =
                self.files.iter().filter_map(|(name, path)| Some((name.strip_prefix(&below)?, path)));
            copies.extend(linked.map(|(rest, path)| (format!("{link}/{rest}"), path.clone())));
        }
        self.files.extend(copies);
    }

    /// Writes the archive to a nameless temporary file and gives it back, rewound, with its size (blocking).
    /// `written` is told how many bytes of the files were packed so far.
    ///
    /// # Errors
    /// When a file cannot be read or changes meanwhile, or the archive cannot be written.
    pub fn pack(&self, mut written: impl FnMut(u64)) -> Result<(File, u64), PackError> {
        let scratch = std::env::temp_dir();
        let file = tempfile::tempfile().map_err(io_at(&scratch))?;
        let encoder = GzEncoder::new(BufWriter::with_capacity(1 << 16, file), Compression::default());
        let mut builder = Builder::new(encoder);
        let mut total = 0;
        for (name, path) in &self.files {
            let source = File::open(path).map_err(io_at(path))?;
            let metadata = source.metadata().map_err(io_at(path))?;
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(if metadata.permissions().mode() & 0o100 != 0 { 0o755 } else { 0o644 });
            header.set_mtime(0);
            header.set_size(metadata.len());
            let mut content = Counted { inner: source.take(metadata.len() + 1), count: 0 };
            builder.append_data(&mut header, name, &mut content).map_err(io_at(path))?;
            if content.count != metadata.len() {
                return Err(PackError::Changed { path: path.clone() });
            }
            total += metadata.len();
            written(total);
        }
        let mut file = builder
            .into_inner()
            .and_then(GzEncoder::finish)
            .and_then(|writer| writer.into_inner().map_err(io::IntoInnerError::into_error))
            .map_err(io_at(&scratch))?;
        let size = file.flush().and_then(|()| file.seek(SeekFrom::End(0))).map_err(io_at(&scratch))?;
        file.seek(SeekFrom::Start(0)).map_err(io_at(&scratch))?;
        Ok((file, size))
    }

    /// Bytes of all files together, as far as they can be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.values().filter_map(|path| path.metadata().ok()).map(|metadata| metadata.len()).sum()
    }
}

fn archive_name(root: &Path, path: &Path) -> Result<String, PackError> {
    let relative = path.strip_prefix(root).unwrap_or(path);
    relative.to_str().map(str::to_owned).ok_or_else(|| PackError::NameNotUtf8 { path: path.to_owned() })
}

/// Where a link inside the tree leads, and whether that is a directory.
fn link_target(root: &Path, path: &Path) -> Result<(PathBuf, bool), PackError> {
    let bad = |what| PackError::BadLink { path: path.to_owned(), what };
    let target = path.canonicalize().map_err(|_| bad("to nothing"))?;
    let metadata = target.metadata().map_err(io_at(&target))?;
    if !target.starts_with(root) {
        Err(PackError::LinkLeavesTree { path: path.to_owned(), target })
    } else if metadata.is_dir() && path.starts_with(&target) {
        Err(bad("to a directory that it lies in"))
    } else if metadata.is_dir() || metadata.is_file() {
        Ok((target, metadata.is_dir()))
    } else {
        Err(PackError::SpecialFile { path: path.to_owned() })
    }
}

/// Counts what is read, to notice a file that changes.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = directory.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, content).expect("written");
        }
        directory
    }

    fn names(directory: &Path) -> Vec<String> {
        PackingList::of(directory).expect("a list").files.into_keys().collect()
    }

    #[test]
    fn amlignore_wins_over_gitignore_and_nested_ones_count() {
        let directory = tree(&[
            (".amlignore", "*.csv\n!keep.csv\ncache/\n"),
            (".gitignore", "train.py\n"),
            (".hidden", ""),
            (".git/config", ""),
            ("train.py", ""),
            ("a.csv", ""),
            ("keep.csv", ""),
            ("cache/x", ""),
            ("sub/.amlignore", "only-here\n"),
            ("sub/only-here", ""),
            ("sub/other", ""),
            ("only-here", ""),
        ]);
        let expected = [
            ".amlignore",
            ".gitignore",
            ".hidden",
            "keep.csv",
            "only-here",
            "sub/.amlignore",
            "sub/other",
            "train.py",
        ];
        assert_eq!(names(directory.path()), expected);
        fs::remove_file(directory.path().join(".amlignore")).expect("removed");
        assert_eq!(PackingList::of(directory.path()).expect("a list").ignore_file, Some(".gitignore"));
        assert!(!names(directory.path()).contains(&"train.py".to_owned()));
        fs::remove_file(directory.path().join(".gitignore")).expect("removed");
        assert!(names(directory.path()).contains(&"cache/x".to_owned()));
        assert!(names(directory.path()).iter().all(|name| !name.starts_with(".git/")));
    }

    #[test]
    fn links_inside_become_copies_and_others_are_refused() {
        let directory = tree(&[("data/a", "x"), ("data/deep/b", "y"), ("main.py", "")]);
        let root = directory.path();
        symlink("data/a", root.join("alias")).expect("linked");
        symlink("data", root.join("folder")).expect("linked");
        assert_eq!(names(root), ["alias", "data/a", "data/deep/b", "folder/a", "folder/deep/b", "main.py"]);
        symlink("..", root.join("data/up")).expect("linked");
        assert!(matches!(PackingList::of(root), Err(PackError::BadLink { .. })));
        fs::remove_file(root.join("data/up")).expect("removed");
        symlink("/etc/hosts", root.join("outside")).expect("linked");
        assert!(matches!(PackingList::of(root), Err(PackError::LinkLeavesTree { .. })));
        fs::write(root.join(".amlignore"), "outside\n").expect("written");
        assert!(!names(root).contains(&"outside".to_owned()));
    }

    #[test]
    fn the_archive_is_always_the_same() {
        let pack = |directory: &Path| {
            let (mut file, size) = PackingList::of(directory).expect("a list").pack(|_| {}).expect("packed");
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("read");
            assert_eq!(bytes.len() as u64, size);
            bytes
        };
        let files = [("b", "x"), ("a/c", "y")];
        assert_eq!(pack(tree(&files).path()), pack(tree(&files).path()));
    }

    #[test]
    fn what_is_no_directory_is_said_to_be_none() {
        assert!(matches!(PackingList::of(Path::new("/nonexistent")), Err(PackError::NoDirectory { .. })));
    }
}
