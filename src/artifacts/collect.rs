//! What is gathered while an archive is read, and the judgement over it as a whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use super::{
    Limits,
    archive::into_file,
    error::{ArtifactsError, SnapshotError},
    names::{ancestors, readable, resolve},
    tree::{Content, Tree, TreeFile},
};

/// Links may lead to links; more steps than this are a circle.
const MAX_LINK_STEPS: usize = 40;

/// A link whose target was found to lie inside the tree.
struct Link {
    /// The path it leads to; `None` is the root.
    leads_to: Option<String>,
    /// As it stands in the archive, for messages.
    target: String,
}

/// Gathers the members of one archive. Contents are appended to one scratch file; only names and positions are
/// kept in memory, and there are at most [`Limits::max_members`] of them.
pub(super) struct Collector<'a> {
    limits: &'a Limits,
    scratch: &'a Path,
    spool: BufWriter<File>,
    written: u64,
    file_start: u64,
    hash: Sha256,
    members: u64,
    files: BTreeMap<String, (Content, bool)>,
    links: BTreeMap<String, Link>,
    directories: BTreeSet<String>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(spool: BufWriter<File>, limits: &'a Limits, scratch: &'a Path) -> Self {
        Self {
            limits,
            scratch,
            spool,
            written: 0,
            file_start: 0,
            hash: Sha256::new(),
            members: 0,
            files: BTreeMap::new(),
            links: BTreeMap::new(),
            directories: BTreeSet::new(),
        }
    }

    pub(super) const fn max_unpacked_bytes(&self) -> u64 {
        self.limits.max_unpacked_bytes
    }

    pub(super) const fn max_members(&self) -> u64 {
        self.limits.max_members()
    }

    pub(super) const fn too_many_files(&self) -> SnapshotError {
        SnapshotError::TooManyFiles { limit: self.limits.max_files }
    }

    /// One more member of whatever kind.
    pub(super) const fn count_member(&mut self) -> Result<(), SnapshotError> {
        self.members += 1;
        if self.members > self.max_members() { Err(self.too_many_files()) } else { Ok(()) }
    }

    /// Some bytes of the file that is being read.
    pub(super) fn content(&mut self, bytes: &[u8], entry: &str) -> Result<(), SnapshotError> {
        self.written += bytes.len() as u64;
        if self.written > self.limits.max_unpacked_bytes {
            return Err(self.too_many_bytes(entry));
        }
        self.hash.update(bytes);
        let failed = ArtifactsError::io("cannot write a scratch file in", self.scratch);
        self.spool.write_all(bytes).map_err(|error| failed(error).into())
    }

    fn too_many_bytes(&self, entry: &str) -> SnapshotError {
        SnapshotError::TooManyBytes { limit: self.limits.max_unpacked_bytes, entry: entry.to_owned() }
    }

    /// The end of the file that was being read.
    pub(super) fn file(&mut self, path: String, executable: bool) -> Result<(), SnapshotError> {
        let content = Content {
            offset: self.file_start,
            bytes: self.written - self.file_start,
            sha256: std::mem::take(&mut self.hash).finalize().into(),
        };
        self.file_start = self.written;
        self.check_name(&path)?;
        self.files.insert(path, (content, executable));
        Ok(())
    }

    /// A link.
    pub(super) fn link(
        &mut self,
        path: String,
        target: Vec<u8>,
        from_root: bool,
    ) -> Result<(), SnapshotError> {
        let leads_to = resolve(&path, &target, from_root)?;
        self.check_name(&path)?;
        self.links.insert(path, Link { leads_to, target: readable(&target) });
        Ok(())
    }

    /// A directory. It is only remembered to find clashes: empty directories are not kept.
    pub(super) fn directory(&mut self, path: String) -> Result<(), SnapshotError> {
        if self.is_file(&path) {
            return Err(SnapshotError::FileAndDirectory { entry: path });
        }
        self.directories.insert(path);
        Ok(())
    }

    fn is_file(&self, path: &str) -> bool {
        self.files.contains_key(path) || self.links.contains_key(path)
    }

    fn check_name(&self, path: &str) -> Result<(), SnapshotError> {
        if (self.files.len() + self.links.len()) as u64 >= self.limits.max_files {
            Err(self.too_many_files())
        } else if self.is_file(path) {
            Err(SnapshotError::Duplicate { entry: path.to_owned() })
        } else if self.directories.contains(path) {
            Err(SnapshotError::FileAndDirectory { entry: path.to_owned() })
        } else {
            Ok(())
        }
    }

    /// Everything was read: files that are also directories, links.
    pub(super) fn finish(mut self) -> Result<Tree, SnapshotError> {
        let paths = self.files.keys().chain(self.links.keys()).chain(&self.directories);
        for ancestor in paths.flat_map(|path| ancestors(path)) {
            if self.is_file(ancestor) {
                return Err(SnapshotError::FileAndDirectory { entry: ancestor.to_owned() });
            }
        }
        // A link is stored as a copy of what it leads to, which counts like any other file.
        let found = self.links.iter().map(|(path, link)| Ok((path.clone(), self.follow(path, link)?)));
        for (path, file) in found.collect::<Result<Vec<_>, SnapshotError>>()? {
            self.written = self.written.saturating_add(file.0.bytes);
            if self.written > self.limits.max_unpacked_bytes {
                return Err(self.too_many_bytes(&path));
            }
            self.files.insert(path, file);
        }
        let files = self.files.into_iter();
        let files =
            files.map(|(path, (content, executable))| TreeFile { path, executable, content }).collect();
        Ok(Tree { spool: into_file(self.spool, self.scratch)?, files })
    }

    fn follow(&self, path: &str, link: &Link) -> Result<(Content, bool), SnapshotError> {
        let mut at = link.leads_to.as_deref();
        for _ in 0..MAX_LINK_STEPS {
            let Some(target) = at else { break };
            if let Some(found) = self.files.get(target) {
                return Ok(*found);
            }
            let Some(next) = self.links.get(target) else { break };
            at = next.leads_to.as_deref();
        }
        Err(SnapshotError::LinkToNoFile { entry: path.to_owned(), target: link.target.clone() })
    }
}
