//! Rules about lists of packages, and what packages do not go with.

use super::{
    Context, Sink,
    grammar::{conda, pip},
    words,
};
use crate::domain::definition::{Draft, shortened};

/// Every parameter that asks for packages, and whether it is given.
pub(super) fn package_parameters(draft: &Draft) -> [(&'static str, bool); 6] {
    [
        ("conda_packages", draft.conda_packages.is_given()),
        ("pip_packages", draft.pip_packages.is_given()),
        ("conda_dependencies_file_path", draft.conda_dependencies_file_path.is_given()),
        ("pip_requirements_file_path", draft.pip_requirements_file_path.is_given()),
        ("conda_dependencies_file", draft.conda_dependencies_file.is_given()),
        ("pip_requirements_file", draft.pip_requirements_file.is_given()),
    ]
}

pub(super) fn user_managed_with_packages(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.user_managed.is_true() {
        return;
    }
    for (name, given) in package_parameters(context.draft) {
        if given {
            sink.report_about(
                &["user_managed"],
                format!("/{name}"),
                format!("`{name}` is given, but with `user_managed: true` nothing is built or installed."),
                words(format!("Remove `{name}`, or write `user_managed: false`.")),
            );
        }
    }
}

/// The entries of a list of packages that are texts, with their pointers.
fn entries(list: Option<&Vec<Option<String>>>, name: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (index, entry) in list.into_iter().flatten().enumerate() {
        if let Some(text) = entry {
            found.push((format!("/{name}/{index}"), text.clone()));
        }
    }
    found
}

pub(super) fn package_spec_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    for (pointer, entry) in entries(context.draft.conda_packages.value(), "conda_packages") {
        if entry.starts_with('-') {
            sink.report(
                pointer,
                format!(
                    "The conda entry {:?} begins with `-`; options are not passed to conda.",
                    shortened(&entry)
                ),
                words("Write a package, such as `numpy=1.16`."),
            );
        }
    }
    for (pointer, entry) in entries(context.draft.pip_packages.value(), "pip_packages") {
        if let Err(why) = pip::parse(&entry) {
            let shown = shortened(&pip::without_credentials(&entry));
            sink.report(
                pointer,
                format!("The pip entry {shown:?} cannot be installed: {why}."),
                words(
                    "Write a requirement such as `numpy>=1.16`, an address such as `https://…/name-1.0-py3-none-any.whl` \
                     or `git+https://…`, or an option line that begins with `-`.",
                ),
            );
        }
    }
}

/// `path-escapes-source-directory` for entries that read files.
pub(super) fn escaping_entries(context: &Context<'_>, sink: &mut Sink<'_>) {
    let fix = || words("Put the file into the source directory and write its path relative to that.");
    let message = |path: &str| {
        format!(
            "{:?} may lead out of the source directory; what is installed from files stays inside it.",
            shortened(path)
        )
    };
    for (pointer, entry) in entries(context.draft.conda_packages.value(), "conda_packages") {
        if conda::package_escapes(&entry) {
            sink.report(pointer, message(&entry), fix());
        }
    }
    for (pointer, entry) in entries(context.draft.pip_packages.value(), "pip_packages") {
        if let Ok(entry) = pip::parse(&entry)
            && let Some(path) = &entry.escape
        {
            sink.report(pointer, message(path), fix());
        }
    }
    if let Some(lines) = context.pip_file.sound() {
        let pointer = format!("/{}", context.draft.pip_file().0);
        for path in lines.iter().filter_map(|line| line.entry.escape.as_ref()) {
            sink.report(pointer.clone(), message(path), fix());
        }
    }
    if let Some(spec) = context.conda_file.sound()
        && let Some(path) = spec.escape()
    {
        sink.report(format!("/{}", context.draft.conda_file().0), message(&path), fix());
    }
}

/// `conflicting-parameters`: a conda file states everything.
pub(super) fn conda_file_and_packages(context: &Context<'_>, sink: &mut Sink<'_>) {
    let (file, given) = context.draft.conda_file();
    if !given.is_given() {
        return;
    }
    for (name, given) in package_parameters(context.draft) {
        if given && !name.starts_with("conda_dependencies_file") {
            sink.report_about(
                &[file],
                format!("/{name}"),
                format!("`{name}` does not go with `{file}`: a conda file states all packages itself."),
                words(format!("Move the packages into the conda file and remove `{name}`.")),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::errors;

    #[test]
    fn entries_are_judged_one_by_one() {
        assert_eq!(
            errors(
                &json!({"pip_packages": ["ok", "num py", "--pre", ""], "conda_packages": ["numpy", "-c evil"]})
            ),
            [
                "package-spec-invalid@/conda_packages/1",
                "package-spec-invalid@/pip_packages/1",
                "package-spec-invalid@/pip_packages/3",
            ]
        );
    }

    #[test]
    fn what_is_read_from_files_stays_inside() {
        assert_eq!(
            errors(&json!({"pip_packages": ["-r req.txt", "-r ../x", "file:///srv/a.whl"]})),
            [
                "path-escapes-source-directory@/pip_packages/1",
                "path-escapes-source-directory@/pip_packages/2"
            ]
        );
        assert_eq!(
            errors(&json!({"conda_packages": ["numpy", "file:///srv/a.conda"]})),
            ["path-escapes-source-directory@/conda_packages/1"]
        );
        assert_eq!(
            errors(&json!({"pip_requirements_file": "req_escape.txt"})),
            ["path-escapes-source-directory@/pip_requirements_file"]
        );
        assert_eq!(
            errors(&json!({"conda_dependencies_file_path": "conda_escape.yml"})),
            ["path-escapes-source-directory@/conda_dependencies_file_path"]
        );
    }

    #[test]
    fn nothing_is_installed_where_the_user_manages() {
        assert_eq!(
            errors(&json!({"user_managed": true, "pip_packages": ["a"], "conda_packages": []})),
            ["user-managed-with-packages@/pip_packages"]
        );
    }

    #[test]
    fn a_conda_file_states_everything() {
        assert_eq!(
            errors(
                &json!({"conda_dependencies_file": "conda.yml", "conda_packages": ["a"], "pip_packages": ["b"],
                "pip_requirements_file": "req.txt"})
            ),
            [
                "conflicting-parameters@/conda_packages",
                "conflicting-parameters@/pip_packages",
                "conflicting-parameters@/pip_requirements_file",
            ]
        );
    }
}
