//! From the parameters about arguments and data to what the plan says of them.

use std::collections::{HashMap, HashSet};

use super::{Argument, Draft, Reference, ReferenceKind};
use crate::domain::plan::{DataArgument, DataLocation, InputKind, InputMode, PlannedData, PlannedInput};

/// The argument before the path of the checkpoint, as the class passes it.
const RESUME_FROM: &str = "--resume-from";

/// The arguments of the script and the data of the run, of a draft that no rule refuses.
pub(super) fn planned(draft: &Draft) -> (Vec<String>, PlannedData) {
    let mut planner = Planner::new(draft);
    let mut checkpoint = draft.resume_from.value();
    for (key, value) in draft.script_params.value().into_iter().flatten() {
        planner.arguments.push(key.clone());
        if key == RESUME_FROM && checkpoint.take().is_some() {
            planner.checkpoint();
        } else {
            planner.flatten(value);
        }
    }
    if checkpoint.is_some() {
        planner.arguments.push(RESUME_FROM.to_owned());
        planner.checkpoint();
    }
    planner.data.resume_from = draft.resume_from.value().map(|place| DataLocation {
        datastore: place.datastore.text().unwrap_or_default().to_owned(),
        path: place.path.text().unwrap_or_default().to_owned(),
    });
    planner.data.source_datastore = draft.source_directory_data_store.text().map(ToOwned::to_owned);
    (planner.arguments, planner.data)
}

struct Planner<'a> {
    arguments: Vec<String>,
    data: PlannedData,
    /// The place of a reference in the definition → the input that it is.
    names: HashMap<&'a str, String>,
}

impl<'a> Planner<'a> {
    fn new(draft: &'a Draft) -> Self {
        let references = draft.references();
        let mut taken: HashSet<String> =
            references.iter().filter_map(|r| r.effective_name()).map(ToOwned::to_owned).collect();
        let mut planner = Self { arguments: Vec::new(), data: PlannedData::default(), names: HashMap::new() };
        let mut kept: Vec<(&Reference, String)> = Vec::new();
        for reference in references {
            // The identical reference in a second place is one input.
            if let Some((_, name)) = kept.iter().find(|(other, _)| reference.same_as(other)) {
                planner.names.insert(&reference.pointer, name.clone());
                continue;
            }
            let name = match reference.effective_name() {
                Some(name) => name.to_owned(),
                None => free_name(&mut taken),
            };
            planner.data.inputs.push(input(reference, &name));
            planner.names.insert(&reference.pointer, name.clone());
            kept.push((reference, name));
        }
        planner
    }

    fn flatten(&mut self, argument: &Argument) {
        match argument {
            Argument::Nothing | Argument::Faulty => {}
            Argument::Text(text) => self.arguments.push(text.clone()),
            Argument::List(items) => {
                for item in items {
                    self.flatten(item);
                }
            }
            Argument::Reference(reference) => {
                let name = self.names.get(reference.pointer.as_str()).cloned();
                let variable = self.data.inputs.iter().find(|input| Some(&input.name) == name.as_ref());
                let shown = variable.map_or_else(String::new, |input| format!("${}", input.variable));
                self.data(name, shown);
            }
        }
    }

    fn checkpoint(&mut self) {
        self.data(None, "$RESUME_FROM".to_owned());
    }

    /// The path is known where the run is started; the variable that will hold it is known here.
    fn data(&mut self, input: Option<String>, shown: String) {
        self.data.arguments.push(DataArgument { index: self.arguments.len() as u64, input });
        self.arguments.push(shown);
    }
}

/// A name for a reference that has none, with which nothing clashes.
fn free_name(taken: &mut HashSet<String>) -> String {
    let free = (1..).map(|number| format!("input_{number}")).find(|name| !taken.contains(name));
    let name = free.unwrap_or_default();
    taken.insert(name.clone());
    name
}

fn input(reference: &Reference, name: &str) -> PlannedInput {
    let kind = match reference.kind {
        ReferenceKind::Dataset => InputKind::Dataset,
        ReferenceKind::Datastore | ReferenceKind::DataReference | ReferenceKind::DataPath => {
            InputKind::DataReference
        }
    };
    // The defaults of the two SDK classes differ.
    let mode = match (reference.mode.text(), kind) {
        (Some("download"), _) => InputMode::Download,
        (Some("upload"), _) => InputMode::Upload,
        (Some("direct"), _) | (None, InputKind::Dataset) => InputMode::Direct,
        _ => InputMode::Mount,
    };
    PlannedInput {
        name: name.to_owned(),
        kind,
        datastore: reference.datastore.text().unwrap_or_default().to_owned(),
        path: reference.path.text().unwrap_or_default().to_owned(),
        mode,
        path_on_compute: reference.path_on_compute.text().map(ToOwned::to_owned),
        overwrite: reference.overwrite.is_true(),
        variable: match kind {
            InputKind::Dataset => name.to_owned(),
            InputKind::DataReference => format!("AZUREML_DATAREFERENCE_{name}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::domain::{
        judge::plan,
        plan::{DataArgument, InputMode, Plan},
        rules::testing::verdict,
    };

    fn planned(members: &Value) -> Plan {
        plan(&verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid")))
    }

    #[test]
    fn every_input_has_one_name_and_arguments_say_which() {
        let reference = json!({"type": "DataReference", "datastore": "mystore", "data_reference_name": "d",
            "path_on_datastore": "x"});
        let unnamed = json!({"type": "DataReference", "datastore": "mystore", "path_on_datastore": "y", "mode": "download"});
        let dataset = json!({"type": "DatasetConsumptionConfig", "name": "set", "dataset": {"datastore": "mystore", "path": "s"}});
        let plan = planned(&json!({
            "inputs": ["mystore", reference, unnamed],
            "script_params": {"--d": reference, "--u": [unnamed, dataset], "--literal": "$set"},
        }));
        let names: Vec<_> = plan.data.inputs.iter().map(|input| (input.name.as_str(), input.mode)).collect();
        assert_eq!(
            names,
            [
                ("mystore", InputMode::Mount),
                ("d", InputMode::Mount),
                ("input_1", InputMode::Download),
                ("set", InputMode::Direct)
            ]
        );
        assert_eq!(
            plan.arguments,
            [
                "--d",
                "$AZUREML_DATAREFERENCE_d",
                "--u",
                "$AZUREML_DATAREFERENCE_input_1",
                "$set",
                "--literal",
                "$set"
            ]
        );
        let at = |index, name: &str| DataArgument { index, input: Some(name.to_owned()) };
        assert_eq!(plan.data.arguments, [at(1, "d"), at(3, "input_1"), at(4, "set")], "a literal is no path");
        assert_eq!(plan.data_argument(6), None);
        assert_eq!(plan.data_argument(1).flatten().map(|input| input.path.as_str()), Some("x"));
    }

    #[test]
    fn the_checkpoint_is_the_last_argument_or_in_the_place_that_the_user_chose() {
        let checkpoint = json!({"type": "DataPath", "datastore": "mystore", "path_on_datastore": "c/1"});
        let last = planned(&json!({"script_params": {"--a": 1}, "resume_from": checkpoint}));
        assert_eq!(last.arguments, ["--a", "1", "--resume-from", "$RESUME_FROM"]);
        assert_eq!(last.data_argument(3), Some(None));
        let placed =
            planned(&json!({"script_params": {"--resume-from": "old", "--a": 1}, "resume_from": checkpoint}));
        assert_eq!(placed.arguments, ["--resume-from", "$RESUME_FROM", "--a", "1"]);
        assert_eq!(placed.data.resume_from.map(|place| place.path).as_deref(), Some("c/1"));
        assert!(planned(&json!({"script_params": {"--a": 1}})).data.is_empty());
    }
}
