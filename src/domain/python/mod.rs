//! Python sources: parsed, never executed.

pub(crate) mod distributions;
pub mod estimator;
mod imports;
mod nesting;
mod source;
mod stdlib;
#[cfg(test)]
mod tests;

pub(crate) use imports::Import;
pub(crate) use stdlib::is_standard;

use ruff_python_ast::{ModModule, PythonVersion};
use ruff_python_parser::{Mode, ParseOptions, Parsed, parse_unchecked};
use ruff_text_size::Ranged;

use source::Places;

/// The largest source that is parsed, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// Room on the stack for one level of a tree that is given back, generously.
const BYTES_PER_LEVEL: usize = 1024;

/// Why a source is no Python 3.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub(crate) struct SyntaxError {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// What is wrong, as a part of a sentence.
    pub(crate) message: String,
}

/// A source that parses.
#[derive(Debug)]
pub(crate) struct Module {
    source: String,
    places: Places,
    syntax: ModModule,
}

impl Module {
    /// Parses a source: Python 3 as the newest interpreter that scripts run on (3.11) reads it.
    ///
    /// # Errors
    /// The first syntax error.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, SyntaxError> {
        Self::of(text(bytes)?)
    }

    fn of(source: String) -> Result<Self, SyntaxError> {
        let stumble = nesting::scan(&source).err();
        let safe = stumble.as_ref().map_or(source.len(), |stumble| stumble.safe);
        match checked(&source[..safe]) {
            // A part that ends where the scan stopped may end too early; that says nothing of the source.
            Err(fault) if stumble.is_none() || fault.0 < source[..safe].trim_end().len() => {
                Err(error(&source, fault.0, fault.1))
            }
            Ok(syntax) if stumble.is_none() => Ok(Self { places: Places::of(&source), source, syntax }),
            Ok(_) | Err(_) => {
                let (offset, message) = stumble.map_or((safe, String::new()), |s| (s.offset, s.message));
                Err(error(&source, offset, message))
            }
        }
    }

    /// Every import that the module cannot do without.
    pub(crate) fn imports(&self) -> Vec<Import> {
        imports::of(self)
    }

    /// Line and column of something in it, from 1.
    fn place(&self, of: &impl Ranged) -> (usize, usize) {
        self.places.place(&self.source, usize::from(of.start()))
    }

    /// The source of something in it.
    fn text(&self, of: &impl Ranged) -> &str {
        self.source.get(usize::from(of.start())..usize::from(of.end())).unwrap_or_default()
    }

    /// Whether the module changes where it looks for modules.
    pub(crate) fn extends_its_path(&self) -> bool {
        self.source.contains("sys.path")
    }
}

fn text(bytes: &[u8]) -> Result<String, SyntaxError> {
    if bytes.len() > MAX_BYTES {
        return Err(SyntaxError {
            line: 1,
            column: 1,
            message: "it is larger than 1 MiB and was not read".to_owned(),
        });
    }
    source::decoded(bytes).map_err(|offset| {
        let before = String::from_utf8_lossy(&bytes[..offset]);
        error(&before, before.len(), "a byte is not UTF-8, and no line says which encoding it is".to_owned())
    })
}

fn error(source: &str, offset: usize, message: String) -> SyntaxError {
    let (line, column) = Places::of(source).place(source, offset);
    SyntaxError { line, column, message }
}

/// The tree, or the offset and the message of the first error. The source was scanned: its depth is bounded.
fn checked(source: &str) -> Result<ModModule, (usize, String)> {
    let options = ParseOptions::from(Mode::Module).with_target_version(PythonVersion::PY311);
    let parsed = parse_unchecked(source, options);
    let syntax = parsed.errors().iter().map(|e| (e.location.start(), e.error.to_string()));
    let unsupported = parsed.unsupported_syntax_errors().iter().map(|e| (e.range().start(), e.to_string()));
    let first = syntax.chain(unsupported).min_by_key(|(at, _)| *at);
    if let Some((at, message)) = first {
        // After an error the parser guesses, and the tree may be deeper than the scan has seen.
        let size = parsed.tokens().len().saturating_mul(BYTES_PER_LEVEL).max(BYTES_PER_LEVEL * 64);
        stacker::maybe_grow(size, size, || drop(parsed));
        return Err((usize::from(at), lowered(&message)));
    }
    module(parsed).ok_or((0, "it is no module".to_owned()))
}

fn module(parsed: Parsed<ruff_python_ast::Mod>) -> Option<ModModule> {
    Some(parsed.try_into_module()?.into_syntax())
}

/// A sentence of the parser's as a part of one of ours.
fn lowered(sentence: &str) -> String {
    let line = sentence.lines().next().unwrap_or_default().trim_end_matches('.');
    let mut characters = line.chars();
    match characters.next() {
        Some(first) => first.to_lowercase().chain(characters).collect(),
        None => String::new(),
    }
}
