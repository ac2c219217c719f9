//! Where the data of a run lies on the compute, and how its script is told: decided from the plan alone, so that it need
//! not be remembered.

use super::plan::{DataLocation, InputKind, Plan, PlannedInput};

/// Which of an attempt's directories something lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Root {
    /// The one for data.
    Data,
    /// The script's working directory.
    Work,
}

/// A place on the compute.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The directory.
    pub root: Root,
    /// The path from there: not empty, no `..`, no empty component.
    pub path: String,
}

/// The directories of one attempt, absolute.
#[derive(Clone, Copy, Debug)]
pub struct Area<'a> {
    /// That of [`Root::Data`].
    pub data: &'a str,
    /// That of [`Root::Work`].
    pub work: &'a str,
    /// Whether the script is in a container, where data can be put anywhere.
    pub in_container: bool,
}

impl Area<'_> {
    /// The absolute path of a place.
    #[must_use]
    pub fn path(&self, place: &Place) -> String {
        let root = match place.root {
            Root::Data => self.data,
            Root::Work => self.work,
        };
        format!("{root}/{}", place.path)
    }
}

/// A path in a datastore without what says nothing: empty components and `.`.
#[must_use]
pub fn components(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !matches!(*part, "" | ".")).collect()
}

/// The folder to look in and, for a dataset that is given by a pattern, the pattern that its files must match.
#[must_use]
pub fn folder_and_pattern(input: &PlannedInput) -> (String, Option<String>) {
    let parts = components(&input.path);
    let fixed = parts.iter().take_while(|part| !part.contains(['*', '?', '['])).count();
    if input.kind != InputKind::Dataset || fixed == parts.len() {
        return (parts.join("/"), None);
    }
    (parts[..fixed].join("/"), Some(parts.join("/")))
}

/// Where an input that is read is put: below the directory for data, under the name that it has in its datastore. The
/// script may tell by it what the data is.
#[must_use]
pub fn staged_place(input: &PlannedInput) -> Place {
    let (folder, _) = folder_and_pattern(input);
    let name = components(&folder).pop().unwrap_or(&input.datastore).to_owned();
    Place { root: Root::Data, path: format!("inputs/{}/{name}", input.name) }
}

/// Where the script finds an input outside a container: where the definition wants it, when that is a place in the working
/// directory; else where it is put.
#[must_use]
pub fn place(input: &PlannedInput) -> Place {
    match input.path_on_compute.as_deref() {
        Some(path)
            if !path.starts_with('/')
                && !components(path).is_empty()
                && !components(path).contains(&"..") =>
        {
            Place { root: Root::Work, path: components(path).join("/") }
        }
        _ => staged_place(input),
    }
}

/// Where the checkpoint lies that a run resumes from.
#[must_use]
pub fn checkpoint_place(checkpoint: &DataLocation) -> Place {
    let name = components(&checkpoint.path).pop().unwrap_or(&checkpoint.datastore);
    Place { root: Root::Data, path: format!("resume_from/{name}") }
}

/// The place in a container that the definition wants an input in.
#[must_use]
pub fn wanted_in_container(input: &PlannedInput) -> Option<&str> {
    let path = input.path_on_compute.as_deref()?;
    (path.starts_with('/') && !components(path).is_empty() && !components(path).contains(&".."))
        .then_some(path)
}

/// What the history says of the places that the definition wants inputs in and that they are not put in.
#[must_use]
pub fn unheeded_places(plan: &Plan, in_container: bool) -> Vec<String> {
    let note = |input: &PlannedInput| {
        let wanted = input.path_on_compute.as_deref().filter(|path| !path.is_empty())?;
        let why = match (wanted_in_container(input), place(input).root) {
            (Some(_), _) if in_container => return None,
            (Some(_), _) => "an absolute path is a place in containers only, and the script runs in none",
            (None, Root::Work) => return None,
            (None, Root::Data) => "it is no place of its own",
        };
        Some(format!(
            "the input `{}`: its `path_on_compute` `{wanted}` is not heeded: {why}; the data is where the script is told",
            input.name
        ))
    };
    plan.data.inputs.iter().filter_map(note).collect()
}

/// Where the script finds an input.
#[must_use]
pub fn seen_path(input: &PlannedInput, area: &Area<'_>) -> String {
    match wanted_in_container(input).filter(|_| area.in_container) {
        Some(path) => path.to_owned(),
        None => area.path(&place(input)),
    }
}

/// Two inputs of which the first lies at or below the other, where the definition wants them: what is put there would get
/// into the other's data, which may be the datastore itself. None where every input has a place of its own.
#[must_use]
pub fn overlap(plan: &Plan) -> Option<(&PlannedInput, &PlannedInput)> {
    let wanted = |input| {
        let in_container = wanted_in_container(input).filter(|_| plan.environment.docker);
        // No other place is absolute, so that one of these is never below another kind's.
        in_container.map_or_else(
            || place(input),
            |path| Place { root: Root::Work, path: format!("/{}", components(path).join("/")) },
        )
    };
    let places: Vec<(&PlannedInput, Place)> =
        plan.data.inputs.iter().map(|input| (input, wanted(input))).collect();
    let is_within = |inner: &Place, outer: &Place| {
        inner.root == outer.root
            && inner
                .path
                .strip_prefix(&outer.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    places.iter().enumerate().find_map(|(index, (input, place))| {
        let other =
            places.iter().enumerate().find(|(other, (_, outer))| *other != index && is_within(place, outer));
        other.map(|(_, (other, _))| (*input, *other))
    })
}

/// The arguments of the script, with paths in place of data.
#[must_use]
pub fn arguments(plan: &Plan, area: &Area<'_>) -> Vec<String> {
    let argument = |(index, text): (usize, &String)| match plan.data_argument(index) {
        None => text.clone(),
        Some(Some(input)) => seen_path(input, area),
        Some(None) => plan
            .data
            .resume_from
            .as_ref()
            .map_or_else(|| text.clone(), |checkpoint| area.path(&checkpoint_place(checkpoint))),
    };
    plan.arguments.iter().enumerate().map(argument).collect()
}

/// The variables that say where inputs are, and which of them are datasets.
#[must_use]
pub fn variables(plan: &Plan, area: &Area<'_>) -> Vec<(String, String)> {
    let inputs = &plan.data.inputs;
    let mut variables: Vec<(String, String)> =
        inputs.iter().map(|input| (input.variable.clone(), seen_path(input, area))).collect();
    let datasets = inputs.iter().filter(|input| input.kind == InputKind::Dataset);
    let listed: Vec<String> =
        datasets.map(|input| format!("{}:{}", input.name, input.mode.as_str())).collect();
    if !listed.is_empty() {
        // By this the SDK, and the module that scripts are given, tell datasets from other variables.
        variables.push(("AZUREML_DATASET_ENVIRONMENT_VARS".to_owned(), listed.join(",")));
    }
    variables
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::{judge, rules::testing::verdict};

    const AREA: Area<'_> = Area { data: "/a/data", work: "/a/work", in_container: false };

    fn planned(members: &Value) -> Plan {
        judge::plan(&verdict(members).accepted.unwrap_or_else(|| panic!("{members} must be valid")))
    }

    fn reference(more: &Value) -> Value {
        let mut reference = json!({"type": "DataReference", "datastore": "mystore", "data_reference_name": "d",
            "path_on_datastore": "sets/2026"});
        for (key, value) in more.as_object().into_iter().flatten() {
            reference[key] = value.clone();
        }
        reference
    }

    fn seen(more: &Value, area: &Area<'_>) -> String {
        let plan = planned(&json!({"inputs": [reference(more)]}));
        let variables = variables(&plan, area);
        assert_eq!(variables[0].0, "AZUREML_DATAREFERENCE_d");
        variables[0].1.clone()
    }

    #[test]
    fn data_lies_under_the_name_that_it_has_in_its_datastore() {
        assert_eq!(seen(&json!({}), &AREA), "/a/data/inputs/d/2026");
        assert_eq!(
            seen(&json!({"path_on_datastore": "./c//model.npz"}), &AREA),
            "/a/data/inputs/d/model.npz"
        );
        assert_eq!(seen(&json!({"path_on_datastore": null}), &AREA), "/a/data/inputs/d/mystore");
    }

    #[test]
    fn a_place_of_ones_own_is_in_the_working_directory_or_in_a_container() {
        let contained = Area { in_container: true, ..AREA };
        let relative = json!({"path_on_compute": "./data/in"});
        assert_eq!(seen(&relative, &AREA), "/a/work/data/in");
        assert_eq!(seen(&relative, &contained), "/a/work/data/in");
        let absolute = json!({"path_on_compute": "/mnt/in"});
        assert_eq!(seen(&absolute, &AREA), "/a/data/inputs/d/2026");
        assert_eq!(seen(&absolute, &contained), "/mnt/in");
        for outside in [".", "/"] {
            let path = seen(&json!({"path_on_compute": outside}), &contained);
            assert_eq!(path, "/a/data/inputs/d/2026", "{outside}");
        }
    }

    #[test]
    fn inputs_whose_places_overlap_are_found() {
        let overlapping = |docker: bool, places: &[Option<&str>]| {
            let named = |(index, place): (usize, &Option<&str>)| {
                reference(&json!({"data_reference_name": format!("i{index}"), "path_on_compute": place}))
            };
            let inputs: Vec<Value> = places.iter().enumerate().map(named).collect();
            let plan = planned(&json!({"inputs": inputs, "use_docker": docker}));
            overlap(&plan).map(|(inner, outer)| (inner.name.clone(), outer.name.clone()))
        };
        let pair = |inner: &str, outer: &str| Some((inner.to_owned(), outer.to_owned()));
        for docker in [false, true] {
            assert_eq!(overlapping(docker, &[Some("x"), Some("x/y")]), pair("i1", "i0"));
            assert_eq!(overlapping(docker, &[Some("./x//y/z"), None, Some("x/y/")]), pair("i0", "i2"));
            assert_eq!(overlapping(docker, &[Some("x"), Some("./x")]), pair("i0", "i1"));
            assert_eq!(overlapping(docker, &[Some("x"), Some("xy"), Some("y/x"), None, None]), None);
            assert_eq!(overlapping(docker, &[Some("mnt"), Some("/mnt/y")]), None);
        }
        assert_eq!(overlapping(true, &[Some("/mnt/x"), Some("/mnt//x/y")]), pair("i1", "i0"));
        assert_eq!(
            overlapping(false, &[Some("/mnt/x"), Some("/mnt/x/y")]),
            None,
            "only containers have them"
        );
    }

    #[test]
    fn places_that_are_not_heeded_are_said() {
        let notes = |place: Value, in_container: bool| {
            let plan = planned(&json!({"inputs": [reference(&json!({"path_on_compute": place}))]}));
            unheeded_places(&plan, in_container)
        };
        for heeded in [json!(null), json!("data/in"), json!("./x")] {
            assert_eq!(notes(heeded.clone(), false), [""; 0], "{heeded}");
        }
        assert_eq!(notes(json!("/mnt/in"), true), [""; 0]);
        assert_eq!(
            notes(json!("/mnt/in"), false),
            [
                "the input `d`: its `path_on_compute` `/mnt/in` is not heeded: an absolute path is a place in containers \
              only, and the script runs in none; the data is where the script is told"
            ]
        );
        for outside in [".", "/"] {
            let notes = notes(json!(outside), true);
            assert!(notes.len() == 1 && notes[0].contains("it is no place of its own"), "{notes:?}");
        }
    }

    #[test]
    fn arguments_have_the_same_paths_as_variables() {
        let dataset = json!({"type": "DatasetConsumptionConfig", "name": "set",
            "dataset": {"datastore": "mystore", "path": "csv/2026-*/*.csv"}});
        let plan = planned(&json!({
            "script_params": {"--d": reference(&json!({})), "--s": dataset, "--text": "$set"},
            "resume_from": {"type": "DataPath", "datastore": "mystore", "path_on_datastore": "runs/7/c.npz"},
        }));
        assert_eq!(
            arguments(&plan, &AREA),
            [
                "--d",
                "/a/data/inputs/d/2026",
                "--s",
                "/a/data/inputs/set/csv",
                "--text",
                "$set",
                "--resume-from",
                "/a/data/resume_from/c.npz"
            ]
        );
        let variables = variables(&plan, &AREA);
        assert_eq!(variables[1], ("set".to_owned(), "/a/data/inputs/set/csv".to_owned()));
        assert_eq!(variables[2], ("AZUREML_DATASET_ENVIRONMENT_VARS".to_owned(), "set:direct".to_owned()));
        let (folder, pattern) = folder_and_pattern(&plan.data.inputs[1]);
        assert_eq!((folder.as_str(), pattern.as_deref()), ("csv", Some("csv/2026-*/*.csv")));
    }

    #[test]
    fn only_datasets_are_given_by_patterns() {
        let plan = planned(&json!({"inputs": [reference(&json!({"path_on_datastore": "a/*.csv"}))]}));
        assert_eq!(folder_and_pattern(&plan.data.inputs[0]), ("a/*.csv".to_owned(), None));
    }
}
