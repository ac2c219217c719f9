//! The definition file, and what the client changes in it: nothing but `source_directory`.

use std::{
    collections::HashSet,
    fmt, io,
    path::{Component, Path},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// The longest experiment name.
const MAX_NAME: usize = 255;

/// Why a definition file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// It cannot be read.
    #[error("cannot read {name}: {source}")]
    Read {
        /// The file.
        name: String,
        /// What the machine said.
        source: io::Error,
    },
    /// It is no JSON, or has a member twice.
    #[error("{name} is no valid JSON: {source}")]
    Json {
        /// The file.
        name: String,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// It is JSON, but no object.
    #[error("{name} is no estimator definition: it must be a JSON object")]
    NoObject {
        /// The file.
        name: String,
    },
}

/// A definition with the spelling of its numbers and the order of its members kept.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition(Map<String, Value>);

impl Definition {
    /// Reads a file; `-` is the standard input.
    ///
    /// # Errors
    /// When it cannot be read or is no JSON object.
    pub fn read(path: &Path) -> Result<Self, DefinitionError> {
        let name = path.display().to_string();
        let text = if name == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(path) };
        match text {
            Ok(text) => Self::parse(&text, &name),
            Err(source) => Err(DefinitionError::Read { name, source }),
        }
    }

    fn parse(text: &str, name: &str) -> Result<Self, DefinitionError> {
        let json = |source| DefinitionError::Json { name: name.to_owned(), source };
        // The service refuses a member that stands twice; reading it here would hide it.
        serde_json::from_str::<EachMemberOnce>(text).map_err(json)?;
        match serde_json::from_str(text).map_err(json)? {
            Value::Object(members) => Ok(Self(members)),
            _ => Err(DefinitionError::NoObject { name: name.to_owned() }),
        }
    }

    /// Sets `source_directory` and gives back the value that was replaced and says something else than
    /// `source`, as text.
    pub fn set_source_directory(&mut self, id: &str, source: &Path) -> Option<String> {
        let replaced = self.0.insert("source_directory".to_owned(), id.into())?;
        match replaced {
            Value::Null => None,
            Value::String(text)
                if text.is_empty() || text == id || is_same_place(Path::new(&text), source) =>
            {
                None
            }
            Value::String(text) => Some(text),
            other => Some(other.to_string()),
        }
    }

    /// As a JSON value.
    #[must_use]
    pub fn into_value(self) -> Value {
        Value::Object(self.0)
    }
}

fn is_same_place(one: &Path, other: &Path) -> bool {
    let parts = |path: &Path| -> Vec<_> {
        let named = path.components().filter(|part| !matches!(part, Component::CurDir));
        named.map(|part| part.as_os_str().to_owned()).collect()
    };
    parts(one) == parts(other)
        || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

/// An experiment name made of the source directory's: 1 to 255 letters, digits, `_` and `-`, the first one a letter or
/// digit.
#[must_use]
pub fn experiment_name(source: &Path) -> String {
    let source = source.canonicalize().unwrap_or_else(|_| source.to_owned());
    let name = source.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut sanitised = String::new();
    for character in name.chars() {
        match character {
            'a'..='z' | 'A'..='Z' | '0'..='9' => sanitised.push(character),
            _ if sanitised.is_empty() => {}
            '_' | '-' => sanitised.push(character),
            _ if sanitised.ends_with('-') => {}
            _ => sanitised.push('-'),
        }
    }
    sanitised.truncate(MAX_NAME);
    let sanitised = sanitised.trim_end_matches('-');
    if sanitised.is_empty() { "default".to_owned() } else { sanitised.to_owned() }
}

/// Accepts every JSON text whose objects have no member twice.
struct EachMemberOnce;

impl<'de> Deserialize<'de> for EachMemberOnce {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for EachMemberOnce {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        // Numbers of arbitrary precision come as maps of one member, too; that does no harm.
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom(format_args!("the member `{key}` stands twice")));
            }
            map.next_value::<Self>()?;
            seen.insert(key);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_numbers_are_kept() {
        let text = r#"{"z":1e-3,"source_directory":".","a":{"y":1.50,"x":123456789012345678901234567890}}"#;
        let mut definition = Definition::parse(text, "d.json").expect("read");
        assert_eq!(definition.set_source_directory("sha256:00", Path::new(".")), None);
        assert_eq!(definition.into_value().to_string(), text.replace("\".\"", "\"sha256:00\""));
    }

    #[test]
    fn only_another_source_is_worth_a_word() {
        let set = |member: &str, source: &str| {
            let text = format!(r#"{{"source_directory":{member}}}"#);
            Definition::parse(&text, "d").expect("read").set_source_directory("sha256:00", Path::new(source))
        };
        for (member, source) in [("null", "src"), ("\"\"", "src"), ("\"src\"", "src"), ("\"./src/\"", "src")]
        {
            assert_eq!(set(member, source), None, "{member}");
        }
        assert_eq!(set("\"../elsewhere\"", "src"), Some("../elsewhere".to_owned()));
        assert_eq!(set("7", "src"), Some("7".to_owned()));
        let mut without = Definition::parse("{}", "d").expect("read");
        assert_eq!(without.set_source_directory("sha256:00", Path::new("src")), None);
        assert_eq!(without.into_value()["source_directory"], "sha256:00");
    }

    #[test]
    fn what_is_no_definition_is_refused() {
        assert!(matches!(Definition::parse("[1]", "d"), Err(DefinitionError::NoObject { .. })));
        assert!(matches!(Definition::parse("{", "d"), Err(DefinitionError::Json { .. })));
        let twice = Definition::parse(r#"{"a":[{"b":1,"b":2.5}]}"#, "d").expect_err("refused").to_string();
        assert!(twice.contains("`b` stands twice") && twice.contains("line 1"), "{twice}");
    }

    #[test]
    fn experiment_names_follow_the_grammar() {
        for (directory, name) in [
            ("/x/train_mnist", "train_mnist"),
            ("/x/My project (v2)", "My-project-v2"),
            ("/x/.hidden", "hidden"),
            ("/x/データ", "default"),
            ("/", "default"),
        ] {
            assert_eq!(experiment_name(Path::new(directory)), name);
        }
        assert_eq!(experiment_name(Path::new(&format!("/x/{}", "n".repeat(300)))).len(), 255);
    }
}
