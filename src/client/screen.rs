//! What the client writes: results and logs on standard output, everything about them on standard error.

use std::{
    io::{self, IsTerminal as _, Write},
    sync::{Arc, Mutex, PoisonError},
};

type Sink = Arc<Mutex<Box<dyn Write + Send>>>;

/// The two outputs; clones write to the same ones.
#[derive(Clone)]
pub(super) struct Screen {
    out: Sink,
    err: Sink,
    /// Whether a person watches standard error, so that a progress bar makes sense.
    pub(super) interactive: bool,
}

impl Screen {
    pub(super) fn standard() -> Self {
        Self {
            out: Arc::new(Mutex::new(Box::new(io::stdout()))),
            err: Arc::new(Mutex::new(Box::new(io::stderr()))),
            interactive: io::stderr().is_terminal(),
        }
    }

    #[cfg(test)]
    pub(super) fn to(out: impl Write + Send + 'static, err: impl Write + Send + 'static) -> Self {
        Self {
            out: Arc::new(Mutex::new(Box::new(out))),
            err: Arc::new(Mutex::new(Box::new(err))),
            interactive: false,
        }
    }

    /// Bytes on standard output, at once.
    pub(super) fn out(&self, bytes: &[u8]) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.write_all(bytes)?;
        out.flush()
    }

    /// A line on standard error. That it cannot be written is nothing that could be told anybody.
    pub(super) fn say(&self, line: impl AsRef<str>) {
        let mut err = self.err.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(err, "{}", line.as_ref());
    }
}

/// Puts `[rank] ` before every line of a stream that comes in pieces, and gives out whole lines only, so that
/// the lines of several ranks do not run into each other.
pub(super) struct LinePrefixer {
    prefix: String,
    held: Vec<u8>,
}

/// A line that does not end is given out in pieces of this size.
const MAX_HELD_BYTES: usize = 64 * 1024;

impl LinePrefixer {
    pub(super) fn new(rank: &str) -> Self {
        Self { prefix: format!("[{rank}] "), held: Vec::new() }
    }

    /// The whole lines that are there with `bytes`. A carriage return ends a line too: progress bars use it.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut ready = Vec::new();
        for part in bytes.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            self.held.extend_from_slice(part);
            if part.ends_with(b"\n") || part.ends_with(b"\r") || self.held.len() >= MAX_HELD_BYTES {
                ready.extend(self.flush(false));
            }
        }
        ready
    }

    /// The line that did not end; `end` ends it.
    pub(super) fn flush(&mut self, end: bool) -> Vec<u8> {
        // The second half of `\r\n` alone is no line.
        if self.held.is_empty() || self.held == b"\n" {
            return std::mem::take(&mut self.held);
        }
        let mut line = self.prefix.clone().into_bytes();
        line.append(&mut self.held);
        if end {
            line.push(b'\n');
        }
        line
    }
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["bytes", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "bytes" { format!("{bytes} bytes") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_get_their_rank_however_they_arrive() {
        let text = b"one\ntwo\r\x1b[Jthree\r\n\nlast";
        let mut expected: Option<Vec<u8>> = None;
        for piece in 1..text.len() {
            let mut prefixer = LinePrefixer::new("3");
            let mut all: Vec<u8> = text.chunks(piece).flat_map(|bytes| prefixer.push(bytes)).collect();
            all.extend(prefixer.flush(true));
            assert_eq!(expected.get_or_insert_with(|| all.clone()), &all, "in pieces of {piece}");
        }
        let all = String::from_utf8(expected.expect("something")).expect("text");
        assert_eq!(all, "[3] one\n[3] two\r[3] \u{1b}[Jthree\r\n\n[3] last\n");
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut prefixer = LinePrefixer::new("0");
        assert!(prefixer.push(&vec![b'x'; MAX_HELD_BYTES - 1]).is_empty());
        assert!(!prefixer.push(b"x").is_empty());
    }

    #[test]
    fn sizes_are_readable() {
        assert_eq!(size(0), "0 bytes");
        assert_eq!(size(1023), "1023 bytes");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(300 << 20), "300.0 MiB");
        assert_eq!(size(5 << 40), "5.0 TiB");
    }
}
