//! Reading archives that strangers send. Nothing of an archive touches the file system under a name of
//! its own: contents go into one nameless scratch file, names stay in memory until all of them were judged.

mod tar;
mod zip;

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek as _, Write as _},
    path::Path,
};

use flate2::read::MultiGzDecoder;

use super::{
    ArchiveFormat, Limits,
    collect::Collector,
    error::{ArtifactsError, SnapshotError},
    tree::Tree,
};

/// Reads a whole upload (blocking). `scratch` is where the nameless file for the contents is made.
pub(super) fn read(
    mut upload: File,
    format: ArchiveFormat,
    limits: &Limits,
    scratch: &Path,
) -> Result<Tree, SnapshotError> {
    check_start(&mut upload, format, scratch)?;
    let spool = tempfile::tempfile_in(scratch)
        .map_err(ArtifactsError::io("cannot create a scratch file in", scratch))?;
    let mut collector = Collector::new(BufWriter::with_capacity(1 << 16, spool), limits, scratch);
    let name = format.name();
    match format {
        ArchiveFormat::Tar => {
            tar::read(
                &mut Budget::new(BufReader::with_capacity(1 << 16, upload), limits),
                name,
                &mut collector,
            )?;
        }
        ArchiveFormat::TarGz => {
            let unzipped = MultiGzDecoder::new(BufReader::with_capacity(1 << 16, upload));
            tar::read(
                &mut BufReader::with_capacity(1 << 16, Budget::new(unzipped, limits)),
                name,
                &mut collector,
            )?;
        }
        ArchiveFormat::Zip => zip::read(upload, &mut collector)?,
    }
    collector.finish()
}

/// Refuses what cannot be such an archive by its first bytes. Its decoder would call it cut off or corrupt, which
/// sends people looking in the wrong place.
fn check_start(upload: &mut File, format: ArchiveFormat, scratch: &Path) -> Result<(), SnapshotError> {
    let mut start = [0; GZIP.len()];
    let mut filled = 0;
    let failed = "cannot read an upload in";
    while filled < start.len() {
        match upload.read(&mut start[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ArtifactsError::io(failed, scratch)(error).into()),
        }
    }
    upload.rewind().map_err(ArtifactsError::io(failed, scratch))?;
    let start = &start[..filled];
    match format {
        _ if start.is_empty() => Err(SnapshotError::EmptyBody { format: format.name() }),
        ArchiveFormat::TarGz if !GZIP.starts_with(start) => {
            Err(SnapshotError::NoArchive { format: format.name() })
        }
        // A tar is known by its first header, a zip by its end.
        _ => Ok(()),
    }
}

/// What every gzip file begins with.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Stops a reader that yields more than any acceptable archive could: contents, headers and padding together.
struct Budget<R> {
    inner: R,
    left: u64,
}

impl<R> Budget<R> {
    fn new(inner: R, limits: &Limits) -> Self {
        let headers = limits.max_members().saturating_mul(4096);
        Self { inner, left: limits.max_unpacked_bytes.saturating_add(headers).saturating_add(1 << 20) }
    }
}

impl<R: Read> Read for Budget<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(BudgetExceeded))?;
        Ok(count)
    }
}

/// What [`Budget`] answers with; [`Reading::error`] turns it into the right refusal.
#[derive(Debug, thiserror::Error)]
#[error("the archive is larger than any that is accepted")]
struct BudgetExceeded;

/// What is being read, so that an error can name it.
struct Reading<'a> {
    format: &'static str,
    limit: u64,
    entry: &'a str,
}

impl Reading<'_> {
    /// The refusal for an error of a decoder. The scratch file below it is this machine's own; a fault
    /// there would be reported as a corrupt archive, which is wrong but harmless, and rarer than a real one.
    fn error(&self, error: &io::Error) -> SnapshotError {
        if error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<BudgetExceeded>) {
            return SnapshotError::TooManyBytes { limit: self.limit, entry: self.entry.to_owned() };
        }
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return SnapshotError::Truncated {
                format: self.format,
                detail: "it ends inside compressed data",
            };
        }
        let at = if self.entry.is_empty() { String::new() } else { format!(" (at `{}`)", self.entry) };
        SnapshotError::Corrupt { format: self.format, detail: format!("{error}{at}") }
    }
}

/// Copies one file's content, counted, into the collector.
fn copy(
    content: &mut dyn Read,
    reading: &Reading<'_>,
    collector: &mut Collector<'_>,
) -> Result<u64, SnapshotError> {
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        match content.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(count) => {
                collector.content(&buffer[..count], reading.entry)?;
                total += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(reading.error(&error)),
        }
    }
}

/// Flushes a buffered scratch file and gives it back.
pub(super) fn into_file(writer: BufWriter<File>, scratch: &Path) -> Result<File, ArtifactsError> {
    let failed = "cannot write a scratch file in";
    let mut file =
        writer.into_inner().map_err(|error| ArtifactsError::io(failed, scratch)(error.into_error()))?;
    file.flush().map_err(ArtifactsError::io(failed, scratch))?;
    Ok(file)
}
