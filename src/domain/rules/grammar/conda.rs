//! conda environment files, and the same structure inside an `Environment`.

use serde_json::{Map, Value};

use super::pip;

/// The keys that a conda file may have.
const KEYS: &[&str] = &["name", "channels", "dependencies", "prefix", "variables"];

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
        self.pip.iter().find_map(|entry| pip::parse(entry).ok()?.escape)
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
    let version = exact.split(['=', ' ', '[']).next().unwrap_or_default();
    if version.starts_with(['<', '>', '!', '~']) {
        return Some(exact.split('[').next().unwrap_or(exact).trim().to_owned());
    }
    if version.is_empty() { None } else { Some(version.to_owned()) }
}

/// Reads a conda file.
///
/// # Errors
///
/// Says why it is none.
pub(crate) fn parse(bytes: &[u8]) -> Result<CondaSpec, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?;
    let yaml: yaml_serde::Value = yaml_serde::from_str(text).map_err(|error| {
        let place = error.location().map(|at| format!(" (line {}, column {})", at.line(), at.column()));
        format!("it is not YAML{}", place.unwrap_or_default())
    })?;
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
    fn python_is_found_in_every_spelling() {
        for (spec, version) in [
            ("python", None),
            ("python=3.7", Some("3.7")),
            ("python==3.7.1", Some("3.7.1")),
            ("conda-forge::python=3.8=h1_0", Some("3.8")),
            ("python >=3.6,<3.9", Some(">=3.6,<3.9")),
            ("Python 3.9", Some("3.9")),
        ] {
            let (others, pin) = split_python(&[spec.to_owned()]);
            assert!(others.is_empty(), "{spec}");
            assert_eq!(pin, Some(version.map(ToOwned::to_owned)), "{spec}");
        }
        assert_eq!(split_python(&["python-dateutil".to_owned()]).1, None);
    }
}
