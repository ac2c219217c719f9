//! One path for every verdict: validate, create, inline run, overridden run.

use serde_json::{Map, Value};

use super::{
    definition::Definition,
    environment::Environment,
    facts::{Facts, Wanted},
    finding::{Finding, Severity},
    ids::SnapshotId,
    plan::Plan,
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
pub fn wanted(_body: &Map<String, Value>) -> Wanted {
    panic!("skeleton")
}

/// Judges a body by every rule.
#[must_use]
pub fn judge(_body: &Map<String, Value>, _facts: &Facts) -> Verdict {
    panic!("skeleton")
}

/// Findings for parameters that the definition uses and this version cannot put into effect yet
/// (`parameter-not-yet-effective`, severity error). Only starting a run asks; empty means that it may start.
#[must_use]
pub fn not_yet_effective(_accepted: &Accepted, _facts: &Facts) -> Vec<Finding> {
    panic!("skeleton")
}

/// The plan of a run of an accepted definition.
#[must_use]
pub fn plan(_accepted: &Accepted) -> Plan {
    panic!("skeleton")
}

/// The definition as it may be stored and shown: every secret in it (registry passwords, at the top and inside
/// `environment_definition`) replaced by a fixed marker, key order kept.
#[must_use]
pub fn redacted(_body: &Map<String, Value>) -> Map<String, Value> {
    panic!("skeleton")
}

/// Merges what `POST /v1/runs` may override into a definition: `script_params` by key (an existing key keeps its place,
/// a new one goes to the end), `inputs`, `source_directory_data_store` and `compute_target` as a whole.
#[must_use]
pub fn with_overrides(
    _definition: &Map<String, Value>,
    _overrides: &Map<String, Value>,
) -> Map<String, Value> {
    panic!("skeleton")
}

#[expect(dead_code, reason = "skeleton")]
fn unused(_: Severity, _: SnapshotId) {}
