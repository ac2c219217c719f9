//! Rules about the conda file and the requirements file.

use super::{CHAINER_PAGE, Context, FileState, Rule, Sink, words};
use crate::domain::{
    definition::{Given, shortened},
    finding::Severity,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "file-not-found",
        severity: Severity::Error,
        parameters: &[
            "conda_dependencies_file_path",
            "pip_requirements_file_path",
            "conda_dependencies_file",
            "pip_requirements_file",
        ],
        summary: "The conda file and the requirements file must be files of the source directory.",
        doc: "Both files are given by paths relative to the source directory.",
        url: CHAINER_PAGE,
        refused: r#"{"pip_requirements_file": "requirments.txt"}"#,
        accepted: Some(r#"{"source_directory": "${files}", "pip_requirements_file": "requirements.txt"}"#),
        check: file_not_found,
    },
    Rule {
        slug: "conda-file-invalid",
        severity: Severity::Error,
        parameters: &["conda_dependencies_file_path", "conda_dependencies_file"],
        summary: "The conda file is a YAML mapping with the keys that conda knows.",
        doc: "The file states the dependencies in conda's YAML format.",
        url: CHAINER_PAGE,
        refused: r#"{"source_directory": "${files}", "conda_dependencies_file": "settings.yml"}"#,
        accepted: Some(r#"{"source_directory": "${files}", "conda_dependencies_file": "conda.yml"}"#),
        check: conda_file_invalid,
    },
    Rule {
        slug: "requirements-file-invalid",
        severity: Severity::Error,
        parameters: &["pip_requirements_file_path", "pip_requirements_file"],
        summary: "The requirements file has pip's format.",
        doc: "The file lists pip requirements.",
        url: "https://pip.pypa.io/en/stable/reference/requirements-file-format/",
        refused: r#"{"source_directory": "${files}", "pip_requirements_file": "notes.txt"}"#,
        accepted: Some(r#"{"source_directory": "${files}", "pip_requirements_file": "requirements.txt"}"#),
        check: requirements_file_invalid,
    },
    Rule {
        slug: "framework-packages-not-installed",
        severity: Severity::Info,
        parameters: &["conda_dependencies_file_path", "conda_dependencies_file"],
        summary: "With a conda file no packages of the framework are added.",
        doc: "A conda file states the whole list of dependencies.",
        url: CHAINER_PAGE,
        refused: r#"{"source_directory": "${files}", "conda_dependencies_file": "conda.yml"}"#,
        accepted: Some(r#"{"source_directory": "${files}", "pip_requirements_file": "requirements.txt"}"#),
        check: framework_packages_not_installed,
    },
];

fn file_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    let conda = context.draft.conda_file();
    let pip = context.draft.pip_file();
    if matches!(context.conda_file, FileState::Missing) {
        missing(conda, sink);
    }
    if matches!(context.pip_file, FileState::Missing) {
        missing(pip, sink);
    }
}

fn missing((name, given): (&str, &Given<String>), sink: &mut Sink<'_>) {
    let path = shortened(given.text().unwrap_or_default());
    sink.report_about(
        &["source_directory"],
        format!("/{name}"),
        format!("{path:?} is no file of the source directory."),
        words("Upload a snapshot that holds the file, or correct the path."),
    );
}

fn conda_file_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let FileState::Invalid(why) = &context.conda_file {
        let (name, path) = context.draft.conda_file();
        sink.report(
            format!("/{name}"),
            format!("{:?} is no conda file: {why}.", shortened(path.text().unwrap_or_default())),
            words(
                "Write a YAML mapping with `dependencies` (a list of packages, and one `pip` list), and `channels`, \
                 `name`, `prefix` or `variables` where they are needed.",
            ),
        );
    }
}

fn requirements_file_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let FileState::Invalid(why) = &context.pip_file {
        let (name, path) = context.draft.pip_file();
        sink.report(
            format!("/{name}"),
            format!("{:?} is no requirements file: {why}.", shortened(path.text().unwrap_or_default())),
            words("Write one requirement, address or option on each line; a comment begins with `#`."),
        );
    }
}

fn framework_packages_not_installed(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.conda_file.sound().is_none()
        || context.has_environment()
        || context.draft.user_managed.is_true()
    {
        return;
    }
    let (name, _) = context.draft.conda_file();
    sink.report(
        format!("/{name}"),
        "With a conda file the packages of the framework (chainer, mpi4py, azureml-defaults) are not added.",
        words("List them in the file if the script needs them."),
    );
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::{errors, finding};

    #[test]
    fn files_must_be_there_and_be_what_they_are_for() {
        for (name, path, rule) in [
            ("conda_dependencies_file", "no.yml", "file-not-found"),
            ("conda_dependencies_file_path", "conda_bad.yml", "conda-file-invalid"),
            ("pip_requirements_file", "sub", "file-not-found"),
            ("pip_requirements_file_path", "req_bad.txt", "requirements-file-invalid"),
        ] {
            assert_eq!(errors(&json!({name: path})), [format!("{rule}@/{name}")]);
        }
    }

    #[test]
    fn the_losing_spelling_is_not_looked_at() {
        let members = json!({"pip_requirements_file": "req.txt", "pip_requirements_file_path": "no.txt",
            "conda_dependencies_file": "", "conda_dependencies_file_path": null});
        assert!(errors(&members).is_empty());
    }

    #[test]
    fn a_conda_file_brings_no_framework() {
        let found =
            finding(&json!({"conda_dependencies_file": "./conda.yml"}), "framework-packages-not-installed");
        assert_eq!(found.pointer, "/conda_dependencies_file");
    }
}
