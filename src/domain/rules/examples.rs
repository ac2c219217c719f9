//! The world that the examples of the rules are judged in. `examples/rules` and `examples/digits` hold its files, so that a
//! reader can try them on a service of their own.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::domain::{
    compute_target::{
        Backend, ComputeTarget, ComputeTargetType, Conda, Containers, Engine, LOCAL, SlurmSettings,
    },
    facts::{Facts, SnapshotFacts, SourceLimits},
};

/// The id of the snapshot that holds `examples/digits/train.py` and nothing else. The examples of the API's document name it,
/// so that they work as they stand once that file was uploaded; a test keeps it true.
pub const EXAMPLE_SNAPSHOT: &str = "sha256:7019503cc6ed97ee88eaafe8d00ba50d246a7c754817ba352aa6858bfa4e0b44";

/// The id of the snapshot of `examples/rules`, without its README; a test keeps it true.
pub const FILES_SNAPSHOT: &str = "sha256:7366a7faea0900ed7706787594518a4d6c5b25860e79ac3ba58c43173215084d";

/// A snapshot that holds too much. It cannot be uploaded, so it has no real id.
const LARGE_SNAPSHOT: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

/// The files of the snapshot of `examples/rules`.
pub const FILES: [(&str, &str); 7] = [
    ("broken.py", include_str!("../../../examples/rules/broken.py")),
    ("conda.yml", include_str!("../../../examples/rules/conda.yml")),
    ("needs_package.py", include_str!("../../../examples/rules/needs_package.py")),
    ("notes.txt", include_str!("../../../examples/rules/notes.txt")),
    ("requirements.txt", include_str!("../../../examples/rules/requirements.txt")),
    ("settings.yml", include_str!("../../../examples/rules/settings.yml")),
    ("train.py", include_str!("../../../examples/rules/train.py")),
];

const DIGITS: [(&str, &str); 1] = [("train.py", include_str!("../../../examples/digits/train.py"))];

const CLUSTER: &str = "hpc";
const DATASTORE: &str = "training_data";

/// What the examples refer to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ExampleWorld {
    /// The snapshots, by their ids, with what they hold.
    pub snapshots: BTreeMap<String, Vec<&'static str>>,
    /// The compute targets besides `local`.
    #[schema(value_type = Vec<Object>)]
    pub compute_targets: Vec<ComputeTarget>,
    /// The one of them on whose cluster targets for one run are made (`--one-off-target`).
    pub one_off_target: &'static str,
    /// The datastores.
    pub datastores: Vec<&'static str>,
}

/// What the examples refer to.
#[must_use]
pub fn world() -> ExampleWorld {
    let names = |files: &[(&'static str, &str)]| files.iter().map(|(name, _)| *name).collect();
    ExampleWorld {
        snapshots: BTreeMap::from([
            (EXAMPLE_SNAPSHOT.to_owned(), names(&DIGITS)),
            (FILES_SNAPSHOT.to_owned(), names(&FILES)),
            (LARGE_SNAPSHOT.to_owned(), vec!["train.py", "a file of 400 MiB"]),
        ]),
        compute_targets: targets(),
        one_off_target: CLUSTER,
        datastores: vec![DATASTORE],
    }
}

fn target(name: &str, kind: ComputeTargetType, max_nodes: u32) -> ComputeTarget {
    ComputeTarget {
        name: name.parse().expect("the names of the examples follow the grammar"),
        kind,
        backend: Backend::process(),
        max_nodes,
        vm_size: None,
        vm_priority: None,
        gpus_per_node: 0,
        containers: Containers::Auto,
        conda: Conda::Auto,
        projects: Vec::new(),
    }
}

fn targets() -> Vec<ComputeTarget> {
    let slurm = SlurmSettings { shared_dir: "/shared/estimatord".to_owned(), ..SlurmSettings::default() };
    vec![
        target("cpu-cluster", ComputeTargetType::AmlCompute, 4),
        target("hdinsight", ComputeTargetType::HDInsightCompute, 4),
        ComputeTarget {
            containers: Containers::Never,
            conda: Conda::Never,
            ..target("bare-metal", ComputeTargetType::AmlCompute, 4)
        },
        ComputeTarget {
            backend: Backend { engine: Engine::Slurm(Box::new(slurm)), ..Backend::process() },
            containers: Containers::Never,
            ..target(CLUSTER, ComputeTargetType::AmlCompute, 4)
        },
    ]
}

/// What is known when an example is judged.
#[must_use]
pub fn facts(definition: &Map<String, Value>) -> Facts {
    let mut targets = targets();
    targets.push(target(LOCAL, ComputeTargetType::Local, 1));
    let mut facts = Facts {
        limits: SourceLimits::default(),
        snapshot: None,
        targets: Arc::new(targets),
        one_off_target: CLUSTER.parse().ok(),
        datastores: [DATASTORE.to_owned()].into(),
    };
    facts.snapshot = match definition.get("source_directory").and_then(Value::as_str) {
        Some(EXAMPLE_SNAPSHOT) => Some(Arc::new(snapshot(&DIGITS))),
        Some(FILES_SNAPSHOT) => Some(Arc::new(snapshot(&FILES))),
        Some(LARGE_SNAPSHOT) => {
            let mut large = snapshot(&DIGITS);
            large.files.insert("weights.npz".to_owned(), 400 << 20);
            Some(Arc::new(large))
        }
        _ => None,
    };
    facts
}

fn snapshot(files: &[(&str, &str)]) -> SnapshotFacts {
    let mut facts = SnapshotFacts::default();
    for (path, content) in files {
        facts.files.insert((*path).to_owned(), content.len() as u64);
        facts.contents.insert((*path).to_owned(), content.as_bytes().to_vec());
    }
    facts
}

/// A sound definition that needs nothing but the example's script and `local`.
#[must_use]
pub fn base() -> Map<String, Value> {
    let base = json!({
        "source_directory": EXAMPLE_SNAPSHOT,
        "compute_target": "local",
        "entry_script": "train.py",
        "framework_version": "7.0.0",
    });
    match base {
        Value::Object(base) => base,
        _ => Map::new(),
    }
}

/// The whole definition of an example: its members put over [`base`], null removing one.
pub(super) fn definition(members: &str) -> Map<String, Value> {
    let members = members.replace("${files}", FILES_SNAPSHOT).replace("${large}", LARGE_SNAPSHOT);
    let members: Map<String, Value> =
        serde_json::from_str(&members).expect("a test reads every example of the catalogue");
    let mut definition = base();
    for (name, value) in members {
        if value.is_null() {
            definition.shift_remove(&name);
        } else {
            definition.insert(name, value);
        }
    }
    definition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{finding::Severity, judge::judge, rules::all};

    fn found(definition: &Map<String, Value>) -> Vec<(String, Severity)> {
        let findings = judge(definition, &facts(definition)).findings;
        findings.into_iter().map(|finding| (finding.rule, finding.severity)).collect()
    }

    #[test]
    fn every_rule_speaks_about_one_example_and_not_about_the_other() {
        for rule in all() {
            let refused = definition(rule.refused);
            let said = found(&refused);
            assert!(said.iter().any(|(slug, _)| slug == rule.slug), "{}: {refused:?}: {said:?}", rule.slug);
            let Some(accepted) = rule.accepted else { continue };
            let accepted = definition(accepted);
            let said = found(&accepted);
            assert!(said.iter().all(|(slug, _)| slug != rule.slug), "{}: {accepted:?}: {said:?}", rule.slug);
            // An accepted example is accepted by all rules, or it would teach the wrong thing.
            let refusing: Vec<_> = said.iter().filter(|(_, severity)| *severity == Severity::Error).collect();
            assert!(refusing.is_empty(), "{}: {accepted:?}: {refusing:?}", rule.slug);
        }
    }
}
