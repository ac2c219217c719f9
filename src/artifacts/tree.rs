//! A source tree in its one canonical form: an id that depends on paths, contents and executable bits alone, and
//! a plain tar that the store keeps.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, BufReader, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

use super::{keys::hex, names::normalise};
use crate::domain::ids::SnapshotId;

/// Where a file's content lies in the scratch file, and what it is.
#[derive(Clone, Copy)]
pub(super) struct Content {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) sha256: [u8; 32],
}

/// One file of a tree.
pub(super) struct TreeFile {
    pub(super) path: String,
    pub(super) executable: bool,
    pub(super) content: Content,
}

/// A tree whose contents lie in a scratch file. Sorted by path.
pub(super) struct Tree {
    pub(super) spool: File,
    pub(super) files: Vec<TreeFile>,
}

impl Tree {
    pub(super) fn id(&self) -> SnapshotId {
        let mut manifest = Manifest::default();
        for file in &self.files {
            manifest.add(&file.path, file.executable, file.content.bytes, file.content.sha256);
        }
        manifest.id()
    }

    /// Writes the canonical tar (blocking): sorted, nothing of owner, time or mode but the executable bit.
    pub(super) fn write_tar(&self, into: impl Write) -> io::Result<()> {
        let mut builder = Builder::new(into);
        for file in &self.files {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::Regular);
            header.set_mode(mode(file.executable));
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(file.content.bytes);
            let mut spool = &self.spool;
            spool.seek(SeekFrom::Start(file.content.offset))?;
            builder.append_data(&mut header, &file.path, spool.take(file.content.bytes))?;
        }
        builder.into_inner()?.flush()
    }
}

const fn mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

/// What a snapshot's id is the hash of: one line per file, in the order of paths. No path holds a control
/// character, so that lines cannot be forged.
#[derive(Default)]
struct Manifest(Sha256);

impl Manifest {
    fn add(&mut self, path: &str, executable: bool, bytes: u64, sha256: [u8; 32]) {
        let kind = if executable { 'x' } else { '-' };
        self.0.update(format!("{kind} {bytes} {} {path}\n", hex(&sha256)));
    }

    fn id(self) -> SnapshotId {
        SnapshotId::from_digest(self.0.finalize().into())
    }
}

/// Why a stored tar could not be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoredTreeError {
    #[error("{0}")]
    Damaged(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Unpacks a canonical tar into an empty directory (blocking) and checks it against its id, so that a damaged
/// object is never run.
pub(super) fn unpack(tar: File, id: &SnapshotId, into: &Path) -> Result<(), StoredTreeError> {
    if fs::read_dir(into)?.next().is_some() {
        return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty").into());
    }
    let mut manifest = Manifest::default();
    let mut archive = Archive::new(BufReader::with_capacity(1 << 16, tar));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = stored_path(&entry)?;
        let executable = entry.header().mode()? & 0o100 != 0;
        let place = into.join(&path);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode(executable)).open(&place)?;
        let (bytes, sha256) = copy_hashed(&mut entry, &mut file)?;
        // The umask may have taken bits away, or left fewer than the script needs.
        file.set_permissions(Permissions::from_mode(mode(executable)))?;
        manifest.add(&path, executable, bytes, sha256);
    }
    let found = manifest.id();
    if found == *id {
        Ok(())
    } else {
        Err(StoredTreeError::Damaged(format!("its content has the id {found}")))
    }
}

/// The content of some files (blocking); contents of the others are skipped without being read.
pub(super) fn contents(
    tar: File,
    mut wanted: impl FnMut(&str) -> bool,
    max_bytes_each: u64,
) -> Result<Vec<(String, Vec<u8>)>, StoredTreeError> {
    let mut found = Vec::new();
    for entry in Archive::new(tar).entries_with_seek()? {
        let mut entry = entry?;
        let path = stored_path(&entry)?;
        if wanted(&path) && entry.size() <= max_bytes_each {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found.push((path, content));
        }
    }
    Ok(found)
}

fn stored_path<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, StoredTreeError> {
    match normalise(&entry.path_bytes(), false) {
        Ok(Some(path)) if entry.header().entry_type().is_file() => Ok(path),
        Ok(_) => Err(StoredTreeError::Damaged("it holds something that is no file".to_owned())),
        Err(error) => Err(StoredTreeError::Damaged(error.to_string())),
    }
}

fn copy_hashed(from: &mut impl Read, into: &mut File) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((total, hash.finalize().into())),
            Ok(count) => {
                hash.update(&buffer[..count]);
                into.write_all(&buffer[..count])?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
