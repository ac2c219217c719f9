//! Texts as Python literals.

use std::fmt::Write as _;

/// A text as a Python string literal on one line, ASCII only: no encoding, editor or terminal can change what it says.
pub(super) fn python(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for character in text.chars() {
        match character {
            '"' => literal.push_str("\\\""),
            '\\' => literal.push_str("\\\\"),
            '\n' => literal.push_str("\\n"),
            '\r' => literal.push_str("\\r"),
            '\t' => literal.push_str("\\t"),
            ' '..='~' => literal.push(character),
            other => {
                let code = u32::from(other);
                // Writing to a string cannot fail.
                let _ = match code {
                    0..=0xff => write!(literal, "\\x{code:02x}"),
                    0x100..=0xffff => write!(literal, "\\u{code:04x}"),
                    _ => write!(literal, "\\U{code:08x}"),
                };
            }
        }
    }
    literal.push('"');
    literal
}

/// A list of Python expressions: on one line where it is short, else one on each line, indented by `indent`.
pub(super) fn python_list(items: &[String], indent: usize) -> String {
    let line = format!("[{}]", items.join(", "));
    if line.len() + indent <= 88 {
        return line;
    }
    let margin = " ".repeat(indent);
    let mut text = "[\n".to_owned();
    for item in items {
        let _ = writeln!(text, "{margin}    {item},");
    }
    text.push_str(&margin);
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_literals() {
        for (text, literal) in [
            ("", r#""""#),
            ("it's \"x\"", r#""it's \"x\"""#),
            ("a\\n\n\r\t", r#""a\\n\n\r\t""#),
            ("é\u{7f}\0", r#""\xe9\x7f\x00""#),
            ("训\u{2028}", r#""\u8bad\u2028""#),
            ("😀", r#""\U0001f600""#),
            ("{x} %s $(id) #", r#""{x} %s $(id) #""#),
        ] {
            assert_eq!(python(text), literal);
        }
    }

    #[test]
    fn long_lists_are_broken_up() {
        let items = |count| vec!["\"item\"".to_owned(); count];
        assert_eq!(python_list(&items(2), 4), "[\"item\", \"item\"]");
        assert_eq!(python_list(&[], 4), "[]");
        let long = python_list(&items(20), 4);
        assert_eq!(long.lines().count(), 22);
        assert!(long.starts_with("[\n        \"item\",\n") && long.ends_with("\n    ]"));
    }
}
