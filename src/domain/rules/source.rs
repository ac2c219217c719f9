//! Rules about the source directory and the script.

use super::{CHAINER_PAGE, Context, Rule, Sink, grammar::paths, words};
use crate::domain::{
    definition::{Given, nearest, shortened},
    finding::Severity,
    ids::SnapshotId,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "source-directory-required",
        severity: Severity::Error,
        parameters: &["source_directory"],
        summary: "There must be a source directory.",
        doc: "The source directory is the one parameter without a default: the local folder with the files of the experiment.",
        url: CHAINER_PAGE,
        refused: r#"{"source_directory": null}"#,
        accepted: Some(r#"{}"#),
        check: source_directory_required,
    },
    Rule {
        slug: "source-directory-not-found",
        severity: Severity::Error,
        parameters: &["source_directory"],
        summary: "The source directory must be a known snapshot.",
        doc: "The source directory is an existing folder with the files of the experiment.",
        url: CHAINER_PAGE,
        refused: r#"{"source_directory": "./digits"}"#,
        accepted: Some(r#"{}"#),
        check: source_directory_not_found,
    },
    Rule {
        slug: "source-directory-too-large",
        severity: Severity::Error,
        parameters: &["source_directory"],
        summary: "The source directory holds 300 MiB in 2000 files at most, unless the operator allows more or less.",
        doc: "A snapshot of the source directory is limited to 300 MB.",
        url: "https://learn.microsoft.com/en-us/azure/machine-learning/v1/how-to-save-write-experiment-files?view=azureml-api-1",
        refused: r#"{"source_directory": "${large}"}"#,
        accepted: Some(r#"{}"#),
        check: source_directory_too_large,
    },
    Rule {
        slug: "entry-script-required",
        severity: Severity::Error,
        parameters: &["entry_script"],
        summary: "There must be an entry script.",
        doc: "The entry script is the file that the training starts with.",
        url: CHAINER_PAGE,
        refused: r#"{"entry_script": null}"#,
        accepted: Some(r#"{"entry_script": "train.py"}"#),
        check: entry_script_required,
    },
    Rule {
        slug: "entry-script-not-found",
        severity: Severity::Error,
        parameters: &["entry_script", "source_directory"],
        summary: "The entry script must be a file of the source directory.",
        doc: "The entry script is given by its path relative to the source directory.",
        url: CHAINER_PAGE,
        refused: r#"{"entry_script": "trian.py"}"#,
        accepted: Some(r#"{"entry_script": "./train.py"}"#),
        check: entry_script_not_found,
    },
    Rule {
        slug: "notebook-entry-script",
        severity: Severity::Error,
        parameters: &["entry_script"],
        summary: "Notebooks are not run here.",
        doc: "The entry script is a file with the training code that Python starts.",
        url: CHAINER_PAGE,
        refused: r#"{"entry_script": "train.ipynb"}"#,
        accepted: Some(r#"{"entry_script": "train.py"}"#),
        check: notebook_entry_script,
    },
    Rule {
        slug: "path-escapes-source-directory",
        severity: Severity::Error,
        parameters: &[
            "entry_script",
            "conda_packages",
            "pip_packages",
            "conda_dependencies_file_path",
            "pip_requirements_file_path",
            "conda_dependencies_file",
            "pip_requirements_file",
        ],
        summary: "Paths are relative and stay inside the source directory.",
        doc: "Paths of scripts and files are relative to the source directory.",
        url: CHAINER_PAGE,
        refused: r#"{"entry_script": "../train.py"}"#,
        accepted: Some(r#"{"entry_script": "./train.py"}"#),
        check: path_escapes_source_directory,
    },
];

fn source_directory_required(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.source_directory.is_given() {
        sink.report(
            "/source_directory",
            "`source_directory` is missing; it is the one parameter without a default.",
            words("Upload the folder as a snapshot and write the id that the upload answers (`sha256:…`)."),
        );
    }
}

fn source_directory_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(text) = context.draft.source_directory.text()
        && !(context.has_snapshot() && text.parse::<SnapshotId>().is_ok())
    {
        sink.report(
            "/source_directory",
            format!("`source_directory` is {:?}, which is the id of no snapshot here.", shortened(text)),
            words("Upload the folder as a snapshot and write the id that the upload answers (`sha256:…`)."),
        );
    }
}

fn source_directory_too_large(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(snapshot) = &context.facts.snapshot else {
        return;
    };
    let limits = context.facts.limits;
    let total = snapshot.files.values().fold(0_u64, |sum, size| sum.saturating_add(*size));
    let files = snapshot.files.len() as u64;
    if total > limits.max_bytes || files > limits.max_files {
        sink.report(
            "/source_directory",
            format!(
                "The source directory holds {total} bytes in {files} files; at most {} bytes in {} files are allowed here.",
                limits.max_bytes, limits.max_files
            ),
            words("Keep data out of it with an `.amlignore` file and pass data in through `inputs`."),
        );
    }
}

fn entry_script_required(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.entry_script.is_given() {
        sink.report(
            "/entry_script",
            "`entry_script` is missing: without it there is nothing to run.",
            words("Write the path of the training script, relative to the source directory, such as `train.py`."),
        );
    }
}

fn notebook_entry_script(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(script) = context.draft.entry_script.text()
        && paths::is_notebook(script)
    {
        sink.report(
            "/entry_script",
            format!("{:?} is a notebook; notebooks are not run here.", shortened(script)),
            words("Export the notebook as a Python script and name that one."),
        );
    }
}

fn entry_script_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(script) = context.draft.entry_script.text() else {
        return;
    };
    if paths::escapes(script) || paths::is_notebook(script) || context.has_file(script) != Some(false) {
        return;
    }
    let fix = match near_file(context, script) {
        Some(near) => format!("Write {near:?} if that is the script, or upload a snapshot that holds it."),
        None => "Upload a snapshot that holds the script; the ignore file may have kept it out.".to_owned(),
    };
    sink.report_about(
        &["source_directory"],
        "/entry_script",
        format!("{:?} is no file of the source directory.", shortened(script)),
        words(fix),
    );
}

/// The file of the snapshot that is named most alike; only a sensible number of files is compared.
fn near_file<'a>(context: &'a Context<'_>, path: &str) -> Option<&'a str> {
    let snapshot = context.facts.snapshot.as_ref()?;
    let scripts = snapshot.files.keys().map(String::as_str).filter(|file| file.ends_with(".py"));
    nearest(path, scripts.take(2000))
}

fn path_escapes_source_directory(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let places: [(&str, &Given<String>); 5] = [
        ("entry_script", &draft.entry_script),
        ("conda_dependencies_file_path", &draft.conda_dependencies_file_path),
        ("pip_requirements_file_path", &draft.pip_requirements_file_path),
        ("conda_dependencies_file", &draft.conda_dependencies_file),
        ("pip_requirements_file", &draft.pip_requirements_file),
    ];
    for (name, given) in places {
        if let Some(path) = given.text()
            && paths::escapes(path)
        {
            sink.report(
                format!("/{name}"),
                format!(
                    "{:?} may lead out of the source directory: a path is relative and has no `..` component.",
                    shortened(path)
                ),
                words("Put the file into the source directory and write its path relative to that."),
            );
        }
    }
    super::packages::escaping_entries(context, sink);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use crate::domain::{
        judge::judge,
        rules::testing::{body, errors, finding, world},
    };

    #[test]
    fn the_source_must_be_a_known_snapshot() {
        assert_eq!(
            errors(&json!({"source_directory": null})),
            ["source-directory-required@/source_directory"]
        );
        assert_eq!(
            errors(&json!({"source_directory": "/srv/x"})),
            ["source-directory-not-found@/source_directory"]
        );
        let mut facts = world();
        Arc::make_mut(facts.snapshot.as_mut().unwrap()).files.insert("big".to_owned(), 400 << 20);
        let verdict = judge(&body(&json!({})), &facts);
        assert!(verdict.findings.iter().any(|f| f.rule == "source-directory-too-large"));
        facts.snapshot = None;
        let verdict = judge(&body(&json!({"entry_script": "no.py"})), &facts);
        let errors: Vec<_> = verdict.findings.iter().filter(|f| f.pointer == "/entry_script").collect();
        assert!(errors.is_empty(), "an unknown snapshot has no files to miss");
    }

    #[test]
    fn the_script_must_be_there() {
        assert_eq!(errors(&json!({"entry_script": ""})), ["entry-script-required@/entry_script"]);
        assert_eq!(errors(&json!({"entry_script": "sub"})), ["entry-script-not-found@/entry_script"]);
        assert_eq!(errors(&json!({"entry_script": "a/B.IPYNB"})), ["notebook-entry-script@/entry_script"]);
        assert_eq!(
            errors(&json!({"entry_script": "sub/../train.py"})),
            ["path-escapes-source-directory@/entry_script"]
        );
        assert!(errors(&json!({"entry_script": "./sub//other.py"})).is_empty());
        let near = finding(&json!({"entry_script": "trian.py"}), "entry-script-not-found");
        assert!(near.fix.description.contains("train.py"));
    }
}
