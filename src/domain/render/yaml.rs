//! Plain data as YAML that every reader reads alike.
//!
//! Readers of YAML 1.1 take `no`, `012` and `1e3` for something else than readers of 1.2 do. So a text is bare only when it
//! cannot be anything but a text; every other one is in double quotes, in ASCII, on one line.

use std::fmt::Write as _;

use serde_json::Value;

/// A value as a YAML document, in block style, keys in their order.
pub(super) fn document(value: &Value) -> String {
    let mut text = String::new();
    block(&mut text, value, 0, false);
    text
}

/// Writes a value from the beginning of a line; its first line continues one when `continues`.
fn block(text: &mut String, value: &Value, depth: usize, continues: bool) {
    let margin = "  ".repeat(depth);
    let mut first = continues;
    let mut start = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.push_str(&margin);
        }
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                start(text);
                text.push_str(&scalar(key));
                text.push(':');
                nested(text, member, depth);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                start(text);
                text.push('-');
                if is_nested(item) {
                    text.push(' ');
                    block(text, item, depth + 1, true);
                } else {
                    nested(text, item, depth);
                }
            }
        }
        other => {
            start(text);
            text.push_str(&leaf(other));
            text.push('\n');
        }
    }
}

/// Writes what follows a key or a dash.
fn nested(text: &mut String, value: &Value, depth: usize) {
    if is_nested(value) {
        text.push('\n');
        block(text, value, depth + 1, false);
    } else {
        let _ = writeln!(text, " {}", leaf(value));
    }
}

fn is_nested(value: &Value) -> bool {
    match value {
        Value::Object(members) => !members.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    }
}

fn leaf(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(_) => "[]".to_owned(),
        Value::Object(_) => "{}".to_owned(),
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
    }
}

/// A text as a YAML scalar that is a text to every reader.
fn scalar(text: &str) -> String {
    if is_bare(text) { text.to_owned() } else { in_quotes(text) }
}

/// Whether a text begins with a letter, goes on with what means nothing in YAML, and is no word that means something.
fn is_bare(text: &str) -> bool {
    const WORDS: [&str; 9] = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let first = text.chars().next();
    first.is_some_and(|c| c.is_ascii_alphabetic() || c == '$')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./$".contains(c))
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

fn in_quotes(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            ' '..='~' => quoted.push(character),
            other => {
                let code = u32::from(other);
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0xff => write!(quoted, "\\x{code:02x}"),
                    0x100..=0xffff => write!(quoted, "\\u{code:04x}"),
                    _ => write!(quoted, "\\U{code:08x}"),
                };
            }
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_that_could_be_something_else_are_in_quotes() {
        for bare in ["train.py", "command", "$schema", "a-b/c_1", "nothing", "Standard_D2"] {
            assert_eq!(scalar(bare), bare);
        }
        for text in [
            "",
            "no",
            "No",
            "Y",
            "on",
            "~",
            "null",
            "NULL",
            "true",
            "1e3",
            "012",
            "1_000",
            "12:30",
            "0x1",
            ".inf",
            "=",
            "<<",
            "a: b",
            "a #b",
            "# a",
            "- a",
            "-",
            "---",
            "&a",
            "*a",
            "!a",
            "%a",
            "@a",
            "`a`",
            "{a}",
            "[a]",
            "a, b",
            " a",
            "a ",
            "a:",
            "2020-01-01",
            "é",
            "?",
            "|",
            ">",
            "'a'",
            "\"a\"",
        ] {
            assert!(scalar(text).starts_with('"'), "{text}");
        }
        assert_eq!(scalar("a\n\t\"\\\u{7}é\u{2028}😀"), r#""a\n\t\"\\\x07\xe9\u2028\U0001f600""#);
    }

    #[test]
    fn a_document_is_in_blocks() {
        let value = json!({
            "a": {"b": ["no", {"c": 1, "d": [["x"], []]}], "e": {}}, "f": null, "g": true, "k e y": "v",
        });
        let text = document(&value);
        assert_eq!(
            text,
            "a:\n  b:\n    - \"no\"\n    - c: 1\n      d:\n        - - x\n        - []\n  e: {}\nf: null\ng: true\n\"k e y\": v\n"
        );
        assert_eq!(yaml_serde::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn every_character_comes_back() {
        let mut text: String = (1..=0x3000).filter_map(char::from_u32).collect();
        text.push_str("\u{feff}\u{fffd}\u{10ffff}😀");
        let value = json!({ "text": text });
        assert_eq!(yaml_serde::from_str::<Value>(&document(&value)).unwrap(), value);
    }
}
