//! One path for every verdict: validate, create, inline run, overridden run.

use serde_json::{Map, Value};

use super::{
    compute_target::Containers,
    definition::{Definition, Draft, redaction},
    environment::Environment,
    facts::{Facts, Wanted},
    finding::{Finding, Severity},
    json,
    plan::{Launcher, OneOffTarget, Plan, TargetNodes},
    rules::{self, Context, grammar::paths},
    secret::Secret,
};

/// What the rules say of a body.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Everything found, of every severity, in the order of the signature.
    pub findings: Vec<Finding>,
    /// The definition and what it resolves to; there exactly when no finding is an error.
    pub accepted: Option<Accepted>,
}

/// A definition that no rule refuses.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The valid definition.
    pub definition: Definition,
    /// The environment it asks for.
    pub environment: Environment,
    /// Which container runtime the target says it has.
    pub containers: Containers,
    /// How many GPUs each node of the target has.
    pub gpus_per_node: u32,
    /// What the registered target says of its nodes.
    pub target_nodes: Option<TargetNodes>,
}

impl Verdict {
    /// Whether no finding is an error.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.accepted.is_some()
    }
}

/// A body that was read, and is to be judged when it is known what it refers to.
#[derive(Debug)]
pub struct Question<'a> {
    body: &'a Map<String, Value>,
    draft: Draft,
}

impl<'a> Question<'a> {
    /// Of a body.
    #[must_use]
    pub fn of(body: &'a Map<String, Value>) -> Self {
        Self { body, draft: Draft::read(body) }
    }

    /// What has to be looked up before it can be answered.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        wanted_by(&self.draft)
    }

    /// Judges the body by every rule.
    #[must_use]
    pub fn answer(self, facts: &Facts) -> Verdict {
        judged(self.body, self.draft, facts)
    }
}

/// What has to be looked up before [`judge`] can be asked about this body.
#[must_use]
pub fn wanted(body: &Map<String, Value>) -> Wanted {
    Question::of(body).wanted()
}

fn wanted_by(draft: &Draft) -> Wanted {
    let snapshot = draft.source_directory.text().and_then(|text| text.parse().ok());
    let datastores = !draft.references().is_empty()
        || draft.resume_from.is_given()
        || draft.source_directory_data_store.is_given();
    let mut wanted = Wanted { snapshot, datastores, ..Wanted::default() };
    for (_, file) in [draft.conda_file(), draft.pip_file()] {
        if let Some(path) = file.text() {
            wanted.contents.extend(paths::normalized(path));
        }
    }
    if draft.parses_script() {
        wanted.contents.extend(draft.entry_script.text().and_then(paths::normalized));
    }
    wanted
}

/// Judges a body by every rule.
#[must_use]
pub fn judge(body: &Map<String, Value>, facts: &Facts) -> Verdict {
    Question::of(body).answer(facts)
}

fn judged(body: &Map<String, Value>, draft: Draft, facts: &Facts) -> Verdict {
    let context = Context::new(body, &draft, facts);
    let findings = rules::run(&context);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Verdict { findings, accepted: None };
    }
    let environment = Environment::resolve(&context);
    let containers = context.target.as_ref().map_or(Containers::Auto, |target| target.containers);
    let gpus_per_node = context.target.as_ref().and_then(|target| target.gpus_per_node).unwrap_or(0);
    let target_nodes = context.target.as_ref().and_then(|target| target.nodes.clone());
    let entry_script = draft.entry_script.text().and_then(paths::normalized);
    let accepted = Definition::from_judged(body, draft, entry_script).map(|definition| Accepted {
        definition,
        environment,
        containers,
        gpus_per_node,
        target_nodes,
    });
    Verdict { findings, accepted }
}

/// The plan of a run of an accepted definition.
#[must_use]
pub fn plan(accepted: &Accepted) -> Plan {
    let definition = &accepted.definition;
    let (arguments, data) = definition.arguments_and_data();
    let one_off_target = definition.vm_size().map(|size| OneOffTarget {
        vm_size: size.to_owned(),
        vm_priority: definition.vm_priority().unwrap_or_default().to_owned(),
    });
    Plan {
        snapshot_id: definition.source_directory().clone(),
        entry_script: definition.entry_script().to_owned(),
        arguments,
        launcher: if definition.is_mpi() { Launcher::Mpi } else { Launcher::Single },
        node_count: definition.node_count(),
        process_count_per_node: definition.process_count_per_node(),
        compute_target: definition.compute_target().or(definition.vm_size()).unwrap_or_default().to_owned(),
        one_off_target,
        target_nodes: accepted.target_nodes.clone(),
        containers: accepted.containers,
        use_gpu: definition.use_gpu(),
        // A target may have been registered without their number.
        gpus_per_node: if definition.use_gpu() { accepted.gpus_per_node.max(1) } else { 0 },
        max_run_duration_seconds: definition.max_run_duration_seconds(),
        data,
        environment: accepted.environment.clone(),
    }
}

/// The definition as it may be stored and shown: every secret in it (registry passwords, at the top and inside
/// `environment_definition`) replaced by a fixed marker, key order kept.
#[must_use]
pub fn redacted(body: &Map<String, Value>) -> Map<String, Value> {
    redaction::redacted(body)
}

/// The password that the image of an accepted body is pulled with, and where it stands. The definition itself does not keep
/// it.
#[must_use]
pub fn registry_password(body: &Map<String, Value>, accepted: &Accepted) -> Option<(String, Secret)> {
    let registry = accepted.definition.draft().registry_in_use()?;
    // Its pointer holds names of members only, none of which is escaped.
    let mut names = registry.pointer.split('/').skip(1);
    let mut value = body.get(names.next()?)?;
    for name in names {
        value = value.get(name)?;
    }
    let password = value.get("password")?.as_str()?;
    (!password.is_empty())
        .then(|| (json::child(&registry.pointer, "password"), Secret::new(password.to_owned())))
}

/// Whether a secret is nothing but the marker that [`redacted`] puts in place of one.
#[must_use]
pub fn is_redacted(secret: &Secret) -> bool {
    secret.expose() == redaction::MARKER
}

/// Merges what `POST /v1/runs` may override into a definition: `script_params` by key (an existing key keeps its place,
/// a new one goes to the end), `inputs`, `source_directory_data_store` and `compute_target` as a whole.
#[must_use]
pub fn with_overrides(definition: &Map<String, Value>, overrides: &Map<String, Value>) -> Map<String, Value> {
    let mut merged = definition.clone();
    for name in ["script_params", "inputs", "source_directory_data_store", "compute_target"] {
        let Some(value) = overrides.get(name).filter(|value| !value.is_null()) else {
            continue;
        };
        match (merged.get_mut(name), value) {
            (Some(Value::Object(present)), Value::Object(more)) if name == "script_params" => {
                for (key, value) in more {
                    present.insert(key.clone(), value.clone());
                }
            }
            // What is no object cannot be merged into: the rules say that it is wrong, instead of it being lost.
            (Some(present), _) if name == "script_params" && !present.is_null() => {}
            (Some(present), value) => *present = value.clone(),
            (None, value) => {
                merged.insert(name.to_owned(), value.clone());
            }
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        json,
        plan::Launcher,
        rules::testing::{body, snapshot, verdict},
    };

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("not an object"),
        }
    }

    #[test]
    fn what_is_wanted_of_the_world() {
        let found = wanted(&body(&json!({
            "conda_dependencies_file": "./a//conda.yml", "conda_dependencies_file_path": "old.yml",
            "pip_requirements_file_path": "../req.txt",
        })));
        assert_eq!(found.snapshot.unwrap().as_str(), snapshot());
        assert_eq!(found.contents.into_iter().collect::<Vec<_>>(), ["a/conda.yml"]);
        assert_eq!(
            wanted(&object(json!({"source_directory": "x", "pip_requirements_file": 5}))),
            Wanted::default()
        );
    }

    #[test]
    fn arguments_are_flat_and_keep_their_spelling() {
        let text = r#"{"script_params": {"--z": 1e-3, "--flag": "", "-x": null, "--t": true, "--f": false,
            "--l": [1.0, "a b", null, ["", "$(id)", -0.0]], "--n": 9007199254740993, "pos": []}}"#;
        let members = json::parse(text.as_bytes()).unwrap();
        let accepted = verdict(&members).accepted.unwrap();
        assert_eq!(
            plan(&accepted).arguments,
            [
                "--z",
                "1e-3",
                "--flag",
                "-x",
                "--t",
                "True",
                "--f",
                "False",
                "--l",
                "1.0",
                "a b",
                "$(id)",
                "-0.0",
                "--n",
                "9007199254740993",
                "pos"
            ]
        );
    }

    #[test]
    fn how_processes_are_started() {
        for (members, launcher, nodes, processes) in [
            (json!({}), Launcher::Single, 1, 1),
            (json!({"distributed_training": {"type": "Mpi"}}), Launcher::Mpi, 1, 1),
            (
                json!({"node_count": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 3}}),
                Launcher::Mpi,
                2,
                3,
            ),
            (json!({"process_count_per_node": 4, "distributed_backend": "MPI"}), Launcher::Mpi, 1, 4),
        ] {
            let plan = plan(&verdict(&members).accepted.unwrap());
            assert_eq!(
                (plan.launcher, plan.node_count, plan.process_count_per_node),
                (launcher, nodes, processes),
                "{members}"
            );
        }
        let plan = plan(&verdict(&json!({"entry_script": "./sub/./other.py"})).accepted.unwrap());
        assert_eq!(
            (plan.entry_script.as_str(), plan.compute_target.as_str()),
            ("sub/other.py", "cpu-cluster")
        );
    }

    #[test]
    fn overrides_are_merged_by_key() {
        let definition =
            object(json!({"script_params": {"--a": 1, "--b": 2}, "inputs": ["x"], "compute_target": "c"}));
        let merged = with_overrides(
            &definition,
            &object(json!({"script_params": {"--c": 3, "--a": 9}, "inputs": [], "node_count": 7,
                "source_directory_data_store": "s", "compute_target": null})),
        );
        assert_eq!(
            serde_json::to_string(&merged).unwrap(),
            r#"{"script_params":{"--a":9,"--b":2,"--c":3},"inputs":[],"compute_target":"c","source_directory_data_store":"s"}"#
        );
        let replaced = with_overrides(
            &object(json!({"script_params": null})),
            &object(json!({"script_params": {"--a": 1}})),
        );
        assert_eq!(replaced["script_params"], json!({"--a": 1}));
    }

    #[test]
    fn an_accepted_definition_holds_no_secret() {
        let members = json!({"custom_docker_image": "a", "image_registry_details":
            {"address": "r", "username": "u", "password": "s3cret"}});
        let accepted = verdict(&members).accepted.unwrap();
        assert!(!format!("{accepted:?}").contains("s3cret"));
        assert_eq!(accepted.definition.body()["image_registry_details"]["password"], "[redacted]");
    }
}
