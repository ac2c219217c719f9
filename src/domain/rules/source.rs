//! Rules about the source directory and the script.

use super::{Context, Sink, grammar::paths, words};
use crate::domain::definition::{Given, nearest, shortened};

/// How much the files of a source directory may weigh, unpacked.
const MAX_BYTES: u64 = 300 * 1024 * 1024;

pub(super) fn source_directory_required(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.source_directory.is_given() {
        sink.report(
            "/source_directory",
            "`source_directory` is missing; it is the one parameter without a default.",
            words("Upload the folder as a snapshot and write the id that the upload answers (`sha256:…`)."),
        );
    }
}

pub(super) fn source_directory_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(text) = context.draft.source_directory.text()
        && !context.has_snapshot()
    {
        sink.report(
            "/source_directory",
            format!("`source_directory` is {:?}, which is the id of no snapshot here.", shortened(text)),
            words("Upload the folder as a snapshot and write the id that the upload answers (`sha256:…`)."),
        );
    }
}

pub(super) fn source_directory_too_large(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(snapshot) = &context.facts.snapshot else {
        return;
    };
    let total = snapshot.files.values().fold(0_u64, |sum, size| sum.saturating_add(*size));
    if total > MAX_BYTES {
        sink.report(
            "/source_directory",
            format!("The source directory holds {total} bytes; at most {MAX_BYTES} (300 MiB) are allowed."),
            words("Keep data out of it with an `.amlignore` file and pass data in through `inputs`."),
        );
    }
}

pub(super) fn entry_script_required(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.entry_script.is_given() {
        sink.report(
            "/entry_script",
            "`entry_script` is missing: without it there is nothing to run.",
            words("Write the path of the training script, relative to the source directory, such as `train.py`."),
        );
    }
}

pub(super) fn notebook_entry_script(context: &Context<'_>, sink: &mut Sink<'_>) {
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

pub(super) fn entry_script_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
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

pub(super) fn path_escapes_source_directory(context: &Context<'_>, sink: &mut Sink<'_>) {
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
