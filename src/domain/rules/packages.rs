//! Rules about lists of packages, and what packages do not go with.

use super::{
    CHAINER_PAGE, Context, Rule, Sink,
    grammar::{conda, pip},
    words,
};
use crate::domain::{
    compute_target::Conda,
    definition::{Draft, shortened},
    finding::Severity,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "user-managed-with-packages",
        severity: Severity::Error,
        parameters: &[
            "user_managed",
            "conda_packages",
            "pip_packages",
            "conda_dependencies_file_path",
            "pip_requirements_file_path",
            "conda_dependencies_file",
            "pip_requirements_file",
        ],
        summary: "Nothing is installed into an environment that the user manages.",
        doc: "With a user-managed environment the user makes sure that everything is there; nothing is installed.",
        url: CHAINER_PAGE,
        refused: r#"{"user_managed": true, "pip_packages": ["scikit-learn"]}"#,
        accepted: Some(r#"{"user_managed": true}"#),
        check: user_managed_with_packages,
    },
    Rule {
        slug: "package-spec-invalid",
        severity: Severity::Error,
        parameters: &["conda_packages", "pip_packages"],
        summary: "Entries for pip are requirements, addresses or options; entries for conda are no options.",
        doc: "The lists hold the packages to be added to the environment; PEP 508 says how requirements are written.",
        url: "https://peps.python.org/pep-0508/",
        refused: r#"{"pip_packages": ["scikit learn"]}"#,
        accepted: Some(r#"{"pip_packages": ["scikit-learn>=0.22"]}"#),
        check: package_spec_invalid,
    },
    Rule {
        slug: "conda-not-available",
        severity: Severity::Error,
        parameters: &[
            "conda_packages",
            "conda_dependencies_file_path",
            "conda_dependencies_file",
            "environment_definition",
            "compute_target",
        ],
        summary: "A definition that asks for conda packages needs a target that has conda.",
        doc: "Conda packages are added to the Python environment of the run.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": "bare-metal", "conda_packages": ["scipy"]}"#,
        accepted: Some(r#"{"compute_target": "bare-metal", "pip_packages": ["scipy"]}"#),
        check: conda_not_available,
    },
];

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

fn user_managed_with_packages(context: &Context<'_>, sink: &mut Sink<'_>) {
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

fn package_spec_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
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
    let texts = context.draft.pip_packages.value();
    for (place, entry) in &context.pip_packages {
        if let (Err(why), Some(Some(entry))) = (entry, texts.and_then(|texts| texts.get(*place))) {
            let shown = shortened(&pip::without_credentials(entry));
            sink.report(
                format!("/pip_packages/{place}"),
                format!("The pip entry {shown:?} cannot be installed: {why}."),
                words(
                    "Write a requirement such as `numpy>=1.16`, an address such as `https://…/name-1.0-py3-none-any.whl` \
                     or `git+https://…`, or an option line that begins with `-`.",
                ),
            );
        }
    }
}

fn conda_not_available(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let Some(target) = context.target.as_ref().filter(|target| target.conda == Conda::Never) else {
        return;
    };
    let (file, named) = draft.conda_file();
    let mut places = vec![
        ("/conda_packages".to_owned(), draft.conda_packages.is_given()),
        (format!("/{file}"), named.is_given()),
    ];
    if let Some(environment) = draft.environment_definition.value() {
        let used = !environment.user_managed_dependencies.is_true();
        let given = used && environment.conda_dependencies.is_given();
        places.push((environment.conda_dependencies_pointer.clone(), given));
    }
    for (pointer, given) in places {
        if given {
            sink.report_about(
                &["compute_target"],
                pointer,
                format!(
                    "Conda packages are asked for, but the target `{}` says that it has no conda.",
                    target.label
                ),
                words("Name a target with conda, or ask for the packages in `pip_packages`."),
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
    for (place, entry) in &context.pip_packages {
        if let Ok(entry) = entry
            && let Some(path) = &entry.escape
        {
            sink.report(format!("/pip_packages/{place}"), message(path), fix());
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
    if let Some(environment) = context.draft.environment_definition.value()
        && let Some(dependencies) = environment.conda_dependencies.value()
        && let Ok(spec) = conda::from_json(dependencies)
        && let Some(path) = spec.escape()
    {
        sink.report(environment.conda_dependencies_pointer.clone(), message(&path), fix());
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

    #[test]
    fn files_stay_inside_however_they_are_named() {
        for entry in ["FILE:///etc/x.whl", "a @ File:///etc/x.whl", "Git+FILE:///srv/r"] {
            let found = errors(&json!({"pip_packages": [entry]}));
            assert_eq!(found, ["path-escapes-source-directory@/pip_packages/0"], "{entry}");
            let environment = |section: &str| json!({"environment_definition": {"python": {section: {"dependencies": [{"pip": [entry]}]}}}});
            for section in ["conda_dependencies", "condaDependencies"] {
                let place = format!("path-escapes-source-directory@/environment_definition/python/{section}");
                assert_eq!(errors(&environment(section)), [place], "{entry}");
            }
        }
    }

    #[test]
    fn arbitrary_equality_is_a_comparison() {
        let good =
            ["numpy===1.0foo", "a=== a-b", "a; python_version === '3.6'", "a[x]===1.0 ; os_name==='posix'"];
        assert!(errors(&json!({"pip_packages": good})).is_empty());
        let bad = errors(&json!({"pip_packages": ["numpy===", "numpy====1", "a @ ===1"]}));
        assert_eq!(bad.len(), 3, "{bad:?}");
    }
}
