//! From bytes to text, and from an offset to a line and a column.

use std::cell::Cell;

/// The names of the one encoding besides UTF-8 that is read; other bytes have no meaning of their own in it.
const LATIN_1: &[&str] =
    &["latin-1", "latin1", "latin", "l1", "iso-8859-1", "iso8859-1", "8859", "cp819", "iso-latin-1"];

/// Reads a source as Python does: UTF-8 with or without its mark, or Latin-1 where one of the first two lines says so.
///
/// # Errors
/// The offset of the first byte that is neither.
pub(super) fn decoded(bytes: &[u8]) -> Result<String, usize> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) if says_latin_1(bytes) => Ok(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Err(error) => Err(error.valid_up_to()),
    }
}

/// Whether a comment in one of the first two lines names Latin-1 (PEP 263).
fn says_latin_1(bytes: &[u8]) -> bool {
    for line in bytes.split(|byte| *byte == b'\n').take(2) {
        let line: String = line.iter().take(200).map(|byte| char::from(*byte)).collect();
        let line = line.trim_start();
        let Some(comment) = line.strip_prefix('#') else {
            // Only a comment may come before the line that says it.
            if line.trim().is_empty() { continue } else { return false }
        };
        let Some((_, rest)) = comment.split_once("coding") else { continue };
        let Some(name) = rest.strip_prefix([':', '=']) else { continue };
        let name: String = name
            .trim_start()
            .chars()
            .take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
            .collect();
        return LATIN_1.contains(&name.to_ascii_lowercase().replace('_', "-").as_str());
    }
    false
}

/// Finds lines and columns. Questions mostly come in the order of the text, so the last answer is where the next search begins.
#[derive(Debug)]
pub(super) struct Places {
    /// Where each line begins.
    starts: Vec<usize>,
    /// An offset and its column, from 0.
    last: Cell<(usize, usize)>,
}

impl Places {
    pub(super) fn of(source: &str) -> Self {
        let bytes = source.as_bytes();
        let mut starts = vec![0];
        for (at, byte) in bytes.iter().enumerate() {
            let ends = match byte {
                b'\n' => true,
                b'\r' => bytes.get(at + 1) != Some(&b'\n'),
                _ => false,
            };
            if ends {
                starts.push(at + 1);
            }
        }
        Self { starts, last: Cell::new((0, 0)) }
    }

    /// Line and column of an offset, both from 1; columns count characters.
    pub(super) fn place(&self, source: &str, offset: usize) -> (usize, usize) {
        let mut offset = offset.min(source.len());
        while !source.is_char_boundary(offset) {
            offset -= 1;
        }
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let (from, column) = match self.last.get() {
            (at, column) if (start..=offset).contains(&at) => (at, column),
            _ => (start, 0),
        };
        let column = column + source[from..offset].chars().count();
        self.last.set((offset, column));
        (line, column + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        assert_eq!(decoded("\u{feff}x = 'é'".as_bytes()).unwrap(), "x = 'é'");
        assert_eq!(decoded(b"# -*- coding: latin-1 -*-\nx = '\xe9'").unwrap().chars().last(), Some('\''));
        assert!(decoded(b"#!/usr/bin/python\n# vim: set fileencoding=iso_8859_1 :\n'\xe9'").is_ok());
        assert_eq!(decoded(b"x = 1\n# coding: latin-1\n'\xe9'"), Err(25));
        assert_eq!(decoded(b"# coding: koi8-r\n'\xe9'"), Err(18));
        assert_eq!(decoded(b"'\xe9'"), Err(1));
    }

    #[test]
    fn places_count_characters_and_every_line_end() {
        let source = "a\r\nb\rçd\ne";
        let places = Places::of(source);
        let at = |text: &str| places.place(source, source.find(text).unwrap());
        assert_eq!((at("a"), at("b"), at("d"), at("e")), ((1, 1), (2, 1), (3, 2), (4, 1)));
        assert_eq!((at("ç"), at("d"), at("ç")), ((3, 1), (3, 2), (3, 1)));
        assert_eq!(places.place(source, 1_000), (4, 2));
    }
}
