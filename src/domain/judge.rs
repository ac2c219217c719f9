//! One path for every verdict: validate, create, inline run, overridden run.

use serde_json::{Map, Value};

use super::{
    definition::{Definition, Draft, redaction},
    environment::Environment,
    facts::{Facts, Wanted},
    finding::{Finding, Severity},
    plan::{Launcher, Plan},
    rules::{self, Context, grammar::paths},
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
}

impl Verdict {
    /// Whether no finding is an error.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.accepted.is_some()
    }
}

/// What has to be looked up before [`judge`] can be asked about this body.
#[must_use]
pub fn wanted(body: &Map<String, Value>) -> Wanted {
    let draft = Draft::read(body);
    let mut wanted = Wanted::default();
    wanted.snapshot = draft.source_directory.text().and_then(|text| text.parse().ok());
    for (_, file) in [draft.conda_file(), draft.pip_file()] {
        if let Some(path) = file.text() {
            wanted.contents.extend(paths::normalized(path));
        }
    }
    wanted
}

/// Judges a body by every rule.
#[must_use]
pub fn judge(body: &Map<String, Value>, facts: &Facts) -> Verdict {
    let draft = Draft::read(body);
    let context = Context::new(body, &draft, facts);
    let findings = rules::run(&context);
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Verdict { findings, accepted: None };
    }
    let environment = Environment::resolve(&context);
    let entry_script = draft.entry_script.text().and_then(paths::normalized);
    let accepted = Definition::from_judged(body, draft.clone(), entry_script)
        .map(|definition| Accepted { definition, environment });
    Verdict { findings, accepted }
}

/// Findings for parameters that the definition uses and this version cannot put into effect yet
/// (`parameter-not-yet-effective`, severity error). Only starting a run asks; empty means that it may start.
#[must_use]
pub fn not_yet_effective(accepted: &Accepted, facts: &Facts) -> Vec<Finding> {
    let definition = &accepted.definition;
    rules::not_yet_effective(&Context::new(definition.body(), definition.draft(), facts))
}

/// The plan of a run of an accepted definition.
#[must_use]
pub fn plan(accepted: &Accepted) -> Plan {
    let definition = &accepted.definition;
    Plan {
        snapshot_id: definition.source_directory().clone(),
        entry_script: definition.entry_script().to_owned(),
        arguments: definition.arguments(),
        launcher: if definition.is_mpi() { Launcher::Mpi } else { Launcher::Single },
        node_count: definition.node_count(),
        process_count_per_node: definition.process_count_per_node(),
        compute_target: definition.compute_target().or(definition.vm_size()).unwrap_or_default().to_owned(),
        use_gpu: definition.use_gpu(),
        max_run_duration_seconds: definition.max_run_duration_seconds(),
        environment: accepted.environment.clone(),
    }
}

/// The definition as it may be stored and shown: every secret in it (registry passwords, at the top and inside
/// `environment_definition`) replaced by a fixed marker, key order kept.
#[must_use]
pub fn redacted(body: &Map<String, Value>) -> Map<String, Value> {
    redaction::redacted(body)
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
            (Some(present), value) => *present = value.clone(),
            (None, value) => {
                merged.insert(name.to_owned(), value.clone());
            }
        }
    }
    merged
}
