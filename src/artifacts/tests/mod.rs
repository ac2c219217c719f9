//! The store as a whole, fed with archives made by hand.

mod exchange;
mod hostile_tar;
mod hostile_zip;
mod objects;
mod snapshots;

use std::{
    convert::Infallible,
    io::{Cursor, Write as _},
    path::Path,
};

use bytes::Bytes;
use futures_util::stream;
use tar::{EntryType, Header};
use tempfile::TempDir;

use super::{ArchiveFormat, Artifacts, Limits, ReceivedSnapshot, SnapshotError};

/// A store in a directory of its own, and small limits.
struct Bench {
    directory: TempDir,
    artifacts: Artifacts,
    limits: Limits,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let artifacts = Artifacts::open(&directory.path().join("store"), &directory.path().join("scratch"));
        let limits = Limits { max_unpacked_bytes: 100_000, max_files: 20, max_upload_bytes: 300_000 };
        Self { artifacts: artifacts.expect("a store"), directory, limits }
    }

    async fn receive(
        &self,
        format: ArchiveFormat,
        archive: &[u8],
    ) -> Result<ReceivedSnapshot, SnapshotError> {
        let pieces: Vec<_> =
            archive.chunks(1000).map(|piece| Ok::<_, Infallible>(Bytes::copy_from_slice(piece))).collect();
        self.artifacts.receive_snapshot(format, stream::iter(pieces), &self.limits).await
    }

    /// The refusal of an archive, after which nothing of it may be left.
    async fn refusal(&self, format: ArchiveFormat, archive: &[u8]) -> SnapshotError {
        let error = self.receive(format, archive).await.expect_err("a refusal");
        assert_eq!(files_below(self.directory.path()), Vec::<String>::new(), "left after: {error}");
        error
    }
}

fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files_below(&path));
        } else {
            found.push(path.display().to_string());
        }
    }
    found
}

/// A tar under construction, without the checks of a library.
#[derive(Default)]
struct RawTar(Vec<u8>);

impl RawTar {
    /// A member with exactly this name field, type and content.
    fn member(self, kind: EntryType, name: &[u8], link: &[u8], content: &[u8]) -> Self {
        self.member_of_size(kind, name, link, content, content.len() as u64)
    }

    fn member_of_size(
        mut self,
        kind: EntryType,
        name: &[u8],
        link: &[u8],
        content: &[u8],
        size: u64,
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(size);
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name);
        fields.linkname[..link.len()].copy_from_slice(link);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, content: &[u8]) -> Self {
        self.member(EntryType::Regular, name.as_bytes(), b"", content)
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.member(EntryType::Symlink, name.as_bytes(), target.as_bytes(), b"")
    }

    /// A pax header for the member that follows.
    fn pax(self, kind: EntryType, records: &[(&str, &str)]) -> Self {
        let mut data = String::new();
        for (key, value) in records {
            let rest = format!(" {key}={value}\n");
            let mut length = rest.len() + 1;
            while length != rest.len() + length.to_string().len() {
                length += 1;
            }
            data.push_str(&format!("{length}{rest}"));
        }
        self.member(kind, b"pax", b"", data.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

/// A file of a test's tree: path, content, executable.
type TestFile<'a> = (&'a str, &'a [u8], bool);

fn tar_of(files: &[TestFile<'_>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content, executable) in files {
        let mut header = Header::new_ustar();
        header.set_mode(if *executable { 0o6775 } else { 0o600 });
        header.set_uid(1000);
        header.set_mtime(1_600_000_000);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).expect("memory");
    }
    builder.into_inner().expect("memory")
}

fn zip_of(files: &[TestFile<'_>]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (path, content, executable) in files {
        let options = zip::write::SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .unix_permissions(if *executable { 0o755 } else { 0o640 });
        writer.start_file(*path, options).expect("memory");
        writer.write_all(content).expect("memory");
    }
    writer.finish().expect("memory").into_inner()
}
