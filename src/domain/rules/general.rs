//! Rules about the body as a whole: unknown names, wrong types, deprecated words.

use serde_json::{Value, json};

use super::{CHAINER_PAGE, Context, Rule, Sink, patched, words};
use crate::domain::{
    definition::{Fault, Training},
    finding::Fix,
    finding::Severity,
    patch,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "estimator-deprecated",
        severity: Severity::Info,
        parameters: &[],
        summary: "Always there: the estimator class is deprecated.",
        doc: "The class is deprecated; its page points to ScriptRunConfig with an environment of one's own.",
        url: CHAINER_PAGE,
        refused: r#"{}"#,
        accepted: None,
        check: estimator_deprecated,
    },
    Rule {
        slug: "unknown-parameter",
        severity: Severity::Error,
        parameters: &[],
        summary: "A key is none of the 34 parameters, or no member of the nested object that it stands in.",
        doc: "The signature lists the parameters that the class takes, all but the first by keyword.",
        url: CHAINER_PAGE,
        refused: r#"{"nodeCount": 1}"#,
        accepted: Some(r#"{"node_count": 1}"#),
        check: unknown_parameter,
    },
    Rule {
        slug: "wrong-type",
        severity: Severity::Error,
        parameters: &[],
        summary: "A value is not of the documented JSON type. Nothing is converted.",
        doc: "Every parameter is documented with its type.",
        url: CHAINER_PAGE,
        refused: r#"{"node_count": "1"}"#,
        accepted: Some(r#"{"node_count": 1}"#),
        check: wrong_type,
    },
    Rule {
        slug: "deprecated-parameter",
        severity: Severity::Warning,
        parameters: &[
            "process_count_per_node",
            "distributed_backend",
            "custom_docker_base_image",
            "conda_dependencies_file_path",
            "pip_requirements_file_path",
        ],
        summary: "A deprecated parameter is used; its replacement is named.",
        doc: "These parameters are marked as deprecated, each with the one to use instead.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "node_count": 2, "process_count_per_node": 2, "distributed_backend": "mpi"}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "node_count": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 2}}"#,
        ),
        check: deprecated_parameter,
    },
    Rule {
        slug: "validation-always-on",
        severity: Severity::Info,
        parameters: &["_disable_validation"],
        summary: "Validation cannot be switched off.",
        doc: "Validation by the SDK is switched off by default.",
        url: CHAINER_PAGE,
        refused: r#"{"_disable_validation": true}"#,
        accepted: Some(r#"{}"#),
        check: validation_always_on,
    },
];

fn estimator_deprecated(_: &Context<'_>, sink: &mut Sink<'_>) {
    sink.report(
        "",
        "The Chainer estimator class is deprecated; SDK v1 as a whole is out of support since 2026-06-30. \
         The definition is still judged and run here.",
        words(
            "Nothing has to be done for this service. To move on, `POST /v1/estimators/render` writes this definition as a \
             `ScriptRunConfig` with an environment of its own (`script-run-config`), as a command job of Azure ML v2 \
             (`azureml-v2`), for Slurm or for Kubernetes; `GET /v1/estimators/{id}/migration` says of each parameter where \
             it goes.",
        ),
    );
}

fn unknown_parameter(context: &Context<'_>, sink: &mut Sink<'_>) {
    problems(context, sink, Fault::UnknownParameter);
}

fn wrong_type(context: &Context<'_>, sink: &mut Sink<'_>) {
    problems(context, sink, Fault::WrongType);
}

fn problems(context: &Context<'_>, sink: &mut Sink<'_>, fault: Fault) {
    for problem in context.draft.problems.iter().filter(|problem| problem.fault == fault) {
        let fix = Fix { description: problem.fix.clone(), patch: problem.patch.clone() };
        sink.report(problem.pointer.clone(), problem.message.clone(), fix);
    }
}

fn deprecated_parameter(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if draft.process_count_per_node.value().is_some_and(|count| *count != 1) {
        sink.report_about(
            &["distributed_training"],
            "/process_count_per_node",
            "`process_count_per_node` is deprecated: the number of processes on each node belongs in the `Mpi` \
             object of `distributed_training`.",
            leading_on(mpi_fix(context)),
        );
    }
    if draft.distributed_backend.is_given() {
        sink.report_about(
            &["distributed_training"],
            "/distributed_backend",
            "`distributed_backend` is deprecated: MPI is stated by an `Mpi` object in `distributed_training`.",
            leading_on(mpi_fix(context)),
        );
    }
    let renamed = [
        ("custom_docker_base_image", "custom_docker_image", draft.custom_docker_base_image.is_given()),
        (
            "conda_dependencies_file_path",
            "conda_dependencies_file",
            draft.conda_dependencies_file_path.is_given(),
        ),
        ("pip_requirements_file_path", "pip_requirements_file", draft.pip_requirements_file_path.is_given()),
    ];
    for (old, new, given) in renamed {
        if given {
            let message = format!("`{old}` is deprecated; the parameter is called `{new}` now.");
            sink.report_about(&[new], format!("/{old}"), message, leading_on(rename_fix(context, old, new)));
        }
    }
}

/// A deprecated parameter is replaced within the class here; what replaces the class is one step further.
fn leading_on(mut fix: Fix) -> Fix {
    fix.description.push_str(" `POST /v1/estimators/render` shows what it becomes outside the class.");
    fix
}

/// Both deprecated words about MPI are replaced by one object, so both carry this same patch.
pub(super) fn mpi_fix(context: &Context<'_>) -> Fix {
    let draft = context.draft;
    let mut operations = Vec::new();
    for name in ["process_count_per_node", "distributed_backend"] {
        if context.sent(name) {
            operations.extend(patch::discard(name));
        }
    }
    if draft.distributed_training.is_given() {
        let words = match draft.distributed_training.value() {
            Some(Training::Mpi(_)) => {
                "Remove it: `distributed_training` already states MPI, and its count holds."
            }
            _ => "Remove it, and state MPI in `distributed_training` alone.",
        };
        return patched(words, operations);
    }
    let mut object = json!({"type": "Mpi"});
    let count = draft.process_count_per_node.value().filter(|count| **count > 1);
    if let (Some(count), Value::Object(members)) = (count, &mut object) {
        members.insert("process_count_per_node".to_owned(), json!(count));
    }
    let description = format!("Write `\"distributed_training\": {object}` instead.");
    operations.push(patch::add("distributed_training", object));
    patched(description, operations)
}

fn rename_fix(context: &Context<'_>, old: &str, new: &str) -> Fix {
    let overridden = old == "custom_docker_base_image" && context.has_environment();
    let new_is_given = match new {
        "custom_docker_image" => context.draft.custom_docker_image.is_given(),
        "conda_dependencies_file" => context.draft.conda_dependencies_file.is_given(),
        _ => context.draft.pip_requirements_file.is_given(),
    };
    if overridden || new_is_given {
        let why =
            if overridden { "the environment states the image" } else { "the new spelling is given too" };
        return patched(format!("Remove `{old}`: {why}."), patch::discard(old));
    }
    patched(format!("Rename it to `{new}`."), [patch::rename(old, new)])
}

fn validation_always_on(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.disable_validation.is_true() {
        sink.report(
            "/_disable_validation",
            "`_disable_validation` is true, but this service judges every definition by every rule.",
            patched(
                "Leave it out; `false` asks for the script to be parsed as well.",
                [patch::remove("_disable_validation")],
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::{errors, finding, verdict, warnings};

    #[test]
    fn unknown_keys_come_last_in_the_order_sent() {
        let found = errors(&json!({"zzz": null, "a/b~c": 1, "framework": "PyTorch", "node_count": 0}));
        assert_eq!(
            found,
            [
                "node-count-not-positive@/node_count",
                "unknown-parameter@/zzz",
                "unknown-parameter@/a~1b~0c",
                "unknown-parameter@/framework",
            ]
        );
        assert!(errors(&json!({"framework": "Chainer"})).is_empty());
        assert_eq!(errors(&json!({"framework": null})), ["unknown-parameter@/framework"]);
    }

    #[test]
    fn a_misspelt_name_is_corrected_by_its_patch() {
        let found = finding(&json!({"nodeCount": 2}), "unknown-parameter");
        assert!(found.fix.description.contains("`node_count`"));
        let patch = json!([{"op": "move", "from": "/nodeCount", "path": "/node_count"}]);
        assert_eq!(json!(found.fix.patch), patch);
        let found = finding(&json!({"nodeCount": 2, "node_count": 2}), "unknown-parameter");
        assert_eq!(found.fix.patch, None);
    }

    #[test]
    fn nothing_is_coerced_and_everything_is_told() {
        let found = errors(&json!({
            "node_count": true, "use_gpu": 1, "pip_packages": ["a", 5, null, "b\u{0}"], "inputs": "", "resume_from": [],
            "script_params": {"--a": {"k": 1}, "--b": ["x", {"type": "Mpi"}], "--c": "\u{0}", "--d": [null, ["y"]]},
        }));
        assert_eq!(
            found,
            [
                "wrong-type@/script_params/--a",
                "wrong-type@/script_params/--b/1",
                "wrong-type@/script_params/--c",
                "wrong-type@/node_count",
                "wrong-type@/use_gpu",
                "wrong-type@/pip_packages/1",
                "wrong-type@/pip_packages/2",
                "wrong-type@/pip_packages/3",
                "wrong-type@/inputs",
                "wrong-type@/resume_from",
            ]
        );
    }

    #[test]
    fn environments_are_typed_in_both_spellings() {
        let found = errors(&json!({"environment_definition": {
            "name": 1, "environmentVariables": [], "anything": {"deep": ["\u{0}"]},
            "python": {"userManagedDependencies": "yes", "conda_dependencies": "x"},
            "docker": {"sharedVolumes": 1, "baseImage": 2, "arguments": [3], "baseImageRegistry": {"password": 4}},
        }}));
        assert_eq!(
            found,
            [
                "wrong-type@/environment_definition/name",
                "wrong-type@/environment_definition/environmentVariables",
                "wrong-type@/environment_definition/python/userManagedDependencies",
                "wrong-type@/environment_definition/python/conda_dependencies",
                "wrong-type@/environment_definition/docker/baseImage",
                "wrong-type@/environment_definition/docker/sharedVolumes",
                "wrong-type@/environment_definition/docker/arguments/0",
                "wrong-type@/environment_definition/docker/baseImageRegistry/password",
                "wrong-type@/environment_definition/anything/deep/0",
                "registry-incomplete@/environment_definition/docker/baseImageRegistry/address",
                "registry-incomplete@/environment_definition/docker/baseImageRegistry/username",
            ]
        );
    }

    #[test]
    fn a_far_name_is_not_taken_for_what_was_meant() {
        let fix = |name: &str| finding(&json!({name: 1}), "unknown-parameter").fix.description;
        assert_eq!(fix("entry_scrpt"), "Write `entry_script` if that is what you mean, or remove it.");
        assert_eq!(fix("zzz"), "The nearest name is `vm_size`; remove \"zzz\" if that is not what you mean.");
    }

    #[test]
    fn deprecations_lead_to_the_renderings() {
        let fix = finding(&json!({}), "estimator-deprecated").fix.description;
        assert!(fix.contains("/v1/estimators/render") && fix.contains("/migration"), "{fix}");
        let fix = finding(&json!({"custom_docker_base_image": "a"}), "deprecated-parameter").fix.description;
        assert!(
            fix.starts_with("Rename it to `custom_docker_image`.") && fix.contains("/v1/estimators/render"),
            "{fix}"
        );
    }

    #[test]
    fn both_deprecated_words_carry_the_same_patch() {
        let members = json!({"node_count": 2, "process_count_per_node": 4, "distributed_backend": "MPI"});
        let verdict = verdict(&members);
        assert!(verdict.is_valid());
        let patches: Vec<_> = verdict
            .findings
            .iter()
            .filter(|f| f.rule == "deprecated-parameter")
            .map(|f| f.fix.patch.clone())
            .collect();
        assert_eq!(patches.len(), 2);
        assert_eq!(patches[0], patches[1]);
        assert_eq!(
            json!(patches[0]),
            json!([
                {"op": "add", "path": "/process_count_per_node", "value": null},
                {"op": "remove", "path": "/process_count_per_node"},
                {"op": "add", "path": "/distributed_backend", "value": null},
                {"op": "remove", "path": "/distributed_backend"},
                {"op": "add", "path": "/distributed_training", "value": {"type": "Mpi", "process_count_per_node": 4}},
            ])
        );
    }

    #[test]
    fn old_names_move_to_new_ones_unless_those_are_taken() {
        let moved = finding(&json!({"pip_requirements_file_path": "req.txt"}), "deprecated-parameter");
        assert_eq!(
            json!(moved.fix.patch),
            json!([{"op": "move", "from": "/pip_requirements_file_path", "path": "/pip_requirements_file"}])
        );
        let members = json!({"pip_requirements_file_path": "no.txt", "pip_requirements_file": "req.txt"});
        assert!(errors(&members).is_empty());
        let removed = finding(&members, "deprecated-parameter");
        assert_eq!(
            json!(removed.fix.patch),
            json!([
                {"op": "add", "path": "/pip_requirements_file_path", "value": null},
                {"op": "remove", "path": "/pip_requirements_file_path"},
            ])
        );
        assert!(warnings(&json!({"process_count_per_node": 1})).is_empty());
    }
}
