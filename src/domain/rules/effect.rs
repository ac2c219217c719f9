//! What a definition may ask for and this version cannot do yet. Only starting a run asks.

use serde_json::{Map, Value};

use super::{CHAINER_PAGE, Context, Rule, Sink, grammar::shm, words};
use crate::domain::{
    definition::Draft,
    finding::{Finding, Severity},
    framework,
};

/// The rule of these findings. It is not part of the catalogue of validation: it refuses runs, not definitions.
pub(crate) static EFFECT: Rule = Rule {
    slug: "parameter-not-yet-effective",
    severity: Severity::Error,
    parameters: &[],
    summary: "A run is refused when its definition uses a parameter that this version cannot put into effect yet.",
    doc: "Every parameter of the class has a documented effect; a run that silently left one out would be another run.",
    url: CHAINER_PAGE,
    refused: r#"{"shm_size": "8g"}"#,
    accepted: Some("{}"),
    check: used,
};

/// One finding for each parameter that is used and has no effect yet.
pub(crate) fn not_yet_effective(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    (EFFECT.check)(context, &mut Sink::new(&EFFECT, &mut findings));
    super::in_order(context.body, &mut findings);
    findings
}

fn used(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let environment = draft.environment_definition.is_given();
    let image = draft.image().is_given();
    let old_image = !environment && draft.custom_docker_base_image.is_given();
    let shm_size = draft.shm_size.text().is_some_and(|size| !shm::is_same(size, framework::DEFAULT_SHM_SIZE));
    // Nothing is built into images yet: what is in them already can be used.
    let built = !draft.user_managed.is_true();
    let parameters = [
        ("use_gpu", built && draft.use_gpu.is_true()),
        ("custom_docker_base_image", built && old_image),
        ("custom_docker_image", built && draft.custom_docker_image.is_given()),
        ("environment_definition", environment && environment_needs_more(draft, context.body)),
        ("shm_size", shm_size && (built || !image) && !draft.use_docker.is_false()),
    ];
    for (name, is_used) in parameters {
        if is_used {
            sink.report(
                format!("/{name}"),
                format!("`{name}` is valid, but this version cannot put what it says into effect yet."),
                words(format!("Remove `{name}` for now, or only validate and store the definition.")),
            );
        }
    }
}

/// Whether an environment says more than: these variables, and this interpreter or these pip packages.
fn environment_needs_more(draft: &Draft, body: &Map<String, Value>) -> bool {
    let sent = body.get("environment_definition").and_then(Value::as_object);
    let (Some(own), Some(sent)) = (draft.environment_definition.value(), sent) else {
        return true;
    };
    let self_managed = own.user_managed_dependencies.is_true();
    sent.iter().any(|(key, value)| match key.as_str() {
        "name" | "version" | "environment_variables" | "environmentVariables" => false,
        "python" => members(value).any(|(key, value)| match key.as_str() {
            "user_managed_dependencies" | "userManagedDependencies" => false,
            "interpreter_path" | "interpreterPath" => false,
            "conda_dependencies" | "condaDependencies" if !self_managed => false,
            _ => !is_empty(value),
        }),
        "docker" => members(value).any(|(key, value)| match key.as_str() {
            // Without an image of its own a managed environment is the same in a container and outside of one.
            "enabled" => self_managed && value.as_bool() == Some(true),
            _ => !is_empty(value),
        }),
        _ => !is_empty(value),
    })
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// Whether a value says nothing: null, an empty text, or an object or list of such.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.iter().all(is_empty),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::domain::{
        judge::not_yet_effective,
        rules::testing::{verdict, world},
    };

    fn not_yet(members: &Value) -> Vec<String> {
        let accepted = verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid"));
        not_yet_effective(&accepted, &world()).into_iter().map(|f| f.pointer).collect()
    }

    #[test]
    fn what_runs_now() {
        for members in [
            json!({}),
            json!({"script_params": {"--a": [1, null]}, "node_count": 2, "distributed_training": {"type": "Mpi"}}),
            json!({"process_count_per_node": 2, "distributed_backend": "mpi", "max_run_duration_seconds": 5}),
            json!({"use_docker": false, "shm_size": "4g", "use_gpu": false}),
            json!({"shm_size": "2G"}),
            json!({"shm_size": "2048m"}),
            json!({"shm_size": "2g", "vm_size": "STANDARD_NC6", "vm_priority": "dedicated"}),
            json!({"user_managed": true, "environment_variables": {"A": 1}}),
            json!({"user_managed": true, "custom_docker_image": "a", "shm_size": "8g"}),
            json!({"user_managed": true, "custom_docker_base_image": "a"}),
            json!({"user_managed": true, "compute_target": "gpu-cluster", "use_gpu": true}),
            json!({"compute_target": null, "vm_size": "STANDARD_NC6", "vm_priority": "dedicated"}),
            json!({"pip_packages": ["--pre", "-e ./pkg"], "pip_requirements_file_path": "req_options.txt"}),
            json!({"pip_packages": ["numpy", "https://e.invalid/a.whl"], "pip_requirements_file": "req.txt"}),
            json!({"image_registry_details": {"address": "a"}, "_disable_validation": true, "_show_lint_warnings": true}),
            json!({"_disable_validation": false, "_show_lint_warnings": true, "_show_package_warnings": true}),
            json!({"inputs": ["mystore"], "source_directory_data_store": "mystore",
                "resume_from": {"type": "DataPath", "datastore": "mystore"}}),
            json!({"user_managed": true, "custom_docker_image": "a",
                "image_registry_details": {"address": "a", "username": "u", "password": "p"}}),
            json!({"_enable_optimized_mode": true, "pip_packages": ["numpy"]}),
            json!({"conda_packages": ["a"], "pip_packages": ["--pre"]}),
            json!({"conda_dependencies_file": "conda.yml"}),
            json!({"environment_definition": {"python": {"conda_dependencies": {"dependencies": ["python=3.8", "scipy"]}}}}),
            json!({"environment_definition": {"name": "e"}}),
            json!({"environment_definition": {"docker": {"enabled": true}, "python": {"interpreter_path": "python",
                "condaDependencies": {"name": "x", "channels": ["c"], "dependencies": ["python=3.8", "pip=20", {"pip": ["a", "-r req.txt"]}]}}}}),
            json!({"environment_definition": {"docker": {"enabled": false}, "python": {"user_managed_dependencies": true}}}),
            json!({"environment_definition": {"name": "e", "version": "1", "environmentVariables": {"A": "b"},
                "python": {"userManagedDependencies": true, "interpreter_path": "python3", "condaDependencies": null},
                "docker": {"baseImageRegistry": {"address": null}, "arguments": []}}, "use_docker": true}),
        ] {
            assert!(not_yet(&members).is_empty(), "{members}: {:?}", not_yet(&members));
        }
    }

    #[test]
    fn what_does_not_yet() {
        for (members, pointers) in [
            (json!({"compute_target": "gpu-cluster", "use_gpu": true}), vec!["/use_gpu"]),
            (json!({"custom_docker_base_image": "a"}), vec!["/custom_docker_base_image"]),
            (
                json!({"custom_docker_image": "a", "image_registry_details": {"address": "a"}}),
                vec!["/custom_docker_image"],
            ),
            (json!({"shm_size": "4g"}), vec!["/shm_size"]),
            (
                json!({"environment_definition": {"docker": {"base_image": "a"}}}),
                vec!["/environment_definition"],
            ),
            (
                json!({"environment_definition": {"python": {"user_managed_dependencies": true}, "docker": {"enabled": true}}}),
                vec!["/environment_definition"],
            ),
        ] {
            assert_eq!(not_yet(&members), pointers, "{members}");
        }
    }
}
