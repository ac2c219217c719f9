//! Rules about the framework version, variables, and the environment that takes precedence.

use super::{CHAINER_PAGE, Context, Rule, Sink, grammar::words as names, patched, words};
use crate::domain::{
    definition::{Variables, nearest, shortened},
    finding::Severity,
    framework, json as pointers, patch,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "conflicting-parameters",
        severity: Severity::Error,
        parameters: &[
            "distributed_backend",
            "distributed_training",
            "use_docker",
            "custom_docker_base_image",
            "custom_docker_image",
            "conda_packages",
            "pip_packages",
            "pip_requirements_file",
            "pip_requirements_file_path",
            "_enable_optimized_mode",
        ],
        summary: "Parameters that exclude each other are given together.",
        doc: "Invalid combinations of parameters are reported.",
        url: CHAINER_PAGE,
        refused: r#"{"distributed_backend": "mpi", "distributed_training": {"type": "Mpi"}}"#,
        accepted: Some(r#"{"distributed_training": {"type": "Mpi"}}"#),
        check: conflicting_parameters,
    },
    Rule {
        slug: "environment-variable-invalid",
        severity: Severity::Error,
        parameters: &["environment_variables", "environment_definition"],
        summary: "Variables have names that processes can be given, and values that are texts, numbers or booleans.",
        doc: "The parameter is a dictionary of names and values that are set on the process of the script.",
        url: CHAINER_PAGE,
        refused: r#"{"environment_variables": {"OMP-THREADS": 2}}"#,
        accepted: Some(r#"{"environment_variables": {"OMP_NUM_THREADS": 2}}"#),
        check: environment_variable_invalid,
    },
    Rule {
        slug: "reserved-name",
        severity: Severity::Error,
        parameters: &["environment_variables", "inputs", "script_params", "environment_definition"],
        summary: "Names that the service or the system needs cannot be taken.",
        doc: "Inputs become environment variables of the run, beside those that are always set.",
        url: CHAINER_PAGE,
        refused: r#"{"environment_variables": {"AZUREML_RUN_ID": "mine"}}"#,
        accepted: Some(r#"{"environment_variables": {"MY_RUN_ID": "mine"}}"#),
        check: reserved_name,
    },
    Rule {
        slug: "environment-definition-conflict",
        severity: Severity::Error,
        parameters: &[
            "environment_definition",
            "use_gpu",
            "custom_docker_image",
            "image_registry_details",
            "user_managed",
            "conda_packages",
            "pip_packages",
            "conda_dependencies_file_path",
            "pip_requirements_file_path",
            "conda_dependencies_file",
            "pip_requirements_file",
            "shm_size",
            "environment_variables",
        ],
        summary: "An environment states everything itself; parameters that say the same clash with it.",
        doc: "The environment takes precedence over the parameters that describe one.",
        url: CHAINER_PAGE,
        refused: r#"{"environment_definition": {"name": "chainer"}, "pip_packages": ["scikit-learn"]}"#,
        accepted: Some(
            r#"{"environment_definition": {"name": "chainer", "python": {"conda_dependencies": {"dependencies": ["python=3.6.2", {"pip": ["chainer==7.0.0", "scikit-learn"]}]}}}}"#,
        ),
        check: environment_definition_conflict,
    },
    Rule {
        slug: "overridden-by-environment-definition",
        severity: Severity::Warning,
        parameters: &["use_docker", "custom_docker_base_image", "environment_definition"],
        summary: "Parameters that an environment overrides have no effect.",
        doc: "The environment takes precedence over the parameters that describe one.",
        url: CHAINER_PAGE,
        refused: r#"{"environment_definition": {"name": "chainer"}, "use_docker": true}"#,
        accepted: Some(r#"{"environment_definition": {"name": "chainer", "docker": {"enabled": true}}}"#),
        check: overridden_by_environment_definition,
    },
    Rule {
        slug: "environment-section-ignored",
        severity: Severity::Warning,
        parameters: &["environment_definition"],
        summary: "Of an environment counts what concerns a Python script: other sections have no effect when they say something.",
        doc: "An environment also describes Spark, Databricks and R, which an estimator's script does not run on.",
        url: "https://learn.microsoft.com/en-us/python/api/azureml-core/azureml.core.environment.environment?view=azure-ml-py",
        refused: r#"{"environment_definition": {"name": "chainer", "spark": {"packages": [{"group": "com.example"}]}}}"#,
        accepted: Some(
            r#"{"environment_definition": {"name": "chainer", "spark": {"packages": [], "precachePackages": true}}}"#,
        ),
        check: super::environment_sections::ignored,
    },
    Rule {
        slug: "framework-version-unsupported",
        severity: Severity::Error,
        parameters: &["framework_version"],
        summary: "The framework version is exactly `5.1.0` or `7.0.0`.",
        doc: "The supported versions of the class are listed.",
        url: CHAINER_PAGE,
        refused: r#"{"framework_version": "6.0.0"}"#,
        accepted: Some(r#"{"framework_version": "7.0.0"}"#),
        check: framework_version_unsupported,
    },
    Rule {
        slug: "framework-version-defaulted",
        severity: Severity::Warning,
        parameters: &["framework_version"],
        summary: "No framework version is given, and a default is used.",
        doc: "Without a version the default of the class is used, with a warning.",
        url: CHAINER_PAGE,
        refused: r#"{"framework_version": null}"#,
        accepted: Some(r#"{"framework_version": "5.1.0"}"#),
        check: framework_version_defaulted,
    },
];

fn framework_version_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(version) = context.draft.framework_version.text() else {
        return;
    };
    if framework::SUPPORTED_VERSIONS.contains(&version) {
        return;
    }
    let near = nearest(version, framework::SUPPORTED_VERSIONS).unwrap_or(framework::DEFAULT_VERSION);
    sink.report(
        "/framework_version",
        format!("`framework_version` is {:?}; it is exactly `5.1.0` or `7.0.0`.", shortened(version)),
        words(format!("Write `{near}` if that is the version you mean. `pip_packages` can replace chainer by another version.")),
    );
}

fn framework_version_defaulted(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if draft.framework_version.is_given()
        || draft.user_managed.is_true()
        || draft.user_managed.is_faulty()
        || draft.environment_definition.is_faulty()
    {
        return;
    }
    if let Some(environment) = draft.environment_definition.value()
        && (environment.user_managed_dependencies.is_true()
            || environment.user_managed_dependencies.is_faulty())
    {
        return;
    }
    sink.report(
        "/framework_version",
        format!("`framework_version` is not given; {} is used.", framework::DEFAULT_VERSION),
        patched(
            "State the version, so that a later default changes nothing.",
            [patch::add("framework_version", framework::DEFAULT_VERSION)],
        ),
    );
}

/// The objects of variables that there are: the parameter's, and the environment's own.
fn all_variables<'a>(context: &'a Context<'_>) -> Vec<&'a Variables> {
    let mut found: Vec<&Variables> = context.draft.environment_variables.value().into_iter().collect();
    if let Some(environment) = context.draft.environment_definition.value() {
        found.extend(environment.variables.value());
    }
    found
}

fn environment_variable_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    for variables in all_variables(context) {
        for variable in &variables.entries {
            let shown = shortened(&variable.name);
            let message = if !names::is_identifier(&variable.name) {
                format!("{shown:?} is no name of a variable: a letter or `_`, then letters, digits and `_`.")
            } else if let Err(found) = variable.value {
                format!("The variable `{shown}` is {found}; a value is a text, a number or a boolean.")
            } else {
                continue;
            };
            sink.report(
                pointers::child(&variables.pointer, &variable.name),
                message,
                words("Rename the variable, or write its value as a text."),
            );
        }
    }
}

pub(super) fn reserved_variable(context: &Context<'_>, sink: &mut Sink<'_>) {
    for variables in all_variables(context) {
        for variable in &variables.entries {
            if names::is_reserved_variable(&variable.name) {
                sink.report(
                    pointers::child(&variables.pointer, &variable.name),
                    format!(
                        "The variable `{}` is reserved: names that begin with `AZUREML_` or `ESTIMATORD_` are set by \
                         the service.",
                        shortened(&variable.name)
                    ),
                    words("Choose a name that begins with something else."),
                );
            }
        }
    }
}

fn environment_definition_conflict(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.has_environment() {
        return;
    }
    let draft = context.draft;
    let mut clashes = vec![
        ("use_gpu", draft.use_gpu.is_true()),
        ("custom_docker_image", draft.custom_docker_image.is_given()),
        ("image_registry_details", draft.image_registry_details.is_given()),
        ("user_managed", draft.user_managed.is_true()),
        ("shm_size", draft.shm_size.is_given()),
        ("environment_variables", draft.environment_variables.is_given()),
    ];
    clashes.extend(super::packages::package_parameters(draft));
    for (name, clash) in clashes {
        if clash {
            sink.report_about(
                &["environment_definition"],
                format!("/{name}"),
                format!("`{name}` does not go with `environment_definition`, which states the environment as a whole."),
                patched(
                    format!("Remove `{name}` and say it inside the environment."),
                    patch::discard(name),
                ),
            );
        }
    }
}

fn overridden_by_environment_definition(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.has_environment() {
        return;
    }
    for (name, given) in [
        ("use_docker", context.draft.use_docker.is_given()),
        ("custom_docker_base_image", context.draft.custom_docker_base_image.is_given()),
    ] {
        if given {
            sink.report_about(
                &["environment_definition"],
                format!("/{name}"),
                format!("`{name}` has no effect: `environment_definition` takes precedence."),
                patched(
                    format!("Remove `{name}` and say it in the `docker` part of the environment."),
                    patch::discard(name),
                ),
            );
        }
    }
}

/// `reserved-name`: variables and inputs.
fn reserved_name(context: &Context<'_>, sink: &mut Sink<'_>) {
    reserved_variable(context, sink);
    super::data::reserved_input(context, sink);
}

/// `conflicting-parameters`: every pair or group that excludes each other.
fn conflicting_parameters(context: &Context<'_>, sink: &mut Sink<'_>) {
    super::distributed::both_ways(context, sink);
    super::kubernetes::kubernetes_without_docker(context, sink);
    super::kubernetes::what_pods_have_not(context, sink);
    super::images::both_images(context, sink);
    super::packages::conda_file_and_packages(context, sink);
    super::images::optimized_mode(context, sink);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::{errors, warnings};

    #[test]
    fn versions_are_exact_and_defaulted_aloud() {
        for version in ["5.1", "v7.0.0", "7.0.0\n", " 5.1.0"] {
            let found = errors(&json!({"framework_version": version}));
            assert_eq!(found, ["framework-version-unsupported@/framework_version"], "{version:?}");
        }
        let defaulted = ["framework-version-defaulted@/framework_version"];
        assert_eq!(warnings(&json!({"framework_version": null})), defaulted);
        assert!(warnings(&json!({"framework_version": null, "user_managed": true})).is_empty());
        let env = |managed: bool| {
            json!({"framework_version": null, "environment_definition":
            {"name": "e", "python": {"userManagedDependencies": managed}}})
        };
        assert!(warnings(&env(true)).is_empty());
        assert_eq!(warnings(&env(false)), defaulted);
    }

    #[test]
    fn variables_can_be_set() {
        assert_eq!(
            errors(
                &json!({"environment_variables": {"A": "1", "b c": 2, "C": null, "D": "\u{0}", "AZUREML_X": true,
                "azureml_y": 1, "": 1}})
            ),
            [
                "environment-variable-invalid@/environment_variables/b c",
                "environment-variable-invalid@/environment_variables/C",
                "environment-variable-invalid@/environment_variables/D",
                "environment-variable-invalid@/environment_variables/",
                "reserved-name@/environment_variables/AZUREML_X",
            ]
        );
        assert_eq!(
            errors(
                &json!({"environment_definition": {"environmentVariables": {"A": null, "ESTIMATORD_B": 1}}})
            ),
            [
                "environment-variable-invalid@/environment_definition/environmentVariables/A",
                "reserved-name@/environment_definition/environmentVariables/ESTIMATORD_B",
            ]
        );
    }

    #[test]
    fn an_environment_states_everything() {
        assert_eq!(
            errors(&json!({"environment_definition": {"name": "e"}, "use_gpu": false, "user_managed": false,
                "shm_size": "2g", "pip_packages": ["a"], "environment_variables": {"A": 1}, "conda_packages": []})),
            [
                "environment-definition-conflict@/pip_packages",
                "environment-definition-conflict@/environment_variables",
                "environment-definition-conflict@/shm_size",
            ]
        );
        assert_eq!(
            warnings(&json!({"environment_definition": {"name": "e"}, "use_docker": true})),
            ["overridden-by-environment-definition@/use_docker"]
        );
    }
}
