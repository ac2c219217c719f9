//! Rules about datastores, inputs and what is staged from them.

use std::collections::HashMap;

use super::{CHAINER_PAGE, Context, Rule, Sink, grammar::words as names, words};
use crate::domain::{
    definition::{Given, Reference, ReferenceKind, listed, nearest, shortened},
    finding::Severity,
    json,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "datastore-not-found",
        severity: Severity::Error,
        parameters: &["inputs", "script_params", "source_directory_data_store", "resume_from"],
        summary: "Datastores must be registered.",
        doc: "Inputs, checkpoints and the project share lie in datastores of the workspace.",
        url: CHAINER_PAGE,
        refused: r#"{"inputs": ["trainingdata"]}"#,
        accepted: Some(r#"{"inputs": ["training_data"]}"#),
        check: datastore_not_found,
    },
    Rule {
        slug: "duplicate-input",
        severity: Severity::Error,
        parameters: &["inputs", "script_params"],
        summary: "Every input has a name of its own.",
        doc: "Inputs are told apart by their names.",
        url: CHAINER_PAGE,
        refused: r#"{"inputs": ["training_data", "training_data"]}"#,
        accepted: Some(r#"{"inputs": ["training_data"]}"#),
        check: duplicate_input,
    },
    Rule {
        slug: "input-name-invalid",
        severity: Severity::Error,
        parameters: &["inputs", "script_params"],
        summary: "The name of an input is an identifier.",
        doc: "The name becomes part of an environment variable.",
        url: "https://learn.microsoft.com/en-us/python/api/azureml-core/azureml.data.data_reference.datareference?view=azure-ml-py",
        refused: r#"{"inputs": [{"type":"DataReference","datastore":"training_data","data_reference_name":"digits-2026","path_on_datastore":"digits/2026"}]}"#,
        accepted: Some(
            r#"{"inputs": [{"type":"DataReference","datastore":"training_data","data_reference_name":"digits","path_on_datastore":"digits/2026"}]}"#,
        ),
        check: input_name_invalid,
    },
    Rule {
        slug: "input-mode-invalid",
        severity: Severity::Error,
        parameters: &["inputs", "script_params"],
        summary: "References are mounted, downloaded or uploaded; datasets are used directly, mounted or downloaded.",
        doc: "The modes of each kind of input are listed.",
        url: "https://learn.microsoft.com/en-us/python/api/azureml-core/azureml.data.data_reference.datareference?view=azure-ml-py",
        refused: r#"{"inputs": [{"type":"DataReference","datastore":"training_data","data_reference_name":"digits","path_on_datastore":"digits/2026","mode":"Mount"}]}"#,
        accepted: Some(
            r#"{"inputs": [{"type":"DataReference","datastore":"training_data","data_reference_name":"digits","path_on_datastore":"digits/2026","mode":"mount"}]}"#,
        ),
        check: input_mode_invalid,
    },
    Rule {
        slug: "path-escapes-datastore",
        severity: Severity::Error,
        parameters: &["inputs", "script_params", "resume_from"],
        summary: "Paths of data have no `..` component.",
        doc: "The path is the one inside the datastore.",
        url: "https://learn.microsoft.com/en-us/python/api/azureml-core/azureml.data.datapath.datapath?view=azure-ml-py",
        refused: r#"{"inputs": [{"type":"DataReference","datastore":"training_data","data_reference_name":"digits","path_on_datastore":"../private"}]}"#,
        accepted: Some(
            r#"{"inputs": [{"type":"DataReference","datastore":"training_data","data_reference_name":"digits","path_on_datastore":"digits/2026"}]}"#,
        ),
        check: path_escapes_datastore,
    },
];

fn datastore_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    let mut places = Vec::new();
    for reference in context.draft.references() {
        places.push((reference.datastore_pointer(), &reference.datastore));
    }
    if let Some(path) = context.draft.resume_from.value() {
        places.push((path.datastore_pointer(), &path.datastore));
    }
    places.push(("/source_directory_data_store".to_owned(), &context.draft.source_directory_data_store));
    for (pointer, given) in places {
        let Some(name) = given.value() else {
            continue;
        };
        if context.facts.datastores.contains(name) {
            continue;
        }
        let known = context.facts.datastores.iter().map(String::as_str);
        let near = if sink.may_suggest() { nearest(name, known.take(1000)) } else { None };
        let fix = match near {
            Some(near) => format!("Write `{near}` if that is the datastore you mean, or register this one."),
            None => "Register the datastore first.".to_owned(),
        };
        sink.report(
            pointer,
            format!("{:?} is the name of no registered datastore.", shortened(name)),
            words(fix),
        );
    }
}

fn duplicate_input(context: &Context<'_>, sink: &mut Sink<'_>) {
    let mut holders: HashMap<&str, &Reference> = HashMap::new();
    for reference in context.draft.references() {
        let Some(name) = reference.effective_name() else {
            continue;
        };
        let Some(holder) = holders.get(name) else {
            holders.insert(name, reference);
            continue;
        };
        // A script parameter may repeat an input: that is one input, used in two places.
        if reference.pointer.starts_with("/script_params/") && reference.same_as(holder) {
            continue;
        }
        sink.report(
            reference.pointer.clone(),
            format!("The name `{}` is taken by the input at `{}`.", shortened(name), holder.pointer),
            words("Give one of the two another name."),
        );
    }
}

fn input_name_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    for reference in context.draft.references() {
        if let Some(name) = reference.effective_name()
            && !names::is_identifier(name)
        {
            sink.report(
                reference.name_pointer(),
                format!(
                    "{:?} cannot name an input: a name is a letter or `_`, then letters, digits and `_`, because \
                     it becomes an environment variable.",
                    shortened(name)
                ),
                words("Give the input a name of that form."),
            );
        }
    }
}

fn input_mode_invalid(context: &Context<'_>, sink: &mut Sink<'_>) {
    for reference in context.draft.references() {
        if let Some(mode) = reference.mode.text()
            && !reference.kind.modes().contains(&mode)
        {
            let allowed = listed(reference.kind.modes());
            sink.report(
                json::child(&reference.pointer, "mode"),
                format!("The mode is {:?}; the modes here are {allowed}, in lower case.", shortened(mode)),
                words(format!("Write one of {allowed}, or leave the mode out.")),
            );
        }
    }
}

/// `reserved-name` for the names of inputs.
pub(super) fn reserved_input(context: &Context<'_>, sink: &mut Sink<'_>) {
    for reference in context.draft.references() {
        let Some(name) = reference.effective_name() else {
            continue;
        };
        // A dataset's name is the variable itself; a reference's has a prefix of its own.
        let steers = reference.kind == ReferenceKind::Dataset && names::is_system_variable(name);
        if steers || names::has_reserved_prefix(name) {
            sink.report(
                reference.name_pointer(),
                format!(
                    "The name `{}` is reserved: as an environment variable it would steer the system or the service.",
                    shortened(name)
                ),
                words("Give the input another name."),
            );
        }
    }
}

fn path_escapes_datastore(context: &Context<'_>, sink: &mut Sink<'_>) {
    let mut references = context.draft.references();
    references.extend(context.draft.resume_from.value());
    for reference in references {
        let places: [(String, &Given<String>); 2] = [
            (reference.path_pointer(), &reference.path),
            (json::child(&reference.pointer, "path_on_compute"), &reference.path_on_compute),
        ];
        for (pointer, given) in places {
            if let Some(path) = given.text()
                && path.split('/').any(|part| part == "..")
            {
                sink.report(
                    pointer,
                    format!("{:?} has a `..` component, which may lead out of its place.", shortened(path)),
                    words("Write the path without `..`."),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::domain::rules::testing::errors;

    fn reference(name: Value, path: &str) -> Value {
        json!({"type": "DataReference", "datastore": "mystore", "data_reference_name": name, "path_on_datastore": path})
    }

    fn dataset(name: &str) -> Value {
        json!({"type": "DatasetConsumptionConfig", "name": name, "dataset": {"datastore": "mystore", "path": "a"}})
    }

    #[test]
    fn datastores_are_looked_up_wherever_they_stand() {
        let lost = json!({"type": "DataReference", "datastore": "no", "data_reference_name": "d"});
        assert_eq!(
            errors(
                &json!({"inputs": ["no"], "script_params": {"--d": ["x", lost]}, "source_directory_data_store": "no",
                "resume_from": {"type": "DataPath", "datastore": "no"}})
            ),
            [
                "datastore-not-found@/script_params/--d/1/datastore",
                "datastore-not-found@/inputs/0",
                "datastore-not-found@/source_directory_data_store",
                "datastore-not-found@/resume_from/datastore",
            ]
        );
    }

    #[test]
    fn names_are_taken_once() {
        assert_eq!(
            errors(&json!({"inputs": [reference(json!("d"), "a"), dataset("d"), "mystore", "mystore"]})),
            ["duplicate-input@/inputs/1", "duplicate-input@/inputs/3"]
        );
        // The same reference as input and argument is one input; another one of that name is not.
        let inputs = json!([reference(json!("d"), "a")]);
        assert!(
            errors(&json!({"inputs": inputs, "script_params": {"--d": reference(json!("d"), "a")}}))
                .is_empty()
        );
        assert_eq!(
            errors(&json!({"inputs": inputs, "script_params": {"--d": reference(json!("d"), "b")}})),
            ["duplicate-input@/script_params/--d"]
        );
        // Without a name: the root is named after its datastore, anything else gets a name of its own.
        assert_eq!(
            errors(&json!({"inputs": ["mystore", reference(json!(null), "/"), reference(json!(null), "a")]})),
            ["duplicate-input@/inputs/1"]
        );
    }

    #[test]
    fn names_become_variables() {
        assert_eq!(
            errors(&json!({"inputs": ["my-files", reference(json!("d-1"), "a"), dataset("Ld_Preload"),
                dataset("azureml_x"), reference(json!("PATH"), "p")]})),
            [
                "reserved-name@/inputs/2/name",
                "reserved-name@/inputs/3/name",
                "input-name-invalid@/inputs/0",
                "input-name-invalid@/inputs/1/data_reference_name",
            ]
        );
    }

    #[test]
    fn modes_paths_and_members() {
        let mut odd = reference(json!("d"), "a/../b");
        odd["mode"] = json!("direct");
        odd["path_on_compute"] = json!("/x/..");
        odd["extra"] = json!(1);
        assert_eq!(
            errors(&json!({"inputs": [odd, {"type": "DatasetConsumptionConfig", "dataset": {}}]})),
            [
                "unknown-parameter@/inputs/0/extra",
                "wrong-type@/inputs/1/name",
                "wrong-type@/inputs/1/dataset",
                "input-mode-invalid@/inputs/0/mode",
                "path-escapes-datastore@/inputs/0/path_on_datastore",
                "path-escapes-datastore@/inputs/0/path_on_compute",
            ]
        );
    }
}
