//! `postgres.log`: what the server and `initdb` print, and its last lines for an error message.
//!
//! A file rather than a pipe through the service: it works when the service is gone, which is when one
//! wants to read it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::Error;

/// Beyond this size a start puts the log aside. The server logs little, so that is rare.
const KEEP_BYTES: u64 = 4 << 20;
const TAIL_LINES: usize = 12;
const TAIL_BYTES: u64 = 8 << 10;

/// The log, opened for appending.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    start: u64,
}

impl LogFile {
    /// Opens the log and remembers where the coming run begins.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        if fs::metadata(path).is_ok_and(|found| found.len() > KEEP_BYTES) {
            fs::rename(path, path.with_extension("log.old")).map_err(Error::io("put aside", path))?;
        }
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .mode(0o600)
            .open(path)
            .map_err(Error::io("open", path))?;
        let start = file.metadata().map_err(Error::io("look at", path))?.len();
        Ok(Self { path: path.to_owned(), file, start })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A handle for a child's output.
    pub(super) fn stdio(&self) -> Result<Stdio, Error> {
        self.file.try_clone().map(Stdio::from).map_err(Error::io("open", &self.path))
    }

    /// The last lines written since [`open`](Self::open).
    pub(super) fn tail(&self) -> String {
        let read = || {
            let mut file = &self.file;
            let end = file.metadata()?.len();
            file.seek(SeekFrom::Start(self.start.max(end.saturating_sub(TAIL_BYTES))))?;
            let mut bytes = Vec::new();
            file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
            std::io::Result::Ok(bytes)
        };
        let text = match read() {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(unreadable: {error})"),
        };
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        if tail.is_empty() { "  (nothing)".to_owned() } else { format!("  {}", tail.join("\n  ")) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_tail_is_of_this_run_only_and_short() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("postgres.log");
        fs::write(&path, "an earlier run\n").unwrap();
        let log = LogFile::open(&path).unwrap();
        assert_eq!(log.tail(), "  (nothing)");
        for line in 0..100 {
            writeln!(&log.file, "line {line}").unwrap();
        }
        let tail = log.tail();
        assert!(tail.starts_with("  line 88\n") && tail.ends_with("  line 99"), "{tail}");
    }
}
