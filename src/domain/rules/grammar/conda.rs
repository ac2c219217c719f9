//! conda environment files, and the same structure inside an `Environment`.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_json::{Map, Value};

use super::pip;

/// The keys that a conda file may have.
const KEYS: &[&str] = &["name", "channels", "dependencies", "prefix", "variables"];

/// How long a conda file may be. The YAML scanner takes time by the square of the nesting.
const MAX_BYTES: usize = 64 * 1024;

/// How much a conda file may hold with its aliases followed: texts count by their length, other values as 8.
const MAX_CONTENT: usize = 1_000_000;

/// What conda is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CondaSpec {
    /// Channels in order.
    pub(crate) channels: Vec<String>,
    /// Packages in order, `python` included.
    pub(crate) packages: Vec<String>,
    /// Entries for pip in order.
    pub(crate) pip: Vec<String>,
}

impl CondaSpec {
    /// The packages without `python`, and the version that `python` is pinned to.
    pub(crate) fn split_python(&self) -> (Vec<String>, Option<PythonPin>) {
        split_python(&self.packages)
    }

    /// A path in a pip entry that leads out of the source directory.
    pub(crate) fn escape(&self) -> Option<String> {
        let package = self.packages.iter().find(|package| package_escapes(package)).cloned();
        package.or_else(|| self.pip.iter().find_map(|entry| pip::parse(entry).ok()?.escape))
    }
}

/// Whether a conda package is a file that may lie outside the source directory.
pub(crate) fn package_escapes(package: &str) -> bool {
    let package = package.trim();
    match pip::local_path(package) {
        Some(path) => pip::leads_out(&path),
        None => !package.contains("://") && pip::leads_out(package),
    }
}

/// What a list of conda packages says of `python`: a version, or any.
pub(crate) type PythonPin = Option<String>;

/// Separates `python` from the other packages; the last mention holds.
pub(crate) fn split_python(packages: &[String]) -> (Vec<String>, Option<PythonPin>) {
    let mut others = Vec::with_capacity(packages.len());
    let mut pin = None;
    for package in packages {
        if package_name(package).as_deref() == Some("python") {
            pin = Some(version_of(package));
        } else {
            others.push(package.clone());
        }
    }
    (others, pin)
}

/// The name in a conda package specification, lower case, without its channel.
pub(crate) fn package_name(spec: &str) -> Option<String> {
    let spec = without_channel(spec);
    let end = spec
        .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
        .unwrap_or(spec.len());
    if end == 0 { None } else { Some(spec[..end].to_ascii_lowercase()) }
}

fn without_channel(spec: &str) -> &str {
    let spec = spec.trim();
    spec.rsplit_once("::").map_or(spec, |(_, rest)| rest.trim_start())
}

/// The version in `python=3.7`, `python ==3.7.1`, `python=3.7=build`, `python>=3.6`.
fn version_of(spec: &str) -> Option<String> {
    let rest = without_channel(spec).get("python".len()..)?.trim_start();
    let exact = rest.trim_start_matches('=').trim_start();
    let version = exact.split([' ', '[']).next().unwrap_or_default();
    if version.starts_with(['<', '>', '!', '~']) {
        return Some(exact.split('[').next().unwrap_or(exact).trim().to_owned());
    }
    // A build comes after `=`, which is also a part of `!=` and of the comparisons after a comma or a bar.
    let build = version
        .match_indices('=')
        .find(|&(at, _)| !version[..at].ends_with(['<', '>', '!', '~', '=', ',', '|']));
    let version = build.map_or(version, |(at, _)| &version[..at]);
    if version.is_empty() { None } else { Some(version.to_owned()) }
}

/// Reads a conda file.
///
/// # Errors
///
/// Says why it is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<CondaSpec, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    if text.len() > MAX_BYTES {
        return Err("it is larger than 64 KiB".to_owned());
    }
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Err("it is empty".to_owned());
    }
    let budget = Cell::new(MAX_CONTENT);
    let not_yaml = |error: yaml_serde::Error| {
        let place = error.location().map(|at| format!(" (line {}, column {})", at.line(), at.column()));
        format!("it is not YAML{}", place.unwrap_or_default())
    };
    if let Err(error) = NodeBudget(&budget).deserialize(yaml_serde::Deserializer::from_str(text)) {
        let spent = budget.get() == 0;
        return Err(if spent { "its aliases stand for too much".to_owned() } else { not_yaml(error) });
    }
    let yaml: yaml_serde::Value = yaml_serde::from_str(text).map_err(not_yaml)?;
    if !yaml.is_mapping() {
        return Err("it is not a YAML mapping".to_owned());
    }
    let Ok(Value::Object(map)) = serde_json::to_value(&yaml) else {
        return Err("its keys are not texts".to_owned());
    };
    if let Some(key) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        let key = crate::domain::definition::shortened(key);
        return Err(format!(
            "it has the key {key:?}; a conda file has `name`, `channels`, `dependencies`, `prefix` and `variables`"
        ));
    }
    if map.get("variables").is_some_and(|v| !v.is_object() && !v.is_null()) {
        return Err("its `variables` are not a mapping".to_owned());
    }
    from_json(&map)
}

/// Walks over a document and stops when it holds too much: a few aliases can stand for billions of values.
struct NodeBudget<'a>(&'a Cell<usize>);

impl NodeBudget<'_> {
    fn spend<E: serde::de::Error>(&self, length: usize) -> Result<(), E> {
        match self.0.get().checked_sub(length.saturating_add(8)) {
            Some(left) if left > 0 => {
                self.0.set(left);
                Ok(())
            }
            _ => {
                self.0.set(0);
                Err(E::custom("too much content"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for NodeBudget<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for NodeBudget<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_i128<E: serde::de::Error>(self, _: i128) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_u128<E: serde::de::Error>(self, _: u128) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.spend(text.len())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while items.next_element_seed(NodeBudget(self.0))?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while members.next_key_seed(NodeBudget(self.0))?.is_some() {
            members.next_value_seed(NodeBudget(self.0))?;
        }
        Ok(())
    }

    fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<(), A::Error> {
        self.spend(0)?;
        let (_, content) = tagged.variant_seed(NodeBudget(self.0))?;
        content.newtype_variant_seed(NodeBudget(self.0))
    }
}

/// Reads the members `channels` and `dependencies`.
///
/// # Errors
///
/// Says which of them is not what conda reads.
pub(crate) fn from_json(map: &Map<String, Value>) -> Result<CondaSpec, String> {
    let mut spec = CondaSpec { channels: texts(map.get("channels"), "channels")?, ..CondaSpec::default() };
    let items = match map.get("dependencies") {
        None | Some(Value::Null) => return Ok(spec),
        Some(Value::Array(items)) => items,
        Some(_) => return Err("its `dependencies` are not a list".to_owned()),
    };
    for item in items {
        match item {
            Value::String(package) => spec.packages.push(package.clone()),
            Value::Object(inner) if inner.len() == 1 && inner.contains_key("pip") => {
                spec.pip.extend(texts(inner.get("pip"), "pip")?);
            }
            _ => {
                return Err(
                    "its `dependencies` hold something that is neither a text nor a `pip` list".to_owned()
                );
            }
        }
    }
    Ok(spec)
}

fn texts(value: Option<&Value>, name: &str) -> Result<Vec<String>, String> {
    let items = match value {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(format!("its `{name}` is not a list")),
    };
    let mut texts = Vec::with_capacity(items.len());
    for item in items {
        match item {
            Value::String(text) => texts.push(text.clone()),
            _ => return Err(format!("its `{name}` list holds something that is no text")),
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read() {
        let spec = parse(
            b"name: e\nchannels: [conda-forge]\ndependencies:\n- python=3.7\n- numpy=1.16\n- pip:\n  - chainer==6.0.0\n",
        )
        .unwrap();
        assert_eq!(spec.channels, ["conda-forge"]);
        assert_eq!(spec.pip, ["chainer==6.0.0"]);
        assert_eq!(spec.split_python(), (vec!["numpy=1.16".to_owned()], Some(Some("3.7".to_owned()))));
    }

    #[test]
    fn faults() {
        for text in [
            "",
            "- a\n",
            "dependencies: [a\nname: x",
            "foo: bar",
            "dependencies: a",
            "dependencies: [1]",
            "a: 1\na: 2",
            "channels: x",
            "variables: [a]",
        ] {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(parse(b"dependencies:\nvariables: {A: '1'}\nprefix: /x\n").is_ok());
    }

    #[test]
    fn aliases_are_followed_and_bounded() {
        let spec = parse(b"x: &a [numpy]\n").unwrap_err();
        assert!(spec.contains("the key"), "{spec}");
        let spec = parse(b"channels: &a [c]\ndependencies: *a\n").unwrap();
        assert_eq!(spec.packages, ["c"]);
        let bomb = format!("channels: &a [{}]\ndependencies: [{}]\n", "a,".repeat(8000), "*a,".repeat(8000));
        assert!(parse(bomb.as_bytes()).unwrap_err().contains("aliases"));
        let long = format!("channels: [&a {}, {}]", "x".repeat(30_000), "*a,".repeat(9000));
        assert!(parse(long.as_bytes()).unwrap_err().contains("aliases"));
        assert!(parse(" ".repeat(70_000).as_bytes()).unwrap_err().contains("64 KiB"));
        assert!(parse(b"dependencies: !tag [a]").is_err());
    }

    #[test]
    fn files_stay_inside() {
        for bad in ["file:///srv/a.tar.bz2", "/srv/a.tar.bz2", "../a.conda", "~/a.conda"] {
            assert!(package_escapes(bad), "{bad}");
        }
        for good in ["numpy=1.16.*", "conda-forge::numpy", "file:a.conda", "https://e.invalid/c/../a.conda"] {
            assert!(!package_escapes(good), "{good}");
        }
    }

    #[test]
    fn python_is_found_in_every_spelling() {
        for (spec, version) in [
            ("python", None),
            ("python=3.7", Some("3.7")),
            ("python==3.7.1", Some("3.7.1")),
            ("conda-forge::python=3.8=h1_0", Some("3.8")),
            ("python >=3.6,<3.9", Some(">=3.6,<3.9")),
            ("Python 3.9", Some("3.9")),
            ("python 3.8.1 h1_0", Some("3.8.1")),
            ("python=3.6,!=3.6.1", Some("3.6,!=3.6.1")),
            ("python=3.6|==3.7=h1_0", Some("3.6|==3.7")),
        ] {
            let (others, pin) = split_python(&[spec.to_owned()]);
            assert!(others.is_empty(), "{spec}");
            assert_eq!(pin, Some(version.map(ToOwned::to_owned)), "{spec}");
        }
        assert_eq!(split_python(&["python-dateutil".to_owned()]).1, None);
    }
}
