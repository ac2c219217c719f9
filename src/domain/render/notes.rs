//! What a text does not say, gathered while it is written.

use serde_json::Value;

use super::{Equivalence, NotExpressed, Subject};
use crate::domain::definition::Definition;

/// Whether a parameter says anything: nulls and empty values count as not given.
pub(super) fn is_given(definition: &Definition, parameter: &str) -> bool {
    match definition.body().get(parameter) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(items)) => !items.is_empty(),
        Some(Value::Object(members)) => !members.is_empty(),
        Some(Value::Bool(_) | Value::Number(_)) => true,
    }
}

/// The entries of one rendering: one for a parameter, and none for a parameter that is not given.
#[derive(Debug)]
pub(super) struct Notes<'a> {
    definition: &'a Definition,
    entries: Vec<NotExpressed>,
}

impl<'a> Notes<'a> {
    pub(super) const fn new(subject: &Subject<'a>) -> Self {
        Self { definition: subject.definition, entries: Vec::new() }
    }

    /// The text says nearly the same.
    pub(super) fn approximate(&mut self, parameter: &str, note: impl AsRef<str>) {
        self.add(parameter, Equivalence::Approximate, note.as_ref());
    }

    /// The text cannot say it.
    pub(super) fn none(&mut self, parameter: &str, note: impl AsRef<str>) {
        self.add(parameter, Equivalence::None, note.as_ref());
    }

    /// The same, at the first of these parameters that is given: where one meaning has several spellings.
    pub(super) fn at_first(&mut self, parameters: &[&str], equivalence: Equivalence, note: impl AsRef<str>) {
        if let Some(parameter) = parameters.iter().find(|name| is_given(self.definition, name)) {
            self.add(parameter, equivalence, note.as_ref());
        }
    }

    fn add(&mut self, parameter: &str, equivalence: Equivalence, note: &str) {
        if !is_given(self.definition, parameter) {
            return;
        }
        match self.entries.iter_mut().find(|entry| entry.parameter == parameter) {
            Some(entry) => {
                // Something of it is said, so the whole is not unsaid.
                if entry.equivalence != equivalence {
                    entry.equivalence = Equivalence::Approximate;
                }
                if !entry.note.contains(note) {
                    entry.note.push(' ');
                    entry.note.push_str(note);
                }
            }
            None => self.entries.push(NotExpressed {
                parameter: parameter.to_owned(),
                equivalence,
                note: note.to_owned(),
            }),
        }
    }

    pub(super) fn into_entries(self) -> Vec<NotExpressed> {
        self.entries
    }
}
