//! Rules about what stands in the entry script: whether it parses, and whether what it imports is there.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    CHAINER_PAGE, Context, FileState, Rule, Sink,
    grammar::{conda, paths, pip},
    patched, words,
};
use crate::domain::{
    definition::{Given, shortened},
    environment::{Environment, EnvironmentKind},
    finding::{Fix, Severity},
    framework, patch,
    python::{Import, Module, distributions, is_standard},
};

/// How many packages one finding lists at most.
const MAX_MISSING: usize = 100;

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "script-syntax-error",
        severity: Severity::Warning,
        parameters: &["entry_script", "_disable_validation"],
        summary: "With `_disable_validation: false` the entry script has to parse as Python 3.",
        doc: "Unless validation is switched off, the script is looked at before the run is submitted.",
        url: CHAINER_PAGE,
        refused: r#"{"source_directory": "${files}", "entry_script": "broken.py", "_disable_validation": false}"#,
        accepted: Some(r#"{"source_directory": "${files}", "_disable_validation": false}"#),
        check: script_syntax_error,
    },
    Rule {
        slug: "package-not-declared",
        severity: Severity::Warning,
        parameters: &[
            "entry_script",
            "pip_packages",
            "conda_packages",
            "_disable_validation",
            "_show_package_warnings",
        ],
        summary: "With `_disable_validation: false` and `_show_package_warnings: true`, what the script imports is the standard \
                  library's, a file of the source directory, or installed by the environment.",
        doc: "Warnings about packages that the script uses can be asked for.",
        url: CHAINER_PAGE,
        refused: r#"{"source_directory": "${files}", "entry_script": "needs_package.py", "_disable_validation": false, "_show_package_warnings": true}"#,
        accepted: Some(
            r#"{"source_directory": "${files}", "entry_script": "needs_package.py", "_disable_validation": false, "_show_package_warnings": true, "pip_packages": ["pandas"]}"#,
        ),
        check: package_not_declared,
    },
];

fn script_syntax_error(context: &Context<'_>, sink: &mut Sink<'_>) {
    let FileState::Invalid(why) = context.script() else { return };
    let path = shortened(context.draft.entry_script.text().unwrap_or_default());
    sink.report_about(
        &["_disable_validation"],
        "/entry_script",
        format!("{path:?} does not parse as Python 3: {why}."),
        words("Mend the script and upload the source directory again; as it is, the run would fail at once."),
    );
}

fn package_not_declared(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.show_package_warnings.is_true() {
        return;
    }
    let Some(module) = context.script().sound() else { return };
    let Some(installed) = installed(context) else { return };
    let missing = missing(context, module, &installed);
    if missing.is_empty() {
        return;
    }
    let path = shortened(context.draft.entry_script.text().unwrap_or_default());
    let mut shown: Vec<String> = missing.iter().map(Missing::shown).collect();
    if missing.len() == MAX_MISSING {
        shown.push("perhaps others".to_owned());
    }
    let names: BTreeSet<&str> = missing.iter().map(|missing| missing.distribution.as_str()).collect();
    sink.report_about(
        &["pip_packages", "_show_package_warnings"],
        "/entry_script",
        format!(
            "{path:?} imports what neither the source directory holds nor the environment installs: {}.",
            shown.join(", ")
        ),
        fix(context, &names),
    );
}

/// A package that the script imports and nothing installs.
struct Missing {
    import: String,
    line: usize,
    distribution: String,
}

impl Missing {
    fn shown(&self) -> String {
        let import = shortened(&self.import);
        if pip::normalized(&self.import) == pip::normalized(&self.distribution) {
            format!("`{import}` (line {})", self.line)
        } else {
            format!("`{import}` (line {}, of the package `{}`)", self.line, self.distribution)
        }
    }
}

/// What the environment installs, by PEP 503 names; nothing where that cannot be known.
fn installed(context: &Context<'_>) -> Option<BTreeSet<String>> {
    let draft = context.draft;
    // An image may hold anything.
    if draft.image().is_given() {
        return None;
    }
    if let Some(environment) = draft.environment_definition.value() {
        let docker = &environment.docker;
        if docker.base_image.is_given() || docker.base_dockerfile.is_given() {
            return None;
        }
        if let Some(map) = environment.conda_dependencies.value() {
            conda::from_json(map).ok()?;
        }
    }
    let unreadable = draft.environment_definition.is_faulty()
        || draft.conda_packages.is_faulty()
        || draft.pip_packages.is_faulty()
        || draft.pip_packages.value().into_iter().flatten().any(Option::is_none)
        || draft.conda_packages.value().into_iter().flatten().any(Option::is_none)
        || (draft.conda_file().1.is_given() && context.conda_file.sound().is_none())
        || (draft.pip_file().1.is_given() && context.pip_file.sound().is_none());
    if unreadable {
        return None;
    }
    let environment = Environment::resolve(context);
    if environment.kind == EnvironmentKind::UserManaged {
        return None;
    }
    let mut names = BTreeSet::new();
    if draft.enable_optimized_mode.is_true() {
        // The framework is in the image then, and not in the list.
        let version = draft.framework_version.text().unwrap_or(framework::DEFAULT_VERSION);
        for package in framework::builder_packages(version, draft.use_gpu.is_true()) {
            names.extend(pip::parse(&package).ok()?.name);
        }
    }
    for package in &environment.conda_packages {
        names.insert(pip::normalized(&conda::package_name(package)?));
    }
    let entries = draft.pip_packages.value().into_iter().flatten().flatten();
    for package in environment.pip_packages.iter().chain(entries) {
        let entry = pip::parse(without_options(package)).ok()?;
        match entry.name {
            Some(name) => {
                names.insert(name);
            }
            // Where packages come from says nothing about which they are; files and addresses may hold any.
            None if entry.kind == pip::EntryKind::Option && !reads_packages(package) => {}
            None => return None,
        }
    }
    Some(names)
}

/// A line of a requirements file without the options that follow its requirement.
fn without_options(line: &str) -> &str {
    if line.starts_with('-') {
        return line;
    }
    line.find(" --").map_or(line, |at| line[..at].trim_end())
}

/// Whether an option line names packages itself.
fn reads_packages(line: &str) -> bool {
    ["-r", "-e", "--requirement", "--editable"].iter().any(|option| line.starts_with(option))
}

fn missing(context: &Context<'_>, module: &Module, installed: &BTreeSet<String>) -> Vec<Missing> {
    let mut seen = BTreeSet::new();
    let mut in_source = BTreeMap::new();
    let mut missing = Vec::new();
    for import in module.imports() {
        if missing.len() == MAX_MISSING {
            break;
        }
        let top = import.module.split('.').next().unwrap_or_default();
        if is_standard(top)
            || *in_source.entry(top.to_owned()).or_insert_with(|| is_in_source(context, module, top))
        {
            continue;
        }
        let wanted = distributions::of(&import.module, &import.names);
        if distributions::is_any_installed(&wanted, top, installed) {
            continue;
        }
        if seen.insert(wanted.suggested.clone()) {
            missing.push(Missing {
                import: shown(&import, &wanted),
                line: import.line,
                distribution: wanted.suggested,
            });
        }
    }
    missing
}

/// The import as far as it decides on the package.
fn shown(import: &Import, wanted: &distributions::Wanted) -> String {
    import.module.split('.').take(wanted.parts).collect::<Vec<_>>().join(".")
}

/// Whether the source directory holds a module of that name, beside the script or at its root.
fn is_in_source(context: &Context<'_>, module: &Module, name: &str) -> bool {
    let Some(snapshot) = &context.facts.snapshot else { return false };
    let script = context.draft.entry_script.text().and_then(paths::normalized).unwrap_or_default();
    let folder = script.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    // A script that adds folders to its path may import from any of them.
    let anywhere = module.extends_its_path();
    snapshot.files.keys().any(|file| {
        if !is_code(file) {
            return false;
        }
        let beside = |prefix: &str| file.strip_prefix(prefix).is_some_and(|rest| is_module(rest, name));
        beside(&folder)
            || beside("")
            || (anywhere && file.match_indices('/').any(|(at, _)| is_module(&file[at + 1..], name)))
    })
}

fn is_code(file: &str) -> bool {
    [".py", ".so", ".pyx", ".pyd"].iter().any(|ending| file.ends_with(ending))
}

/// Whether a file is the module of that name, or lies in its package.
fn is_module(file: &str, name: &str) -> bool {
    file.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '/']))
}

fn fix(context: &Context<'_>, names: &BTreeSet<&str>) -> Fix {
    let draft = context.draft;
    let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if context.has_environment() {
        return words(format!("Add {list} to the conda dependencies of `environment_definition`."));
    }
    let (file, conda) = draft.conda_file();
    if conda.is_given() {
        return words(format!("Add {list} to the `pip` list in the file that `{file}` names."));
    }
    let mut packages: Vec<String> = match &draft.pip_packages {
        Given::Value(present) => present.iter().flatten().cloned().collect(),
        Given::Absent | Given::Faulty => Vec::new(),
    };
    packages.extend(names.iter().map(|name| (*name).to_owned()));
    patched(format!("Add {list} to `pip_packages`."), [patch::add("pip_packages", packages)])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Map, Value, json};

    use crate::domain::{
        facts::Facts,
        finding::Finding,
        judge::{judge, wanted},
        rules::testing::{body, world},
    };

    const ASKED: &str = r#"{"_disable_validation": false, "_show_package_warnings": true}"#;

    fn definition(members: &Value) -> Map<String, Value> {
        let mut asked: Map<String, Value> = serde_json::from_str(ASKED).unwrap();
        asked.extend(members.as_object().unwrap().clone());
        body(&Value::Object(asked))
    }

    fn with(files: &[(&str, &str)]) -> Facts {
        let mut facts = world();
        let snapshot = Arc::make_mut(facts.snapshot.as_mut().unwrap());
        for (path, content) in files {
            snapshot.files.insert((*path).to_owned(), content.len() as u64);
            snapshot.contents.insert((*path).to_owned(), content.as_bytes().to_vec());
        }
        facts
    }

    fn found(script: &str, members: &Value) -> Option<Finding> {
        let verdict = judge(&definition(members), &with(&[("train.py", script)]));
        let mut of_here = verdict
            .findings
            .into_iter()
            .filter(|f| f.rule == "package-not-declared" || f.rule == "script-syntax-error");
        let first = of_here.next();
        assert!(of_here.next().is_none(), "one finding at most");
        first
    }

    fn names(script: &str, members: &Value) -> String {
        let Some(finding) = found(script, members) else { return String::new() };
        assert_eq!(
            (finding.rule.as_str(), finding.pointer.as_str()),
            ("package-not-declared", "/entry_script")
        );
        finding.fix.description
    }

    #[test]
    fn the_script_is_looked_up_only_when_it_is_to_be_parsed() {
        let asks = |members: &Value| !wanted(&body(members)).contents.is_empty();
        assert!(asks(&json!({"_disable_validation": false})));
        for members in [
            json!({}),
            json!({"_disable_validation": null}),
            json!({"_disable_validation": true}),
            json!({"_disable_validation": false, "entry_script": "run.sh"}),
            json!({"_disable_validation": false, "entry_script": "../train.py"}),
        ] {
            assert!(!asks(&members), "{members}");
        }
    }

    #[test]
    fn a_syntax_error_has_a_place() {
        let finding = found("import os\nprint 'a'\n", &json!({})).unwrap();
        assert_eq!(
            (finding.rule.as_str(), finding.pointer.as_str()),
            ("script-syntax-error", "/entry_script")
        );
        assert!(finding.message.contains("line 2, column "), "{}", finding.message);
        assert_eq!(found("print 'a'", &json!({"_disable_validation": null})), None);
        assert_eq!(found("print 'a'", &json!({"entry_script": "sub/other.py"})), None);
    }

    #[test]
    fn what_the_framework_brings_is_there() {
        let script = "import os, chainer.links as L, chainermn, numpy as np, six, mpi4py.MPI, azureml.core\n\
            from google.protobuf import message\nimport filelock, typing_extensions, pkg_resources, setuptools\n";
        assert_eq!(names(script, &json!({})), "");
        assert_eq!(names("import cupy", &json!({})), "Add `cupy-cuda90` to `pip_packages`.");
        let gpu = json!({"compute_target": "gpu-cluster", "use_gpu": true});
        assert_eq!(names("import cupy, cupyx.scipy", &gpu), "");
        assert_eq!(
            names("import numpy, cv2", &json!({"conda_dependencies_file": "conda.yml"})),
            "Add `opencv-python-headless` to the `pip` list in the file that `conda_dependencies_file` names."
        );
    }

    #[test]
    fn every_missing_package_is_named_once() {
        let script =
            "import sklearn.svm\nfrom sklearn import svm\nfrom PIL import Image\nimport tqdm, my_tool.x\n";
        let finding = found(script, &json!({})).unwrap();
        assert_eq!(
            finding.fix.description,
            "Add `Pillow`, `my-tool`, `scikit-learn`, `tqdm` to `pip_packages`."
        );
        assert_eq!(
            finding.message,
            "\"train.py\" imports what neither the source directory holds nor the environment installs: `sklearn` (line 1, \
             of the package `scikit-learn`), `PIL` (line 3, of the package `Pillow`), `tqdm` (line 4), `my_tool` (line 4)."
        );
        let patch = json!([{"op": "add", "path": "/pip_packages", "value": ["Pillow", "my-tool", "scikit-learn", "tqdm"]}]);
        assert_eq!(json!(finding.fix.patch), patch);
        let extended = found("import pandas", &json!({"pip_packages": ["scipy"]})).unwrap();
        let patch = json!([{"op": "add", "path": "/pip_packages", "value": ["scipy", "pandas"]}]);
        assert_eq!(json!(extended.fix.patch), patch);
    }

    #[test]
    fn everything_that_installs_counts() {
        for (script, members) in [
            ("import sklearn", json!({"pip_packages": ["Scikit_Learn>=0.22"]})),
            ("import cv2", json!({"pip_packages": ["opencv-contrib-python==4.1"]})),
            ("import tqdm", json!({"pip_requirements_file": "req.txt"})),
            ("import torch", json!({"conda_packages": ["pytorch=1.4"]})),
            ("import numpy, chainer", json!({"conda_dependencies_file": "conda.yml"})),
            ("import pytz, dateutil", json!({"pip_packages": ["pandas"]})),
            ("import x", json!({"pip_packages": ["-r req.txt"]})),
            ("import x", json!({"pip_packages": ["https://e.invalid/x.tar.gz"]})),
            ("import tool", json!({"pip_packages": ["git+https://e.invalid/t.git#egg=tool"]})),
            ("import azure.storage.blob", json!({"pip_packages": ["azure-storage-blob"]})),
            ("import x", json!({"user_managed": true})),
            ("import x", json!({"custom_docker_image": "own:1"})),
            ("import x", json!({"environment_definition": {"python": {"user_managed_dependencies": true}}})),
            ("import x", json!({"environment_definition": {"docker": {"base_dockerfile": "FROM a"}}})),
            (
                "import a",
                json!({"environment_definition": {"python": {"conda_dependencies": {"dependencies": [{"pip": ["a"]}]}}}}),
            ),
            ("import chainer", json!({"_enable_optimized_mode": true})),
            ("import x", json!({"pip_packages": ["num py"]})),
            ("import x", json!({"_show_package_warnings": false})),
        ] {
            assert_eq!(names(script, &members), "", "{script}: {members}");
        }
        assert!(!names("import x", &json!({"pip_packages": ["--pre"]})).is_empty());
        assert!(!names("import azure.storage.blob", &json!({})).is_empty());
        let own = json!({"environment_definition": {"name": "e"}});
        assert_eq!(
            names("import numpy", &own),
            "Add `numpy` to the conda dependencies of `environment_definition`."
        );
    }

    #[test]
    fn modules_of_the_source_directory_are_there() {
        let files = |script: &'static str| {
            with(&[
                ("sub/other.py", script),
                ("sub/beside.py", ""),
                ("root/inner/a.py", ""),
                ("data/images.csv", ""),
                ("sub/lib/deep.py", ""),
                ("fast.cpython-36m-x86_64-linux-gnu.so", ""),
            ])
        };
        let members = definition(&json!({"entry_script": "sub/other.py"}));
        let said = |script| {
            let verdict = judge(&members, &files(script));
            verdict.findings.iter().any(|finding| finding.rule == "package-not-declared")
        };
        assert!(!said("import beside, root.inner.a, fast\nfrom . import nothing\n"));
        assert!(said("import data"));
        assert!(said("import deep"));
        assert!(!said("import sys\nsys.path.append('lib')\nimport deep"));
    }
}
