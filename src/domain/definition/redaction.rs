//! Taking secrets out of a body without changing what the rules say of it.

use serde_json::{Map, Value};

use crate::domain::json;

/// Members of an environment that the rules read. Whatever else it has comes from the SDK's files, or is misspelt.
const READ: &[&str] =
    &["name", "version", "environment_variables", "environmentVariables", "python", "docker"];

/// What stands in place of a secret.
pub(in crate::domain) const MARKER: &str = "[redacted]";

/// Members of a registry that are no secrets. Anything else in it might be one, misspelt.
pub(in crate::domain) const PUBLIC: &[&str] = &["address", "username"];

/// Members that name an identity of a registry, in a registry's own object for it.
const IDENTITY: &[&str] = &["registry_identity", "registryIdentity"];
const PUBLIC_OF_IDENTITY: &[&str] = &["resource_id", "resourceId", "client_id", "clientId"];

/// The body with every secret in it replaced.
pub(in crate::domain) fn redacted(body: &Map<String, Value>) -> Map<String, Value> {
    let mut copy = body.clone();
    if let Some(registry) = copy.get_mut("image_registry_details") {
        registry_secrets(registry);
    }
    if let Some(docker) = copy.get_mut("environment_definition").and_then(|env| env.get_mut("docker")) {
        for key in ["base_image_registry", "baseImageRegistry"] {
            if let Some(registry) = docker.get_mut(key) {
                registry_secrets(registry);
            }
        }
    }
    if let Some(Value::Object(environment)) = copy.get_mut("environment_definition") {
        for (_, value) in environment.iter_mut().filter(|(key, _)| !READ.contains(&key.as_str())) {
            named_secrets(value);
        }
    }
    copy
}

/// Replaces what is called a password or a secret, however deep.
fn named_secrets(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (key, member) in members.iter_mut() {
                let name = key.to_lowercase();
                if name.contains("password") || name.contains("secret") {
                    scrub(member);
                } else {
                    named_secrets(member);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(named_secrets),
        _ => {}
    }
}

fn registry_secrets(registry: &mut Value) {
    let Value::Object(members) = registry else {
        scrub(registry);
        return;
    };
    for (key, value) in members.iter_mut() {
        match value {
            Value::Object(identity) if IDENTITY.contains(&key.as_str()) => {
                for (key, value) in identity.iter_mut() {
                    if !PUBLIC_OF_IDENTITY.contains(&key.as_str()) {
                        scrub(value);
                    }
                }
            }
            // A password may stand in an address as in any URL.
            Value::String(address) if key == "address" => {
                if let Some((_, host)) = address.rsplit_once('@') {
                    *address = format!("{MARKER}@{host}");
                }
            }
            value if PUBLIC.contains(&key.as_str()) => drop_nested(value),
            value => scrub(value),
        }
    }
}

/// A text may stay; an object or a list in its place may hold anything.
fn drop_nested(value: &mut Value) {
    if value.is_object() || value.is_array() {
        scrub(value);
    }
}

/// Replaces a value by one of the same kind, of which the rules say the same.
fn scrub(value: &mut Value) {
    match value {
        Value::Null => {}
        Value::Bool(secret) => *secret = false,
        Value::Number(secret) if json::integer(secret).is_some() => *secret = 0.into(),
        Value::Number(secret) => *secret = serde_json::Number::from_f64(0.5).unwrap_or_else(|| 0.into()),
        Value::String(secret) if secret.is_empty() => {}
        // A NUL character is a fault of its own, which must stay.
        Value::String(secret) if secret.contains('\0') => *secret = format!("{MARKER}\0"),
        Value::String(secret) => MARKER.clone_into(secret),
        Value::Array(items) => {
            for item in items {
                scrub(item);
            }
        }
        Value::Object(members) => {
            for (_, member) in members.iter_mut() {
                scrub(member);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn passwords_are_replaced_wherever_they_may_stand() {
        let body = json!({
            "image_registry_details": {"password": "s3cret", "username": "u", "passwort": "s3cret", "address": "a"},
            "environment_definition": {"docker": {"baseImageRegistry": {"password": "s3cret", "address": "b"},
                "base_image_registry": {"password": ["s3cret"], "address": null}}},
        });
        let Value::Object(body) = body else { unreachable!() };
        let text = serde_json::to_string(&redacted(&body)).unwrap();
        assert!(!text.contains("s3cret"), "{text}");
        assert_eq!(
            text,
            r#"{"image_registry_details":{"password":"[redacted]","username":"u","passwort":"[redacted]","address":"a"},"#
                .to_owned()
                + r#""environment_definition":{"docker":{"baseImageRegistry":{"password":"[redacted]","address":"b"},"#
                + r#""base_image_registry":{"password":["[redacted]"],"address":null}}}}"#
        );
    }

    #[test]
    fn a_registry_of_the_wrong_kind_is_replaced_as_a_whole() {
        let Value::Object(body) = json!({"image_registry_details": "user:s3cret@host"}) else {
            unreachable!()
        };
        assert_eq!(redacted(&body)["image_registry_details"], MARKER);
    }

    #[test]
    fn secrets_in_an_address_and_in_an_identity_are_replaced() {
        let Value::Object(body) = json!({"environment_definition": {"docker": {"baseImageRegistry":
            {"address": "u:s3cret@r.example", "username": ["s3cret"],
             "registryIdentity": {"resource_id": "id", "password": "s3cret"}}},
            "registry": [{"address": "r", "Password": "s3cret"}], "environmentVariables": {"DB_PASSWORD": "is needed"}}})
        else {
            unreachable!()
        };
        let shown = redacted(&body);
        let text = serde_json::to_string(&shown).unwrap();
        assert!(
            !text.contains("s3cret") && text.contains("[redacted]@r.example") && text.contains("\"id\""),
            "{text}"
        );
        assert!(text.contains("is needed"), "a variable of the run is no secret of the definition: {text}");
        assert_eq!(redacted(&shown), shown);
    }
}
