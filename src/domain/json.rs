//! JSON as it was sent: key order and the spelling of numbers kept, duplicate keys refused.

use std::{cell::RefCell, collections::HashSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// How deep objects and lists may stand in one another: the parser's own limit, which keeps it from using up the stack.
const MAX_DEPTH: usize = 127;

/// Why a body is no JSON that this service reads. No value of the body is ever repeated in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The text is no JSON.
    #[error("the body is not JSON: {detail} (line {line}, column {column})")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// What the parser says.
        detail: String,
    },
    /// Objects and lists in one another, further than is read.
    #[error(
        "the body nests deeper than {MAX_DEPTH} levels (line {line}, column {column}), which is more than is read here"
    )]
    TooDeep {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
    },
    /// An object has the same key twice.
    #[error(
        "the key {key:?} comes twice in one object (line {line}, column {column}); which value holds is unclear"
    )]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where the second one ends, counted from 1.
        line: usize,
        /// Where the second one ends, counted from 1.
        column: usize,
    },
    /// JSON, but not an object.
    #[error("the body must be a JSON object; it is {found}")]
    NotAnObject {
        /// Which kind of value it is, with its article.
        found: &'static str,
    },
}

/// Reads a JSON object; duplicate keys at any depth are refused.
///
/// # Errors
///
/// When the bytes are no JSON, hold a duplicate key or hold something else than an object.
pub fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, JsonError> {
    match parse(bytes)? {
        Value::Object(map) => Ok(map),
        other => Err(JsonError::NotAnObject { found: kind_of(&other) }),
    }
}

/// Reads any JSON value; duplicate keys at any depth are refused.
///
/// # Errors
///
/// When the bytes are no JSON or hold a duplicate key.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut value = match serde_json::from_slice(bytes) {
        Ok(value) => value,
        Err(error) => return Err(check_keys(bytes).err().unwrap_or_else(|| syntax(&error))),
    };
    let mut spelled = Spelled::of(bytes);
    // Of members with one key only the last is in the value: as many as are spelled are there when no key comes twice.
    if restore_spelling(&mut value, &mut spelled) && spelled.is_used_up() {
        return Ok(value);
    }
    check_keys(bytes)?;
    let detail = "a key of the form `$serde_json::…` is reserved".to_owned();
    Err(JsonError::Syntax { line: 1, column: 1, detail })
}

/// Looks whether a key comes twice, for whoever knows that something is wrong, and not what.
fn check_keys(bytes: &[u8]) -> Result<(), JsonError> {
    let duplicate = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let checked = KeyCheck(&duplicate).deserialize(&mut deserializer);
    checked.map_err(|error| match duplicate.into_inner() {
        Some(key) => JsonError::DuplicateKey { key, line: error.line(), column: error.column() },
        None => syntax(&error),
    })
}

/// What a well-formed document spells out, and its value does not say.
struct Spelled<'a> {
    /// Every number, in order.
    numbers: std::vec::IntoIter<&'a str>,
    /// How many members all objects have together.
    members: usize,
}

impl<'a> Spelled<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let (mut numbers, mut members, mut at) = (Vec::new(), 0, 0);
        while at < bytes.len() {
            match bytes[at] {
                b'"' => {
                    at += 1;
                    while at < bytes.len() && bytes[at] != b'"' {
                        at += if bytes[at] == b'\\' { 2 } else { 1 };
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let start = at;
                    while at < bytes.len()
                        && matches!(bytes[at], b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9')
                    {
                        at += 1;
                    }
                    numbers.extend(std::str::from_utf8(&bytes[start..at]));
                }
                byte => {
                    members += usize::from(byte == b':');
                    at += 1;
                }
            }
        }
        Self { numbers: numbers.into_iter(), members }
    }

    /// Whether there was a place in the value for everything.
    fn is_used_up(&self) -> bool {
        self.members == 0 && self.numbers.as_slice().is_empty()
    }
}

/// The parser writes `1e5` as `1e+5`; this puts back what was sent. Whether enough was spelled for all that is in the value.
fn restore_spelling(value: &mut Value, spelled: &mut Spelled<'_>) -> bool {
    match value {
        Value::Number(number) => {
            let Some(spelling) = spelled.numbers.next() else { return false };
            if number.as_str() != spelling {
                *number = serde_json::Number::from_string_unchecked(spelling.to_owned());
            }
            true
        }
        Value::Array(items) => items.iter_mut().all(|item| restore_spelling(item, spelled)),
        Value::Object(members) => {
            let Some(left) = spelled.members.checked_sub(members.len()) else { return false };
            spelled.members = left;
            members.values_mut().all(|member| restore_spelling(member, spelled))
        }
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

fn syntax(error: &serde_json::Error) -> JsonError {
    let text = error.to_string();
    if text.starts_with("recursion limit exceeded") {
        return JsonError::TooDeep { line: error.line(), column: error.column() };
    }
    let detail = text.rsplit_once(" at line ").map_or(text.as_str(), |(head, _)| head).to_owned();
    JsonError::Syntax { line: error.line(), column: error.column(), detail }
}

/// Walks over a document and remembers the first key that an object has twice.
struct KeyCheck<'a>(&'a RefCell<Option<String>>);

impl<'de> DeserializeSeed<'de> for KeyCheck<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeyCheck<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(KeyCheck(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = HashSet::new();
        while let Some(key) = members.next_key::<String>()? {
            if seen.contains(&key) {
                *self.0.borrow_mut() = Some(key);
                return Err(A::Error::custom("duplicate key"));
            }
            seen.insert(key);
            members.next_value_seed(KeyCheck(self.0))?;
        }
        Ok(())
    }
}

/// The kind of a value in words, with its article: `a text`, `a list`, `null`, …
#[must_use]
pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if integer(number).is_some() => "an integer",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The integer that a number is spelled as: digits and a sign only (`2.0` and `2e0` are none), 64 bits at most.
#[must_use]
pub fn integer(number: &serde_json::Number) -> Option<i64> {
    number.to_string().parse().ok()
}

/// Escapes one token of a JSON Pointer (RFC 6901): `~` is `~0`, `/` is `~1`.
#[must_use]
pub fn escape(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

/// Undoes [`escape`].
#[must_use]
pub fn unescape(token: &str) -> String {
    token.replace("~1", "/").replace("~0", "~")
}

/// The pointer to a member or item of what `parent` points to.
#[must_use]
pub fn child(parent: &str, token: &str) -> String {
    format!("{parent}/{}", escape(token))
}

/// The pointer to an item of the list that `parent` points to.
#[must_use]
pub fn item(parent: &str, index: usize) -> String {
    format!("{parent}/{index}")
}

/// The first token of a pointer, unescaped; none for the empty pointer.
#[must_use]
pub fn first_token(pointer: &str) -> Option<String> {
    let rest = pointer.strip_prefix('/')?;
    Some(unescape(rest.split('/').next().unwrap_or(rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_their_order_and_numbers_their_spelling() {
        let text =
            r#"{"z":2.0,"a":4611686018427387904,"m":{"y\"1":[1e5,1E5,1e-3],"b":-0,"8":"9\\"},"e":-1.50E+07}"#;
        let map = parse_object(text.as_bytes()).unwrap();
        assert_eq!(serde_json::to_string(&map).unwrap(), text);
        for reserved in
            [r#"{"a":{"$serde_json::private::Number":"5"}}"#, r#"{"$serde_json::private::Number":"x"}"#]
        {
            assert!(matches!(parse(reserved.as_bytes()), Err(JsonError::Syntax { .. })), "{reserved}");
        }
    }

    #[test]
    fn only_digits_are_integers() {
        let number = |text: &str| match parse(text.as_bytes()).unwrap() {
            Value::Number(n) => integer(&n),
            _ => None,
        };
        assert_eq!(number("4611686018427387904"), Some(1 << 62));
        assert_eq!(number("9223372036854775807"), Some(i64::MAX));
        for text in ["2.0", "1e3", "9223372036854775808", "-9223372036854775809"] {
            assert_eq!(number(text), None, "{text}");
        }
    }

    #[test]
    fn duplicate_keys_are_refused_at_any_depth() {
        for (text, key) in [
            (r#"{"a":1,"a":1}"#, "a"),
            (r#"{"x":[{"b":{"c":1,"d":2,"c":3}}]}"#, "c"),
            (r#"{"a":1,"\u0061":2}"#, "a"),
            (r#"{"a":{"x":":","y":[]},"b":1,"a":"x"}"#, "a"),
        ] {
            match parse_object(text.as_bytes()) {
                Err(JsonError::DuplicateKey { key: found, line: 1, column }) => {
                    assert_eq!(found, key);
                    assert!(column > 1);
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        assert!(parse_object(br#"{"a":{"x":1},"b":{"x":1}}"#).is_ok());
    }

    #[test]
    fn errors_name_the_place_and_never_a_value() {
        let Err(JsonError::Syntax { line, column, detail }) = parse(b"{\n  \"password\": \"s3cret\" x}")
        else {
            panic!("must be refused")
        };
        assert_eq!(line, 2);
        assert!(column > 10);
        assert!(!detail.contains("s3cret"));
        assert!(!detail.contains("line"));
    }

    #[test]
    fn other_values_are_no_object() {
        for (text, found) in [("[]", "a list"), ("null", "null"), ("3", "an integer"), ("\"x\"", "a text")] {
            assert_eq!(parse_object(text.as_bytes()), Err(JsonError::NotAnObject { found }));
        }
    }

    #[test]
    fn pointers_are_escaped_and_read_back() {
        assert_eq!(child("", "a/b~c"), "/a~1b~0c");
        assert_eq!(first_token("/a~1b~0c/0").as_deref(), Some("a/b~c"));
        assert_eq!(first_token(""), None);
        assert_eq!(item("/inputs", 3), "/inputs/3");
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_a_crash() {
        let deep = "[".repeat(100_000);
        assert!(matches!(parse(deep.as_bytes()), Err(JsonError::TooDeep { line: 1, column: 128 })));
        let most = "[".repeat(MAX_DEPTH) + &"]".repeat(MAX_DEPTH);
        assert!(parse(most.as_bytes()).is_ok());
    }
}
