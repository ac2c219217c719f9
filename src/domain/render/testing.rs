//! Definitions that every format is tried with.

use serde_json::{Map, Value};

use super::{Format, Rendering, Subject, render};
use crate::domain::{
    judge::{Accepted, plan},
    plan::Plan,
    rules::testing::verdict,
};

/// Name → the members (JSON) that are put over the body of `rules::testing`.
///
/// Texts that a shell, YAML, Python or a template would take for something else are in them on purpose.
pub(crate) static CASES: &[(&str, &str)] = &[
    ("minimal", "{}"),
    (
        "hostile_arguments",
        r##"{"script_params": {
            "--spaces": "a  b ", "--quotes": "it's \"quoted\"", "--id": "$(id)", "--home": "$(HOME) $HOME `id`",
            "--template": "${{x}} ${{inputs.x}} $${{{y}}}", "--lines": "one\ntwo\r\n\tthree", "--letter": "é 训 \u2028 \ufeff",
            "--slash": "a\\b\\", "-": "-n", "--": "--", "--list": ["*", "~", "#", "!x", "", "%j"], "--empty": [],
            "--no": "no", "--number": 1e3, "--octal": "012", "--flag": true, "--yaml": "a: b", "--braces": "{{x}} {x} {0}",
            "--bell": "\u0007 \u001b[0m \u0085", "${{": "}}", "--split": ["$", "{{x}}", "'${{'"]}}"##,
    ),
    (
        "mpi",
        r#"{"node_count": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 4},
            "script_params": {"--epochs": 3}}"#,
    ),
    (
        "mpi_hostile_arguments",
        r#"{"node_count": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 2}, "script_params":
            {"--a": [":", "it's $(HOME)", "one\ntwo", "-x"]}, "environment_variables": {"estimatord_command": "x", "PATH": "/own"}}"#,
    ),
    ("mpi_one_by_one", r#"{"distributed_backend": "MPI", "process_count_per_node": 1, "node_count": 1}"#),
    (
        "one_off_low_priority",
        r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": "lowpriority"}"#,
    ),
    (
        "one_off_mpi",
        r#"{"compute_target": "", "vm_size": "STANDARD_D2_V2", "node_count": 2, "distributed_backend": "mpi",
            "process_count_per_node": 2}"#,
    ),
    ("gpu", r#"{"compute_target": "gpu-cluster", "use_gpu": true, "framework_version": "5.1.0"}"#),
    (
        "custom_image",
        r#"{"custom_docker_image": "registry.example.com:5000/team/own:1.2", "image_registry_details":
            {"address": "registry.example.com:5000", "username": "it's \"me\"", "password": "s3cret"}}"#,
    ),
    ("own_chainer", r#"{"pip_packages": ["chainer==6.0.0"]}"#),
    (
        "without_docker",
        r#"{"use_docker": false, "conda_packages": ["scipy==1.5"], "pip_packages": ["numpy"]}"#,
    ),
    (
        "packages",
        r#"{"conda_packages": ["python=3.8.5", "scipy>=1.5,<2"], "pip_packages": ["Chainer[docs]>=6", "numpy",
            "https://e.invalid/wheel-1.0-py3-none-any.whl", "enum34; python_version<'3.4'", "--pre"],
            "pip_requirements_file": "req.txt"}"#,
    ),
    ("python_range", r#"{"conda_packages": ["python>=3.6,<3.9", "pip"], "pip_packages": ["-r req.txt"]}"#),
    ("python_without_version", r#"{"conda_packages": ["python"]}"#),
    ("conda_file", r#"{"conda_dependencies_file": "conda.yml"}"#),
    ("optimized", r#"{"_enable_optimized_mode": true, "pip_packages": ["numpy"]}"#),
    ("user_managed", r#"{"user_managed": true, "environment_variables": {"A": "1"}}"#),
    (
        "environment_definition",
        r#"{"environment_definition": {
            "name": "own", "version": "3", "environmentVariables": {"A": "x y", "B": 1.50},
            "python": {"conda_dependencies": {"channels": ["c", "conda-forge"], "dependencies":
                ["python=3.8", "scipy", {"pip": ["numpy==1.19", "-r req.txt"]}]}},
            "docker": {"base_image": "registry.example.com/own:2", "shm_size": "512m", "arguments": ["--cap-add", "SYS PTRACE"],
                "shared_volumes": false,
                "base_image_registry": {"address": "registry.example.com", "username": "u", "password": "s3cret"}}}}"#,
    ),
    (
        "environment_definition_user_managed",
        r#"{"environment_definition": {"name": "mine", "python": {"user_managed_dependencies": true, "interpreter_path": "/opt/my py/bin/python"},
            "docker": {"enabled": false}}}"#,
    ),
    (
        "dockerfile",
        r#"{"environment_definition": {"docker": {"base_dockerfile": "FROM ubuntu:22.04\nRUN echo \"it's\" > /x\n"},
            "python": {"user_managed_dependencies": true}}}"#,
    ),
    (
        "data",
        r#"{"inputs": ["mystore",
            {"type": "DataReference", "datastore": "mystore", "data_reference_name": "train", "path_on_datastore": "sets/a b"},
            {"type": "DataReference", "datastore": "my-files", "data_reference_name": "copied", "path_on_datastore": "x",
                "mode": "download", "path_on_compute": "/data/x", "overwrite": true},
            {"type": "DataReference", "datastore": "my-files", "data_reference_name": "written", "path_on_datastore": "out",
                "mode": "upload", "path_on_compute": "results", "overwrite": true},
            {"type": "DatasetConsumptionConfig", "name": "mounted", "dataset": {"datastore": "mystore", "path": "set/*.csv"},
                "mode": "mount", "path_on_compute": "/data/mounted"},
            {"type": "DatasetConsumptionConfig", "name": "fetched", "dataset": {"datastore": "mystore", "path": "set"},
                "mode": "download"},
            {"type": "DatasetConsumptionConfig", "name": "opened", "dataset": {"datastore": "mystore", "path": "set"}}],
            "script_params": {
                "--train": {"type": "DataReference", "datastore": "mystore", "data_reference_name": "train",
                    "path_on_datastore": "sets/a b"},
                "--literal": "$AZUREML_DATAREFERENCE_train",
                "--more": [{"type": "DataReference", "datastore": "mystore", "path_on_datastore": "unnamed"},
                    {"type": "DatasetConsumptionConfig", "name": "fetched", "dataset": {"datastore": "mystore", "path": "set"},
                        "mode": "download"}],
                "--out": {"type": "DataReference", "datastore": "my-files", "data_reference_name": "written",
                    "path_on_datastore": "out", "mode": "upload", "path_on_compute": "results", "overwrite": true}},
            "resume_from": {"type": "DataPath", "datastore": "mystore", "path_on_datastore": "models/é/1"},
            "source_directory_data_store": "my-files"}"#,
    ),
    (
        "resume_in_place",
        r#"{"script_params": {"--resume-from": "old", "--a": 1}, "resume_from":
            {"type": "DataPath", "datastore": "mystore", "path_on_datastore": "c"}}"#,
    ),
    (
        "names_of_checkpoints",
        r#"{"inputs": [
            {"type": "DataReference", "datastore": "my-files", "data_reference_name": "MODEL_LOCATION", "path_on_datastore": "other"},
            {"type": "DataReference", "datastore": "my-files", "data_reference_name": "resume_from", "mode": "upload",
                "path_on_compute": "o"}],
            "resume_from": {"type": "DataPath", "datastore": "mystore", "path_on_datastore": "${{name}}/c"}}"#,
    ),
    (
        "variables",
        r##"{"environment_variables": {"PLAIN": "x", "EMPTY": "", "NO": "no", "TILDE": "~", "OCTAL": "012", "NUMBER": 1e3,
            "FLAG": false, "LINES": "one\ntwo\n", "QUOTES": "it's \"q\" \\ $HOME ${{x}} $(id)", "LETTER": "é", "NULL": "null",
            "SPACE": " x ", "HASH": "a #b", "COLON": "a: b", "LOW": "\u0007\u0085\u2028\ufeff"}}"##,
    ),
    ("limits", r#"{"max_run_duration_seconds": 3600, "shm_size": "8G"}"#),
    ("other_place", r#"{"entry_script": "./sub/other.py", "compute_target": "local"}"#),
    ("kubernetes", r#"{"compute_target": "kube", "max_run_duration_seconds": 60}"#),
    (
        "validation",
        r#"{"_disable_validation": false, "_show_lint_warnings": true, "_show_package_warnings": true,
            "custom_docker_base_image": "own:1", "conda_packages": ["scipy"]}"#,
    ),
];

/// The accepted definition of a case.
pub(crate) fn accepted(name: &str, members: &str) -> Accepted {
    let members: Map<String, Value> = serde_json::from_str(members).unwrap_or_else(|e| panic!("{name}: {e}"));
    let verdict = verdict(&Value::Object(members));
    verdict.accepted.unwrap_or_else(|| panic!("{name}: {:#?}", verdict.findings))
}

/// Gives the subject of every case to `use_it`.
pub(crate) fn for_each(mut use_it: impl FnMut(&str, &Subject<'_>)) {
    for (name, members) in CASES {
        let accepted = accepted(name, members);
        let plan: Plan = plan(&accepted);
        use_it(name, &Subject { plan: &plan, definition: Some(&accepted.definition) });
    }
}

/// Every case as a format, with its name.
pub(crate) fn rendered(format: Format) -> Vec<(String, Rendering)> {
    let mut all = Vec::new();
    for_each(|name, subject| all.push((name.to_owned(), render(format, subject))));
    all
}

/// A text as a Python literal, for the test that asks Python.
pub(crate) fn python_literal(text: &str) -> String {
    super::quoting::python(text)
}

/// A rendering for a snapshot: the text, and what it does not say.
pub(crate) fn shown(rendering: &Rendering) -> String {
    let mut text = rendering.text.clone();
    text.push_str("\n---- not expressed\n");
    for entry in &rendering.not_expressed {
        text.push_str(&format!("{} ({:?}): {}\n", entry.parameter, entry.equivalence, entry.note));
    }
    text
}

#[test]
fn a_rendering_says_what_was_given_only_and_no_secret() {
    for_each(|name, subject| {
        for format in Format::ALL {
            let rendering = render(format, subject);
            for entry in &rendering.not_expressed {
                let given = subject.definition.unwrap().body().get(&entry.parameter);
                assert!(given.is_some_and(|value| !value.is_null()), "{name} {format:?} {}", entry.parameter);
            }
            assert!(!rendering.text.contains("s3cret"), "{name} {format:?}");
        }
    });
}
