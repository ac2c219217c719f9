//! A folder of this machine as a store of objects, out of which nothing leads.
//!
//! The crate's own one opens paths, and so follows every link that a script puts into the folder.

use std::{
    fmt,
    fs::{self, File, Metadata},
    io::{self, Write as _},
    ops::Range,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileExt as _, MetadataExt as _},
        },
    },
    path::PathBuf,
    sync::Arc,
};

use async_trait::async_trait;
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream, stream::BoxStream};
use nix::{
    fcntl::{AtFlags, OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, linkat, unlinkat},
};
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
    path::{Error as PathError, Path},
};
use percent_encoding::{CONTROLS, percent_encode};

use super::beneath::{self, Blocked};

/// Directories within directories beyond which nothing is looked at.
const DEEPEST: usize = 256;
/// What files are called while they are written: not listed.
const PARTIAL: &str = ".estimatord-partial-";

/// What a path leads through.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is a symbolic link")]
pub(super) struct Linked(pub(super) String);

/// The folder.
#[derive(Clone)]
pub(super) struct Folder {
    root: Arc<OwnedFd>,
    /// Where it is, to people.
    path: PathBuf,
}

impl fmt::Debug for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Folder({})", self.path.display())
    }
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the folder {}", self.path.display())
    }
}

impl Folder {
    /// Opens it. Its own path may lead through links.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self { root: Arc::new(beneath::open_root(&path)?), path })
    }

    /// Where it really is, which the kernel tells of what is open.
    pub(super) fn real_path(&self) -> io::Result<PathBuf> {
        fs::read_link(format!("/proc/self/fd/{}", self.root.as_raw_fd()))
    }

    /// Where something in it really is, which no link leads to.
    pub(super) fn real_path_of(&self, path: &str) -> Result<PathBuf> {
        let opened = match beneath::directory(&self.root, path) {
            Err(Blocked::Io(error)) if error.kind() == io::ErrorKind::NotADirectory => {
                beneath::file(&self.root, path).map(OwnedFd::from)
            }
            opened => opened,
        };
        let opened = opened.map_err(|error| blocked(path, error))?;
        fs::read_link(format!("/proc/self/fd/{}", opened.as_raw_fd())).map_err(|error| failed(path, error))
    }

    /// Everything below a folder in it.
    fn list_all(&self, from: &str) -> Result<Vec<ObjectMeta>> {
        let (mut found, mut open) = (Vec::new(), vec![from.to_owned()]);
        while let Some(path) = open.pop() {
            if path.split('/').count() > DEEPEST {
                return Err(failed(&path, io::Error::other("its folders are nested too deep")));
            }
            let folder = match beneath::directory(&self.root, &path) {
                Ok(folder) => folder,
                // As of a bucket: below what is not there, there is nothing.
                Err(Blocked::Io(error)) if is_absent(&error) => continue,
                Err(error) => return Err(blocked(&path, error)),
            };
            list_one(&folder, &path, &mut found, &mut open)?;
        }
        Ok(found)
    }

    /// A file that is to be at a location once it is whole.
    fn stage(&self, location: &Path) -> Result<Staged> {
        let path = location.as_ref();
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = beneath::made_directory(&self.root, above).map_err(|error| match error {
            Blocked::Io(error) if error.kind() == io::ErrorKind::NotADirectory => {
                failed(path, io::Error::other("something that is no folder is on the way"))
            }
            error => blocked(path, error),
        })?;
        let staged = format!("{PARTIAL}{:032x}", rand::random::<u128>());
        let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_WRONLY;
        let file = openat(&directory, staged.as_str(), flags, Mode::from_bits_truncate(0o666));
        let file = File::from(file.map_err(|errno| failed(path, errno.into()))?);
        Ok(Staged { directory, staged: Some(staged), name: name.to_owned(), path: path.to_owned(), file })
    }
}

/// Adds the files of one folder, and the folders in it that are still to be looked into.
fn list_one(folder: &OwnedFd, path: &str, found: &mut Vec<ObjectMeta>, open: &mut Vec<String>) -> Result<()> {
    let unreadable = |error| failed(path, error);
    for entry in fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd())).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        if name.as_bytes().starts_with(PARTIAL.as_bytes()) {
            continue;
        }
        // Of the entry itself, wherever it leads.
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if is_absent(&error) => continue,
            Err(error) => return Err(unreadable(error)),
        };
        let mut whole = path.to_owned();
        let name = match str::from_utf8(name.as_bytes()) {
            Ok(name) => name,
            Err(source) => {
                beneath::push(&mut whole, &percent_encode(name.as_bytes(), CONTROLS).to_string());
                return Err(PathError::NonUnicode { path: whole, source }.into());
            }
        };
        beneath::push(&mut whole, name);
        if metadata.is_symlink() {
            return Err(blocked(path, Blocked::Link(whole)));
        } else if metadata.is_dir() {
            open.push(whole);
        } else if metadata.is_file() {
            found.push(meta(&metadata, Path::parse(&whole)?));
        }
    }
    Ok(())
}

/// A file that is being written. Dropped before it is published, it is gone.
struct Staged {
    directory: OwnedFd,
    /// What it is called; nothing once it is published.
    staged: Option<String>,
    /// What it is to be called.
    name: String,
    path: String,
    file: File,
}

impl Staged {
    fn publish(mut self, mode: &PutMode) -> Result<PutResult> {
        let published = self.try_to_publish(mode).map_err(|error| failed(&self.path, error));
        published.map(|e_tag| PutResult { e_tag: Some(e_tag), version: None, extensions: Default::default() })
    }

    fn try_to_publish(&mut self, mode: &PutMode) -> io::Result<String> {
        self.file.sync_all()?;
        let e_tag = e_tag(&self.file.metadata()?);
        let staged = self.staged.as_deref().unwrap_or_default();
        let (directory, name) = (&self.directory, self.name.as_str());
        if matches!(mode, PutMode::Create) {
            // Fails where something is. The other name goes with this.
            linkat(directory, staged, directory, name, AtFlags::empty())?;
        } else {
            // Whatever was there, a link too, is replaced and not written into.
            renameat(directory, staged, directory, name)?;
            self.staged = None;
        }
        File::from(self.directory.try_clone()?).sync_all()?;
        Ok(e_tag)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if let Some(staged) = &self.staged
            && let Err(errno) = unlinkat(&self.directory, staged.as_str(), UnlinkatFlags::NoRemoveDir)
        {
            tracing::warn!("a file that was not sent whole is left beside {}: {errno}", self.path);
        }
    }
}

/// A large file, in parts.
struct Parts {
    staged: Option<Arc<Staged>>,
    bytes: u64,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Parts {
    fn take(&mut self) -> Result<Arc<Staged>> {
        self.staged.take().ok_or_else(|| failed("", io::Error::other("the file was finished before")))
    }
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (staged, mut at) = (self.staged.clone(), self.bytes);
        self.bytes += data.content_length() as u64;
        blocking(move || {
            let staged =
                staged.ok_or_else(|| failed("", io::Error::other("the file was finished before")))?;
            for piece in &data {
                staged.file.write_all_at(piece, at).map_err(|error| failed(&staged.path, error))?;
                at += piece.len() as u64;
            }
            Ok(())
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let staged = self.take()?;
        blocking(move || {
            let path = staged.path.clone();
            let staged = Arc::into_inner(staged);
            let staged =
                staged.ok_or_else(|| failed(&path, io::Error::other("a part of it is being written")))?;
            staged.publish(&PutMode::Overwrite)
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        self.take().map(drop)
    }
}

#[async_trait]
impl ObjectStore for Folder {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let (folder, location) = (self.clone(), location.clone());
        blocking(move || {
            let mut staged = folder.stage(&location)?;
            for piece in &payload {
                staged.file.write_all(piece).map_err(|error| failed(location.as_ref(), error))?;
            }
            staged.publish(&options.mode)
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let (folder, location) = (self.clone(), location.clone());
        let staged = blocking(move || folder.stage(&location)).await?;
        Ok(Box::new(Parts { staged: Some(Arc::new(staged)), bytes: 0 }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let (folder, location) = (self.clone(), location.clone());
        blocking(move || {
            let path = location.as_ref();
            let file = beneath::file(&folder.root, path).map_err(|error| blocked(path, error))?;
            let metadata = file.metadata().map_err(|error| failed(path, error))?;
            let shown = folder.path.join(path);
            let meta = meta(&metadata, location);
            options.check_preconditions(&meta)?;
            Ok(GetResult {
                range: Range { start: 0, end: meta.size },
                payload: GetResultPayload::File(file, shown),
                attributes: Default::default(),
                extensions: Default::default(),
                meta,
            })
        })
        .await
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (folder, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        stream::once(blocking(move || folder.list_all(prefix.as_ref())))
            .map_ok(|found| stream::iter(found.into_iter().map(Ok)))
            .try_flatten()
            .boxed()
    }

    // Nobody here deletes, copies, or lists by levels.

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([Err(self.not_for("deleting"))]).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(self.not_for("listing by levels"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(self.not_for("copying"))
    }
}

impl Folder {
    fn not_for(&self, operation: &str) -> Error {
        Error::NotImplemented { operation: operation.to_owned(), implementer: self.to_string() }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

fn meta(metadata: &Metadata, location: Path) -> ObjectMeta {
    let modified = metadata.modified().unwrap_or(std::time::SystemTime::UNIX_EPOCH);
    ObjectMeta {
        location,
        last_modified: modified.into(),
        size: metadata.len(),
        e_tag: Some(e_tag(metadata)),
        version: None,
    }
}

/// What a file that was replaced or written into has not in common with the one before.
fn e_tag(metadata: &Metadata) -> String {
    let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
    format!("\"{:x}-{seconds:x}.{nanoseconds:x}-{:x}\"", metadata.ino(), metadata.len())
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn blocked(path: &str, error: Blocked) -> Error {
    match error {
        Blocked::Link(link) => {
            Error::PermissionDenied { path: path.to_owned(), source: Box::new(Linked(link)) }
        }
        Blocked::Io(error) => failed(path, error),
    }
}

fn failed(path: &str, error: io::Error) -> Error {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            Error::NotFound { path, source: Box::new(error) }
        }
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: Box::new(error) },
        io::ErrorKind::PermissionDenied => Error::PermissionDenied { path, source: Box::new(error) },
        _ => Error::Generic { store: "a folder", source: Box::new(error) },
    }
}
