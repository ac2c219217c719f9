//! Reading JSON values of a stated type: every fault is kept, nothing is coerced, nothing stops at the first.

use json_patch::Patch;
use serde_json::{Map, Value};

use crate::domain::json;

/// A value that may be missing or unreadable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Given<T> {
    /// Not sent, null, or the empty value of its own kind.
    #[default]
    Absent,
    /// Sent, and of a wrong type: it counts as given, and rules that would have to read it stay silent.
    Faulty,
    /// Sent and readable.
    Value(T),
}

impl<T> Given<T> {
    /// Whether something was sent, readable or not.
    pub(crate) const fn is_given(&self) -> bool {
        !matches!(self, Self::Absent)
    }

    /// Whether what was sent cannot be read.
    pub(crate) const fn is_faulty(&self) -> bool {
        matches!(self, Self::Faulty)
    }

    /// The readable value.
    pub(crate) const fn value(&self) -> Option<&T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Faulty => None,
        }
    }
}

impl Given<String> {
    /// The readable text.
    pub(crate) fn text(&self) -> Option<&str> {
        self.value().map(String::as_str)
    }
}

impl Given<bool> {
    /// Whether it is readable and true.
    pub(crate) const fn is_true(&self) -> bool {
        matches!(self, Self::Value(true))
    }

    /// Whether it is readable and false.
    pub(crate) const fn is_false(&self) -> bool {
        matches!(self, Self::Value(false))
    }
}

impl Given<i64> {
    /// The number, the default when none was sent, nothing when it cannot be read.
    pub(crate) const fn or(&self, default: i64) -> Option<i64> {
        match self {
            Self::Absent => Some(default),
            Self::Faulty => None,
            Self::Value(number) => Some(*number),
        }
    }
}

/// Which general rule a fault of the reading belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `wrong-type`.
    WrongType,
    /// `unknown-parameter`.
    UnknownParameter,
}

/// A fault found while reading.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Problem {
    pub(crate) fault: Fault,
    pub(crate) pointer: String,
    pub(crate) message: String,
    pub(crate) fix: String,
    pub(crate) patch: Option<Patch>,
}

/// Collects faults while values are read.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pub(crate) problems: Vec<Problem>,
}

/// A member of an object; null counts as not sent.
pub(crate) fn member<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

impl Reader {
    /// Reports a value that is not of the kind that belongs there, in words that say what it is.
    pub(crate) fn wrong(&mut self, pointer: &str, found: &str, wanted: &str) {
        self.problems.push(Problem {
            fault: Fault::WrongType,
            pointer: pointer.to_owned(),
            message: format!(
                "`{}` is {found}; it must be {wanted}. Values are never converted.",
                shortened(pointer)
            ),
            fix: format!("Write {wanted}, or leave it out if it is optional."),
            patch: None,
        });
    }

    /// Reports a value that is not of the kind that belongs there, and repeats it where it can be no secret.
    pub(crate) fn wrong_value(&mut self, pointer: &str, value: &Value, wanted: &str) {
        let secret = pointer.starts_with("/image_registry_details")
            || pointer.starts_with("/environment_definition")
            || pointer.starts_with("/environment_variables");
        let found = match value {
            Value::Bool(_) | Value::Number(_) if !secret => {
                format!("{} (`{}`)", json::kind_of(value), shortened(&value.to_string()))
            }
            Value::String(text) if !secret => format!("the text {:?}", shortened(text)),
            other => json::kind_of(other).to_owned(),
        };
        self.wrong(pointer, &found, wanted);
    }

    /// Reports a member that is needed and not there.
    pub(crate) fn missing(&mut self, pointer: &str, wanted: &str) {
        self.problems.push(Problem {
            fault: Fault::WrongType,
            pointer: pointer.to_owned(),
            message: format!("`{}` is missing; it must be {wanted}.", shortened(pointer)),
            fix: format!("Add it: {wanted}."),
            patch: None,
        });
    }

    /// Reports the members of an object that nobody knows.
    pub(crate) fn unknown_members(
        &mut self,
        map: &Map<String, Value>,
        pointer: &str,
        what: &str,
        known: &[&str],
    ) {
        for key in map.keys() {
            if known.contains(&key.as_str()) {
                continue;
            }
            let near = super::signature::nearest(key, known.iter().copied()).unwrap_or_default();
            self.problems.push(Problem {
                fault: Fault::UnknownParameter,
                pointer: json::child(pointer, key),
                message: format!(
                    "{:?} is no member of {what}; its members are {}.",
                    shortened(key),
                    listed(known)
                ),
                fix: format!("Remove it, or write `{near}` if that is what you mean."),
                patch: None,
            });
        }
    }

    /// A text; `""` is not given.
    pub(crate) fn text(&mut self, value: Option<&Value>, pointer: &str) -> Given<String> {
        match value {
            None | Some(Value::Null) => Given::Absent,
            Some(Value::String(text)) if text.is_empty() => Given::Absent,
            Some(Value::String(text)) => self.sound(text, pointer),
            Some(other) => {
                self.wrong_value(pointer, other, "a text");
                Given::Faulty
            }
        }
    }

    /// A text that may be passed to other programs: one without a NUL character.
    pub(crate) fn sound(&mut self, text: &str, pointer: &str) -> Given<String> {
        if text.contains('\0') {
            self.wrong(pointer, "a text with a NUL character", "a text without one");
            return Given::Faulty;
        }
        Given::Value(text.to_owned())
    }

    /// An integer of 64 bits.
    pub(crate) fn integer(&mut self, value: Option<&Value>, pointer: &str) -> Given<i64> {
        let number = match value {
            None | Some(Value::Null) => return Given::Absent,
            Some(Value::Number(number)) => number,
            Some(other) => {
                self.wrong_value(pointer, other, "an integer");
                return Given::Faulty;
            }
        };
        if let Some(integer) = json::integer(number) {
            return Given::Value(integer);
        }
        let spelling = shortened(&number.to_string());
        self.wrong(
            pointer,
            &format!("the number {spelling}"),
            "an integer of 64 bits, written without fraction or exponent",
        );
        Given::Faulty
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, value: Option<&Value>, pointer: &str) -> Given<bool> {
        match value {
            None | Some(Value::Null) => Given::Absent,
            Some(Value::Bool(switch)) => Given::Value(*switch),
            Some(other) => {
                self.wrong_value(pointer, other, "`true` or `false`");
                Given::Faulty
            }
        }
    }

    /// An object; `{}` is not given.
    pub(crate) fn object<'a>(
        &mut self,
        value: Option<&'a Value>,
        pointer: &str,
        wanted: &str,
    ) -> Given<&'a Map<String, Value>> {
        match value {
            None | Some(Value::Null) => Given::Absent,
            Some(Value::Object(map)) if map.is_empty() => Given::Absent,
            Some(Value::Object(map)) => Given::Value(map),
            Some(other) => {
                self.wrong_value(pointer, other, wanted);
                Given::Faulty
            }
        }
    }

    /// A list; `[]` is not given.
    pub(crate) fn list<'a>(
        &mut self,
        value: Option<&'a Value>,
        pointer: &str,
        wanted: &str,
    ) -> Given<&'a Vec<Value>> {
        match value {
            None | Some(Value::Null) => Given::Absent,
            Some(Value::Array(items)) if items.is_empty() => Given::Absent,
            Some(Value::Array(items)) => Given::Value(items),
            Some(other) => {
                self.wrong_value(pointer, other, wanted);
                Given::Faulty
            }
        }
    }

    /// A list of texts. An item that is none is nothing here, so that the others can still be judged.
    pub(crate) fn texts(&mut self, value: Option<&Value>, pointer: &str) -> Given<Vec<Option<String>>> {
        let items = match self.list(value, pointer, "a list of texts") {
            Given::Absent => return Given::Absent,
            Given::Faulty => return Given::Faulty,
            Given::Value(items) => items,
        };
        let mut texts = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let place = json::item(pointer, index);
            let text = match item {
                Value::String(text) => self.sound(text, &place).value().cloned(),
                other => {
                    self.wrong_value(&place, other, "a text");
                    None
                }
            };
            texts.push(text);
        }
        Given::Value(texts)
    }
}

/// Names between backticks, with commas and a final "and".
pub(crate) fn listed(names: &[&str]) -> String {
    let mut text = String::new();
    for (index, name) in names.iter().enumerate() {
        if index > 0 {
            text.push_str(if index + 1 == names.len() { " and " } else { ", " });
        }
        text.push('`');
        text.push_str(name);
        text.push('`');
    }
    text
}

/// A text of the user's as it may stand in a message: at most 80 characters, no line ends or controls in clear.
pub(crate) fn shortened(text: &str) -> String {
    let mut short = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == 80 {
            short.push('…');
            break;
        }
        if character.is_control() {
            short.extend(character.escape_default());
        } else {
            short.push(character);
        }
    }
    short
}
