//! Where every parameter of the deprecated class goes: to `ScriptRunConfig`, and to a command job of v2.
//!
//! The places are a table. How near a place comes is not: it is what the renderings of the definition say of themselves, so the
//! report and they cannot disagree.

mod places;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::render::{Equivalence, Format, NotExpressed, Subject, render};
use places::PLACES;

const NOTHING_TO_WRITE: &str = "There is nothing to write: in this definition it changes nothing.";

/// What the deprecation of the class means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClassMigration {
    /// The class.
    #[schema(example = "azureml.train.dnn.Chainer")]
    pub class: String,
    /// What is deprecated, since when, and until when it was supported.
    pub deprecation: String,
    /// What a later SDK v1 has in its place.
    pub script_run_config: String,
    /// What v2 has in its place.
    pub azureml_v2: String,
}

/// Where a parameter goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Place {
    /// The argument, attribute or key; null when there is none, or nothing to write there.
    #[schema(example = "ScriptRunConfig(script=…)")]
    pub place: Option<String>,
    /// How near it comes to what this definition says.
    pub equivalence: Equivalence,
    /// What differs, and what to do about it, or why there is nothing to write; null when it goes there as it is.
    pub note: Option<String>,
}

/// One parameter that the definition gives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParameterMigration {
    /// Its name.
    #[schema(example = "entry_script")]
    pub parameter: String,
    /// What it means in the deprecated class.
    pub meaning: String,
    /// Where it goes in SDK v1.
    pub script_run_config: Place,
    /// Where it goes in v2.
    pub azureml_v2: Place,
}

/// How to leave the deprecated class, for one definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MigrationReport {
    /// The class itself.
    pub class: ClassMigration,
    /// Every parameter that the definition gives, in the order of the signature.
    pub parameters: Vec<ParameterMigration>,
}

/// Says where everything that a definition gives has to go.
#[must_use]
pub fn report(subject: &Subject<'_>) -> MigrationReport {
    let script_run_config = render(Format::ScriptRunConfig, subject).not_expressed;
    let azureml_v2 = render(Format::AzuremlV2, subject).not_expressed;
    let given = PLACES.iter().filter(|places| subject.gives(places.parameter));
    let parameters = given.map(|places| ParameterMigration {
        parameter: places.parameter.to_owned(),
        meaning: places.meaning.to_owned(),
        script_run_config: place(subject, places.parameter, places.script_run_config, &script_run_config),
        azureml_v2: place(subject, places.parameter, places.azureml_v2, &azureml_v2),
    });
    MigrationReport { class: class(), parameters: parameters.collect() }
}

fn place(
    subject: &Subject<'_>,
    parameter: &str,
    place: Option<&str>,
    not_expressed: &[NotExpressed],
) -> Place {
    if let Some(entry) = not_expressed.iter().find(|entry| entry.parameter == parameter) {
        // What cannot be said goes nowhere, even where the parameter has a place for other values.
        let place = place.filter(|_| entry.equivalence != Equivalence::None).map(ToOwned::to_owned);
        return Place { place, equivalence: entry.equivalence, note: Some(entry.note.clone()) };
    }
    let place = place.filter(|_| has_effect(subject, parameter));
    let note = if place.is_none() { Some(NOTHING_TO_WRITE.to_owned()) } else { None };
    Place { place: place.map(ToOwned::to_owned), equivalence: Equivalence::Exact, note }
}

/// Whether a given parameter does anything in this definition. Another one may win, or what it is about may not be there.
fn has_effect(subject: &Subject<'_>, parameter: &str) -> bool {
    let plan = subject.plan;
    let container = &plan.environment.container;
    match parameter {
        "vm_size" | "vm_priority" => plan.one_off_target.is_some(),
        "process_count_per_node" => !subject.gives("distributed_training"),
        "use_docker" => !subject.gives("environment_definition"),
        "custom_docker_base_image" => {
            !subject.gives("environment_definition") && !subject.gives("custom_docker_image")
        }
        "conda_dependencies_file_path" => !subject.gives("conda_dependencies_file"),
        "pip_requirements_file_path" => !subject.gives("pip_requirements_file"),
        "image_registry_details" => container.registry_address.is_some(),
        "shm_size" => plan.environment.docker,
        "framework_version" => {
            plan.environment.pip_packages.iter().any(|package| package.starts_with("chainer=="))
        }
        _ => true,
    }
}

fn class() -> ClassMigration {
    ClassMigration {
        class: "azureml.train.dnn.Chainer".to_owned(),
        deprecation: "The class is deprecated together with all other estimators. SDK v1, which it is part of, is deprecated since \
            2025-03-31 and was supported until 2026-06-30."
            .to_owned(),
        script_run_config: "A ScriptRunConfig says what is run, and an Environment of its own what it runs in: the framework is a \
            package among others, and no version of it is chosen by default. It is part of SDK v1, too."
            .to_owned(),
        azureml_v2: "A command job says the same in YAML, or in Python with azure-ai-ml; this is where to go to stay. A shell reads \
            its command, and data are named inputs and outputs."
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;
    use crate::domain::{
        definition::SIGNATURE, judge::plan, render::testing::for_each, rules::testing::verdict,
    };

    #[test]
    fn every_parameter_has_its_line() {
        let names: Vec<_> = PLACES.iter().map(|places| places.parameter).collect();
        assert_eq!(names, SIGNATURE.map(|parameter| parameter.name));
        for places in &PLACES {
            assert!(places.meaning.ends_with('.'), "{}", places.parameter);
        }
    }

    #[test]
    fn the_report_and_the_renderings_agree() {
        let mut seen = BTreeSet::new();
        for_each(|name, subject| {
            let report = report(subject);
            for format in [Format::ScriptRunConfig, Format::AzuremlV2] {
                let listed = render(format, subject).not_expressed;
                for parameter in &report.parameters {
                    let place = match format {
                        Format::AzuremlV2 => &parameter.azureml_v2,
                        _ => &parameter.script_run_config,
                    };
                    let entry = listed.iter().find(|entry| entry.parameter == parameter.parameter);
                    let at = format!("{name} {format:?} {}", parameter.parameter);
                    assert_eq!(place.equivalence == Equivalence::Exact, entry.is_none(), "{at}");
                    match entry {
                        Some(entry) => {
                            assert_eq!(
                                (place.equivalence, place.note.as_deref()),
                                (entry.equivalence, Some(&*entry.note))
                            );
                            assert_eq!(place.place.is_none(), entry.equivalence == Equivalence::None, "{at}");
                        }
                        None => assert_ne!(place.place.is_none(), place.note.is_none(), "{at}"),
                    }
                    seen.insert(place.equivalence.as_str());
                }
                for entry in &listed {
                    assert!(
                        report.parameters.iter().any(|p| p.parameter == entry.parameter),
                        "{name} {entry:?}"
                    );
                }
            }
        });
        assert_eq!(seen.len(), 3, "the cases have all of exact, approximate and none");
    }

    #[test]
    fn what_changes_nothing_goes_nowhere() {
        let members = json!({
            "vm_size": "STANDARD_D2_V2", "use_docker": false, "shm_size": "1g", "_enable_optimized_mode": false,
            "distributed_training": {"type": "Mpi"}, "process_count_per_node": 1,
        });
        let accepted = verdict(&members).accepted.unwrap();
        let plan = plan(&accepted);
        let report = report(&Subject { plan: &plan, definition: Some(&accepted.definition) });
        let place = |name: &str| {
            let found = report.parameters.iter().find(|parameter| parameter.parameter == name).unwrap();
            found.script_run_config.clone()
        };
        for name in ["vm_size", "shm_size", "_enable_optimized_mode", "process_count_per_node"] {
            let place = place(name);
            assert_eq!((place.place, place.equivalence), (None, Equivalence::Exact), "{name}");
            assert!(place.note.is_some(), "{name}");
        }
        assert_eq!(place("use_docker").place.as_deref(), Some("DockerConfiguration(use_docker=…)"));
        assert_eq!(place("compute_target").note, None);
    }

    #[test]
    fn parameters_come_in_the_order_of_the_signature_and_only_given_ones() {
        for_each(|name, subject| {
            if name == "minimal" {
                let names: Vec<_> = report(subject).parameters.into_iter().map(|p| p.parameter).collect();
                assert_eq!(
                    names,
                    ["source_directory", "compute_target", "entry_script", "framework_version"]
                );
            }
        });
    }
}
