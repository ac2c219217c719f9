//! Findings about the bodies that are this API's own (runs, compute targets): one reader that collects them all.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::domain::finding::{Doc, Finding, Fix, Severity};

/// A finding of severity error about a member of a request body.
#[must_use]
pub fn error_at(rule: &str, pointer: &str, message: impl Into<String>, fix: impl Into<String>) -> Finding {
    let first = pointer.split('/').nth(1).unwrap_or_default();
    let parameters = if first.is_empty() { Vec::new() } else { vec![unescaped(first)] };
    Finding {
        rule: rule.to_owned(),
        severity: Severity::Error,
        pointer: pointer.to_owned(),
        parameters,
        message: message.into(),
        fix: Fix { description: fix.into(), patch: None },
        doc: Doc {
            text: "The operation's description in the API documentation of this service.".to_owned(),
            url: "/docs/".to_owned(),
        },
    }
}

/// A name as one part of a JSON Pointer.
#[must_use]
pub fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The name that a part of a JSON Pointer stands for.
#[must_use]
pub fn unescaped(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// The known name nearest to an unknown one, if any is near.
#[must_use]
pub fn nearest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&unknown.to_lowercase(), &name.to_lowercase());
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    (distance(best) <= (best.len() / 3).max(2)).then_some(best)
}

/// Reads the members of an object and collects everything that is wrong with them. Null counts as not given.
#[derive(Debug)]
pub struct Members<'a> {
    map: &'a Map<String, Value>,
    at: String,
    known: Vec<&'static str>,
    /// What was found so far.
    pub findings: Vec<Finding>,
}

impl<'a> Members<'a> {
    /// Of the object at the given pointer.
    #[must_use]
    pub fn new(map: &'a Map<String, Value>, at: impl Into<String>) -> Self {
        Self { map, at: at.into(), known: Vec::new(), findings: Vec::new() }
    }

    /// The pointer of a member.
    #[must_use]
    pub fn pointer(&self, name: &str) -> String {
        format!("{}/{}", self.at, escaped(name))
    }

    /// A member as it is.
    pub fn value(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A text without NUL.
    pub fn text(&mut self, name: &'static str) -> Option<&'a str> {
        match self.value(name)? {
            Value::String(text) if !text.contains('\0') => Some(text),
            other => self.wrong_type(name, "a text without NUL characters", other),
        }
    }

    /// An integer within limits.
    pub fn integer(&mut self, name: &'static str, allowed: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(name)?;
        let Some(number) = value.as_number().and_then(serde_json::Number::as_i64) else {
            let form = format!("an integer from {} to {}", allowed.start(), allowed.end());
            return self.wrong_type(name, &form, value);
        };
        if allowed.contains(&number) {
            return Some(number);
        }
        let (first, last) = (allowed.start(), allowed.end());
        self.refuse(
            "out-of-range",
            name,
            format!("`{name}` is {number}; it must be from {first} to {last}"),
            format!("write an integer from {first} to {last}"),
        );
        None
    }

    /// An object.
    pub fn object(&mut self, name: &'static str) -> Option<&'a Map<String, Value>> {
        match self.value(name)? {
            Value::Object(map) => Some(map),
            other => self.wrong_type(name, "an object", other),
        }
    }

    /// A list.
    pub fn list(&mut self, name: &'static str) -> Option<&'a Vec<Value>> {
        match self.value(name)? {
            Value::Array(list) => Some(list),
            other => self.wrong_type(name, "a list", other),
        }
    }

    /// Adds a finding about a member.
    pub fn refuse(&mut self, rule: &str, name: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.findings.push(error_at(rule, &self.pointer(name), message, fix));
    }

    /// Adds a finding about a member that must be there and is not.
    pub fn missing(&mut self, name: &str, form: &str) {
        let message = format!("`{name}` is missing; it must be {form}");
        self.refuse("missing-member", name, message, format!("add `{name}`: {form}"));
    }

    /// Adds a finding about the JSON type of a member. The value itself is not repeated: it may be anything.
    pub fn wrong_type<T>(&mut self, name: &str, form: &str, found: &Value) -> Option<T> {
        let message = format!("`{name}` is {}; it must be {form}", kind_of(found));
        self.refuse("wrong-type", name, message, format!("write {form}"));
        None
    }

    /// Everything that was found, unknown members included.
    #[must_use]
    pub fn finish(mut self) -> Vec<Finding> {
        for name in self.map.keys().filter(|name| !self.known.contains(&name.as_str())) {
            let shown: String = name.chars().take(80).collect();
            let fix = match nearest(name, &self.known) {
                Some(near) => format!("write `{near}`, or leave it out"),
                None => format!("leave it out; known are `{}`", self.known.join("`, `")),
            };
            let message = format!("`{shown}` is no member of this object");
            let finding =
                error_at("unknown-parameter", &format!("{}/{}", self.at, escaped(name)), message, fix);
            self.findings.push(finding);
        }
        self.findings
    }
}

/// What kind of JSON value it is, with its article.
#[must_use]
pub const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
