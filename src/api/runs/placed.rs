//! Findings about a definition, moved to where its parts stand in the body of `POST /v1/runs`.

use json_patch::{Patch, PatchOperation, jsonptr::PointerBuf};
use serde_json::{Map, Value};

use crate::{
    api::findings::unescaped,
    domain::finding::{Finding, Severity},
};

/// Where the definition of a run stands.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Placement<'a> {
    /// `/estimator` for an inline one, `/estimator_id` for a stored one.
    pub base: &'static str,
    /// Whether the definition is in the body, so that pointers go on inside it.
    pub is_inline: bool,
    /// What the body overrides.
    pub overrides: &'a Map<String, Value>,
}

impl Placement<'_> {
    /// The findings, in the order of the signature, with pointers into the run's body.
    pub(in crate::api) fn place(&self, findings: Vec<Finding>) -> Vec<Finding> {
        findings.into_iter().map(|finding| self.place_one(finding)).collect()
    }

    fn place_one(&self, mut finding: Finding) -> Finding {
        finding.pointer = self.pointer(&finding.pointer);
        // A patch that would have to reach into a stored estimator cannot be applied to this body.
        let patch = finding.fix.patch.take();
        finding.fix.patch = patch.and_then(|patch| {
            let steps = patch.0.into_iter().map(|step| self.step(step));
            steps.collect::<Option<Vec<_>>>().map(Patch)
        });
        finding
    }

    fn step(&self, mut step: PatchOperation) -> Option<PatchOperation> {
        let places = match &mut step {
            PatchOperation::Add(step) => [Some(&mut step.path), None],
            PatchOperation::Remove(step) => [Some(&mut step.path), None],
            PatchOperation::Replace(step) => [Some(&mut step.path), None],
            PatchOperation::Test(step) => [Some(&mut step.path), None],
            PatchOperation::Move(step) => [Some(&mut step.path), Some(&mut step.from)],
            PatchOperation::Copy(step) => [Some(&mut step.path), Some(&mut step.from)],
        };
        for place in places.into_iter().flatten() {
            let placed = self.pointer(place.as_str());
            if placed == self.base && !self.is_inline {
                return None;
            }
            *place = PointerBuf::parse(placed).ok()?;
        }
        Some(step)
    }

    fn pointer(&self, pointer: &str) -> String {
        if self.is_overridden(pointer) {
            pointer.to_owned()
        } else if self.is_inline {
            format!("{}{pointer}", self.base)
        } else {
            self.base.to_owned()
        }
    }

    /// Whether the value at a pointer came from the run's body. `script_params` is merged key by key.
    fn is_overridden(&self, pointer: &str) -> bool {
        let mut parts = pointer.split('/').skip(1).map(unescaped);
        let Some(first) = parts.next() else { return false };
        match (self.overrides.get(&first), parts.next()) {
            (Some(Value::Object(map)), Some(key)) => map.contains_key(&key),
            (Some(_), _) => true,
            (None, _) => false,
        }
    }
}

/// Whether one of them is an error.
pub(super) fn has_error(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.severity == Severity::Error)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            _ => panic!("an object is needed"),
        }
    }

    #[test]
    fn pointers_lead_to_where_the_value_stands() {
        let overrides = object(json!({"script_params": {"--a/b": {}}, "compute_target": "x"}));
        let inline = Placement { base: "/estimator", is_inline: true, overrides: &overrides };
        assert_eq!(inline.pointer(""), "/estimator");
        assert_eq!(inline.pointer("/node_count"), "/estimator/node_count");
        assert_eq!(inline.pointer("/compute_target"), "/compute_target");
        assert_eq!(inline.pointer("/script_params/--a~1b"), "/script_params/--a~1b");
        assert_eq!(inline.pointer("/script_params/--c"), "/estimator/script_params/--c");
        let stored = Placement { base: "/estimator_id", is_inline: false, overrides: &overrides };
        assert_eq!(stored.pointer("/node_count"), "/estimator_id");
        assert_eq!(stored.pointer("/compute_target"), "/compute_target");
    }
}
