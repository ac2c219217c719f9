//! `environment-section-ignored`: what an environment says that no run is made of.

use serde_json::{Map, Value};

use super::{Context, Sink, words};
use crate::domain::json as pointers;

const POINTER: &str = "/environment_definition";

/// The members that are read, in both spellings, and those that only say where the environment is from.
const READ: [&str; 8] = [
    "name",
    "version",
    "environment_variables",
    "environmentVariables",
    "python",
    "docker",
    "asset_id",
    "assetId",
];
/// Of the `python` section.
const READ_OF_PYTHON: [&str; 6] = [
    "user_managed_dependencies",
    "userManagedDependencies",
    "interpreter_path",
    "interpreterPath",
    "conda_dependencies",
    "condaDependencies",
];
/// Of the `docker` section. Volumes are always those of the run, whether they may be shared or not.
const READ_OF_DOCKER: [&str; 12] = [
    "enabled",
    "base_image",
    "baseImage",
    "base_dockerfile",
    "baseDockerfile",
    "shared_volumes",
    "sharedVolumes",
    "shm_size",
    "shmSize",
    "arguments",
    "base_image_registry",
    "baseImageRegistry",
];
/// What the SDK writes where nothing was said.
const DEFAULT_INTERPRETER: &str = "python";

pub(super) fn ignored(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(own) = context.draft.environment_definition.value() else { return };
    let Some(sent) = context.body.get("environment_definition").and_then(Value::as_object) else { return };
    let member = |map: &Map<String, Value>, name: &str| map.get(name).and_then(Value::as_object).cloned();
    let (python, docker) =
        (member(sent, "python").unwrap_or_default(), member(sent, "docker").unwrap_or_default());
    unread(sent, POINTER, &READ, sink);
    let place = pointers::child(POINTER, "python");
    unread(&python, &place, &READ_OF_PYTHON, sink);
    unread(&docker, &pointers::child(POINTER, "docker"), &READ_OF_DOCKER, sink);
    if own.user_managed_dependencies.is_true() {
        if own.conda_dependencies.value().is_some_and(|conda| conda.values().any(says_something)) {
            sink.report(
                own.conda_dependencies_pointer.clone(),
                "The packages have no effect: with `user_managed_dependencies` nothing is installed.",
                words("Remove them, or let the service manage the environment."),
            );
        }
    } else if own.interpreter_path.text().is_some_and(|path| path != DEFAULT_INTERPRETER) {
        let key = ["interpreter_path", "interpreterPath"].into_iter().find(|key| python.contains_key(*key));
        sink.report(
            pointers::child(&place, key.unwrap_or("interpreter_path")),
            "The interpreter has no effect: it is used with `user_managed_dependencies` only.",
            words("Pin `python` in the conda dependencies, or set `user_managed_dependencies`."),
        );
    }
}

fn unread(section: &Map<String, Value>, pointer: &str, read: &[&str], sink: &mut Sink<'_>) {
    for (key, value) in section {
        if !read.contains(&key.as_str()) && says_something(value) && !is_this_platform(key, value) {
            sink.report(
                pointers::child(pointer, key),
                "This part of the environment has no effect on a run.",
                words("Remove it; say what the script needs in `python`, `docker` and the variables."),
            );
        }
    }
}

/// Whether a value says more than a switch: not null, no empty text, and no object or list of such.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(map) => map.values().any(says_something),
    }
}

/// What a saved environment always says of its platform.
fn is_this_platform(key: &str, value: &Value) -> bool {
    let is = |name: &str, expected: &str| {
        value.get(name).is_none_or(|value| {
            value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(expected)) || value.is_null()
        })
    };
    key == "platform" && value.is_object() && is("os", "linux") && is("architecture", "amd64")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::domain::rules::testing::warnings;

    fn ignored(environment: &Value) -> Vec<String> {
        let found = warnings(&json!({"environment_definition": environment, "framework_version": "7.0.0"}));
        let ours = found.iter().filter_map(|said| said.strip_prefix("environment-section-ignored@"));
        ours.map(str::to_owned).collect()
    }

    #[test]
    fn what_the_sdk_always_writes_says_nothing() {
        let saved = json!({
            "assetId": "azureml://registries/x", "name": "e", "version": null, "r": null, "inferencingStackVersion": null,
            "databricks": {"eggLibraries": [], "jarLibraries": [], "mavenLibraries": [], "pypiLibraries": []},
            "docker": {"arguments": [], "baseDockerfile": null, "baseImage": "a", "enabled": false, "sharedVolumes": true,
                "baseImageRegistry": {"address": null, "password": null, "registryIdentity": null, "username": null},
                "platform": {"architecture": "amd64", "os": "Linux"}, "shmSize": null, "buildContext": null},
            "environmentVariables": {"A": "b"},
            "python": {"baseCondaEnvironment": null, "interpreterPath": "python", "userManagedDependencies": false,
                "condaDependencies": {"dependencies": ["python=3.8"]}},
            "spark": {"packages": [], "precachePackages": true, "repositories": []},
        });
        assert_eq!(ignored(&saved), [""; 0]);
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let environment = json!({
            "name": "e", "r": {"rVersion": "3.5"}, "spark": {"repositories": ["https://e.invalid"]},
            "python": {"interpreter_path": "/opt/py", "baseCondaEnvironment": "base"},
            "docker": {"platform": {"os": "Windows", "architecture": "amd64"}},
        });
        let expected = [
            "/environment_definition/r",
            "/environment_definition/spark",
            "/environment_definition/python/baseCondaEnvironment",
            "/environment_definition/docker/platform",
            "/environment_definition/python/interpreter_path",
        ];
        assert_eq!(ignored(&environment), expected);
        let own = json!({"python": {"userManagedDependencies": true, "interpreterPath": "/opt/py",
            "condaDependencies": {"dependencies": ["numpy"]}}});
        assert_eq!(ignored(&own), ["/environment_definition/python/condaDependencies"]);
    }
}
