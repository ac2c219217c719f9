//! Secrets of a script do not come back in what is made of it: the answer may be logged, kept or mailed.

use serde_json::{Map, Value};

use super::{
    reader::Reader,
    remarks::{FILL_IN, is_secret},
};
use crate::domain::{
    definition::{rank, redaction::PUBLIC},
    finding::Severity,
    json,
};

/// Takes every secret out of a definition, and says where it has to be written again.
pub(super) fn take_out(reader: &mut Reader<'_>, definition: &mut Map<String, Value>) {
    // An unknown parameter that is called like a secret.
    let unknown: Vec<String> =
        definition.keys().filter(|name| rank(name).is_none() && is_secret(name, "")).cloned().collect();
    for name in unknown {
        definition.shift_remove(&name);
        told(reader, &json::child("", &name));
    }
    registry(reader, definition, "image_registry_details", "");
    let docker = definition.get_mut("environment_definition").and_then(|given| given.get_mut("docker"));
    if let Some(Value::Object(docker)) = docker {
        for name in ["base_image_registry", "baseImageRegistry"] {
            registry(reader, docker, name, "/environment_definition/docker");
        }
    }
}

/// A registry keeps what is public of it.
fn registry(reader: &mut Reader<'_>, parent: &mut Map<String, Value>, name: &str, pointer: &str) {
    let pointer = json::child(pointer, name);
    match parent.get_mut(name) {
        None | Some(Value::Null) => {}
        Some(Value::Object(members)) => {
            let hidden: Vec<String> = members
                .iter()
                .filter(|(key, value)| {
                    let public = PUBLIC.contains(&key.as_str()) && !holds_a_password(value);
                    !public && !value.is_null()
                })
                .map(|(key, _)| key.clone())
                .collect();
            for key in hidden {
                members.shift_remove(&key);
                told(reader, &json::child(&pointer, &key));
            }
        }
        Some(_) => {
            parent.shift_remove(name);
            told(reader, &pointer);
        }
    }
}

/// `user:password@host`, or no text at all.
fn holds_a_password(value: &Value) -> bool {
    value.as_str().is_none_or(|text| text.contains('@') && text.contains(':'))
}

fn told(reader: &mut Reader<'_>, pointer: &str) {
    reader.remarks.add(
        Severity::Error,
        FILL_IN,
        pointer,
        format!(
            "What the source holds at `{pointer}` may be a secret; it was left out and is not repeated here."
        ),
        "Write it into the definition before you send it, and take it out of the source.",
    );
}
