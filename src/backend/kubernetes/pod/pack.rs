//! Packing: the worker's prepared directories for the pods, and what a script wrote for the worker.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Component, Path, PathBuf},
};

use tar::{Builder, EntryType, Header};

use crate::{
    backend::attempt_file::open_beneath,
    domain::{
        exchange::{HOME, WORK},
        render::kubernetes as pods,
    },
};

/// Links that are followed into one another, at most.
const MAX_LINKS: usize = 40;

/// Packs what the pods of an attempt begin with: the working directory, and what lies below the pods' home under the given names.
/// What links lead to elsewhere on this machine is packed in their place; links within are kept.
///
/// # Errors
/// When something cannot be read, links go in a circle, or `out` cannot be written.
pub fn pack_bundle(work: &Path, home: &[(&str, PathBuf)], out: File) -> io::Result<File> {
    let mut roots = vec![(work.to_owned(), WORK.to_owned(), pods::area().work.to_owned())];
    for (name, directory) in home {
        roots.push((directory.clone(), format!("{HOME}/{name}"), format!("{}/{name}", pods::HOME)));
    }
    let mut packer = Packer { tar: Builder::new(io::BufWriter::with_capacity(1 << 18, out)), roots: &roots };
    for (directory, name, _) in &roots {
        packer.directory(directory, name, 0)?;
    }
    let mut out = packer.tar.into_inner()?.into_inner().map_err(io::IntoInnerError::into_error)?;
    out.seek(SeekFrom::Start(0))?;
    Ok(out)
}

struct Packer<'a, W: Write> {
    tar: Builder<W>,
    /// Directories that are packed, their names in the tar and in the pods.
    roots: &'a [(PathBuf, String, String)],
}

impl<W: Write> Packer<'_, W> {
    fn directory(&mut self, directory: &Path, name: &str, links: usize) -> io::Result<()> {
        let metadata = fs::metadata(directory).map_err(|error| at(directory, &error))?;
        self.entry(name, &metadata, EntryType::Directory, None)?;
        let mut entries: Vec<_> = fs::read_dir(directory)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|error| at(directory, &error))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let Some(part) = entry.file_name().to_str().map(ToOwned::to_owned) else {
                return Err(at(&path, &io::Error::other("its name is no text")));
            };
            self.path(&path, &format!("{name}/{part}"), links)?;
        }
        Ok(())
    }

    fn path(&mut self, path: &Path, name: &str, links: usize) -> io::Result<()> {
        let metadata = path.symlink_metadata().map_err(|error| at(path, &error))?;
        if metadata.is_symlink() {
            let target = fs::read_link(path).map_err(|error| at(path, &error))?;
            return match self.in_pod(path, &target) {
                Some(target) => self.entry(name, &metadata, EntryType::Symlink, Some(&target)),
                None if links >= MAX_LINKS => Err(at(path, &io::Error::other("links go in a circle"))),
                None => {
                    let real = path.canonicalize().map_err(|error| at(path, &error))?;
                    if fs::metadata(&real)?.is_dir() {
                        self.directory(&real, name, links + 1)
                    } else {
                        self.file(&real, name)
                    }
                }
            };
        }
        if metadata.is_dir() {
            self.directory(path, name, links)
        } else if metadata.is_file() {
            self.file(path, name)
        } else {
            // Sockets and pipes mean nothing elsewhere.
            Ok(())
        }
    }

    /// Where a link leads in a pod, if it leads to something that is packed.
    fn in_pod(&self, link: &Path, target: &Path) -> Option<PathBuf> {
        if target.is_relative() {
            let directory = link.parent()?;
            let is_within = self.roots.iter().any(|(root, ..)| {
                directory.starts_with(root)
                    && stays_within(directory.strip_prefix(root).unwrap_or(directory), target)
            });
            return is_within.then(|| target.to_owned());
        }
        self.roots
            .iter()
            .find_map(|(root, _, place)| Some(Path::new(place).join(target.strip_prefix(root).ok()?)))
    }

    fn file(&mut self, path: &Path, name: &str) -> io::Result<()> {
        let file = File::open(path).map_err(|error| at(path, &error))?;
        let metadata = file.metadata()?;
        append(&mut self.tar, name, &metadata, file)
    }

    fn entry(
        &mut self,
        name: &str,
        metadata: &Metadata,
        kind: EntryType,
        target: Option<&Path>,
    ) -> io::Result<()> {
        let mut header = header(metadata, kind, 0);
        match target {
            Some(target) => self.tar.append_link(&mut header, name, target),
            None => self.tar.append_data(&mut header, name, io::empty()),
        }
    }
}

/// Whether a relative link in a directory stays below where that directory is counted from.
fn stays_within(directory: &Path, target: &Path) -> bool {
    let mut depth = directory.components().count();
    for component in target.components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::CurDir => {}
            _ => return false,
        }
    }
    true
}

fn header(metadata: &Metadata, kind: EntryType, bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(bytes);
    // Whose it is here means nothing there.
    header.set_mode(metadata.permissions().mode() & 0o755 | 0o600);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header
}

/// Exactly as many bytes as the header says: a file that grows meanwhile is cut, one that shrinks is filled up with zeros.
fn append<W: Write>(
    tar: &mut Builder<W>,
    name: &str,
    metadata: &Metadata,
    file: impl Read,
) -> io::Result<()> {
    let bytes = metadata.len();
    let mut header = header(metadata, EntryType::Regular, bytes);
    tar.append_data(&mut header, name, file.take(bytes).chain(io::repeat(0)).take(bytes))
}

fn at(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// One place that a script writes to: where it is, and what it is called in the tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// A directory that the script cannot exchange.
    pub root: PathBuf,
    /// From there.
    pub path: String,
    /// In the tar.
    pub name: String,
}

/// Packs what a script wrote: regular files and directories. Links are left out, wherever they lead; so is what is removed
/// meanwhile.
///
/// # Errors
/// When something cannot be read, or `out` cannot be written.
pub fn pack_returned<W: Write>(places: &[Written], out: W) -> io::Result<W> {
    let mut tar = Builder::new(out);
    for place in places {
        let mut open = vec![(PathBuf::from(&place.path), place.name.clone())];
        while let Some((path, name)) = open.pop() {
            let Some(directory) = there(open_beneath(&place.root, &path, nix::fcntl::OFlag::O_DIRECTORY))?
            else {
                continue;
            };
            let directory = File::from(directory);
            let mut header = header(&directory.metadata()?, EntryType::Directory, 0);
            tar.append_data(&mut header, &name, io::empty())?;
            // Through the handle: whatever is put in the directory's place meanwhile, this one is listed.
            for entry in fs::read_dir(handle_path(&directory))? {
                let entry = entry?;
                let Some(part) = entry.file_name().to_str().map(ToOwned::to_owned) else { continue };
                let Some(kind) = there(entry.file_type())? else { continue };
                let (path, name) = (path.join(&part), format!("{name}/{part}"));
                if kind.is_dir() {
                    open.push((path, name));
                } else if kind.is_file() {
                    let opened = open_beneath(&place.root, &path, nix::fcntl::OFlag::empty());
                    let Some(file) = there(opened)?.map(File::from) else { continue };
                    let metadata = file.metadata()?;
                    if metadata.is_file() {
                        append(&mut tar, &name, &metadata, file)?;
                    }
                }
            }
        }
    }
    tar.into_inner()
}

fn handle_path(directory: &File) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", directory.as_raw_fd()).into()
}

/// What is gone, or has become a link, is not there.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
                || error.raw_os_error() == Some(nix::libc::ELOOP) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
