//! What a text does not say, parameter by parameter: only what a definition gives is in the list.

use serde_json::{Map, Value};

use super::{Equivalence, NotExpressed, Subject};
use crate::domain::{
    definition::Definition,
    framework,
    rules::grammar::pip::{self, EntryKind},
};

/// Members of an environment that a plan has, in both spellings.
const PLANNED_MEMBERS: [&str; 6] =
    ["name", "version", "environment_variables", "environmentVariables", "python", "docker"];

/// What a text says beside the framework's own image. It is the documented one, so it is kept.
pub(super) const OLD_IMAGE: &str =
    "The documented image of the framework; its Ubuntu 16.04 is out of support.";

/// Whether an image is the framework's own.
pub(super) fn is_framework_image(image: &str) -> bool {
    [false, true].map(framework::base_image).contains(&image)
}

/// The list of one rendering.
pub(super) struct Notes<'a> {
    subject: &'a Subject<'a>,
    list: Vec<NotExpressed>,
}

impl<'a> Notes<'a> {
    pub(super) const fn new(subject: &'a Subject<'a>) -> Self {
        Self { subject, list: Vec::new() }
    }

    /// Adds an entry if the parameter is given. A second one for the same parameter is joined to the first.
    pub(super) fn add(&mut self, parameter: &str, equivalence: Equivalence, note: impl Into<String>) {
        if !self.subject.gives(parameter) {
            return;
        }
        let note = note.into();
        let Some(there) = self.list.iter_mut().find(|entry| entry.parameter == parameter) else {
            self.list.push(NotExpressed { parameter: parameter.to_owned(), equivalence, note });
            return;
        };
        // Parts that are said and parts that are not make it said in part.
        if there.equivalence != equivalence {
            there.equivalence = Equivalence::Approximate;
        }
        if !there.note.contains(&note) {
            there.note.push(' ');
            there.note.push_str(&note);
        }
    }

    pub(super) fn approximate(&mut self, parameter: &str, note: impl Into<String>) {
        self.add(parameter, Equivalence::Approximate, note);
    }

    pub(super) fn none(&mut self, parameter: &str, note: impl Into<String>) {
        self.add(parameter, Equivalence::None, note);
    }

    pub(super) fn finish(self) -> Vec<NotExpressed> {
        self.list
    }

    /// What no format of Azure ML takes from a text.
    pub(super) fn azure(&mut self) {
        let plan = self.subject.plan;
        let Some(draft) = self.subject.definition.map(Definition::draft) else { return };
        self.approximate(
            "source_directory",
            format!(
                "The text names the directory that it lies in: put the files of snapshot {} beside it.",
                plan.snapshot_id
            ),
        );
        if plan.use_gpu {
            self.approximate(
                "use_gpu",
                "The image and the packages are those for GPUs; whether there are any is up to the target.",
            );
        }
        let version = plan.environment.framework_version.as_deref();
        let own = |version: &str| !plan.environment.pip_packages.contains(&format!("chainer=={version}"));
        if !draft.enable_optimized_mode.is_true() && version.is_some_and(own) {
            self.approximate(
                "framework_version",
                "A package of the definition's own replaces the chainer of this version.",
            );
        }
        if draft.enable_optimized_mode.is_true() {
            self.none(
                "_enable_optimized_mode",
                "The base image is named, to which only the packages of the definition are added; the framework's own image \
                 cannot be named. Add the framework to the packages.",
            );
        }
        if draft.disable_validation.is_false() {
            self.none(
                "_disable_validation",
                "Nothing parses the script; this service does, at every validation.",
            );
        }
        for (name, flag) in [
            ("_show_lint_warnings", &draft.show_lint_warnings),
            ("_show_package_warnings", &draft.show_package_warnings),
        ] {
            if flag.is_true() {
                self.none(name, "Nothing warns about the script; this service does, at every validation.");
            }
        }
        self.files_of_the_source_tree();
        self.own_environment();
    }

    /// Packages that are files: an environment is built where the source tree is not.
    fn files_of_the_source_tree(&mut self) {
        const NOTE: &str =
            "An entry reads a file of the source tree, which is not there where the environment is built.";
        let read =
            |entry: &&String| pip::parse(entry).is_ok_and(|entry| reads_a_file(entry.kind, &entry.text));
        let Some(draft) = self.subject.definition.map(Definition::draft) else { return };
        let given = draft.pip_packages.value();
        let own = given.into_iter().flatten().flatten().filter(read).count();
        if own > 0 {
            self.approximate("pip_packages", NOTE);
        }
        if self.subject.plan.environment.pip_packages.iter().filter(read).count() > own {
            for name in [draft.pip_file().0, draft.conda_file().0, "environment_definition"] {
                self.approximate(name, NOTE);
            }
        }
    }

    /// The parts of an environment that no plan has.
    fn own_environment(&mut self) {
        let given = self.subject.definition.and_then(|own| own.body().get("environment_definition"));
        let Some(Value::Object(given)) = given else { return };
        let others: Vec<String> = given
            .iter()
            .filter(|(key, value)| !PLANNED_MEMBERS.contains(&key.as_str()) && !value.is_null())
            .map(|(key, _)| format!("`{key}`"))
            .collect();
        if !others.is_empty() {
            let note = format!("Left out, because no run of this class uses it: {}.", others.join(", "));
            self.approximate("environment_definition", note);
        }
    }

    /// Whether a member of the environment's `docker` is false.
    pub(super) fn has_no_shared_volumes(&self) -> bool {
        let docker = self
            .subject
            .definition
            .and_then(|definition| definition.body().get("environment_definition"))
            .and_then(Value::as_object)
            .and_then(|environment| environment.get("docker"))
            .and_then(Value::as_object);
        let is_false = |docker: &Map<String, Value>, key: &str| docker.get(key) == Some(&Value::Bool(false));
        docker.is_some_and(|docker| is_false(docker, "shared_volumes") || is_false(docker, "sharedVolumes"))
    }

    /// The parameter in which a registry stands.
    pub(super) fn registry_parameter(&self) -> &'static str {
        if self.subject.gives("environment_definition") {
            "environment_definition"
        } else {
            "image_registry_details"
        }
    }
}

/// Whether pip looks for a file.
fn reads_a_file(kind: EntryKind, text: &str) -> bool {
    match kind {
        EntryKind::Local => true,
        EntryKind::Option => {
            let word = text.split(['=', ' ']).next().unwrap_or(text);
            let takes_a_path = ["--requirement", "--constraint", "--editable", "--find-links"]
                .contains(&word)
                || ["-r", "-c", "-e", "-f"].iter().any(|short| text.starts_with(short));
            takes_a_path && !text.contains("://")
        }
        EntryKind::Requirement | EntryKind::Remote => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{judge::plan, rules::testing::verdict};

    fn listed(members: &Value) -> Vec<(String, Equivalence, String)> {
        let accepted = verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid"));
        let plan = plan(&accepted);
        let subject = Subject { plan: &plan, definition: Some(&accepted.definition) };
        let mut notes = Notes::new(&subject);
        notes.azure();
        notes.none("vm_priority", "is not given");
        let list = notes.finish().into_iter();
        list.filter(|entry| entry.parameter != "source_directory")
            .map(|entry| (entry.parameter, entry.equivalence, entry.note))
            .collect()
    }

    fn names(members: &Value) -> Vec<String> {
        listed(members).into_iter().map(|(name, ..)| name).collect()
    }

    #[test]
    fn only_what_is_given_and_not_said_is_listed() {
        assert!(names(&json!({})).is_empty());
        assert!(names(&json!({"use_gpu": false, "_disable_validation": true, "inputs": []})).is_empty());
        assert_eq!(
            names(
                &json!({"_disable_validation": false, "_show_lint_warnings": true, "_show_package_warnings": false})
            ),
            ["_disable_validation", "_show_lint_warnings"]
        );
    }

    #[test]
    fn files_are_blamed_on_the_parameter_that_names_them() {
        assert_eq!(names(&json!({"pip_packages": ["-r req.txt", "numpy"]})), ["pip_packages"]);
        assert!(names(&json!({"pip_packages": ["--find-links https://e.invalid/x", "--pre"]})).is_empty());
        let environment = |pip: Value| {
            json!({"environment_definition": {"python": {"conda_dependencies":
            {"dependencies": [{"pip": pip}]}}}})
        };
        assert_eq!(names(&environment(json!(["-e ./lib"]))), ["environment_definition"]);
        assert!(names(&environment(json!(["numpy"]))).is_empty());
    }

    #[test]
    fn two_notes_of_one_parameter_are_one_entry() {
        let accepted = verdict(&json!({"shm_size": "1g"})).accepted.unwrap();
        let plan = plan(&accepted);
        let subject = Subject { plan: &plan, definition: Some(&accepted.definition) };
        let mut notes = Notes::new(&subject);
        notes.none("shm_size", "One.");
        notes.approximate("shm_size", "Two.");
        let list = notes.finish();
        assert_eq!((list.len(), list[0].equivalence), (1, Equivalence::Approximate));
        assert_eq!(list[0].note, "One. Two.");
    }

    #[test]
    fn what_no_run_uses_is_named() {
        let found = listed(
            &json!({"environment_definition": {"spark": {}, "r": null, "docker": {"base_image": "a"}}}),
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].2.contains("`spark`") && !found[0].2.contains("`r`"));
    }
}
