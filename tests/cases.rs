//! The golden cases, judged in process: `tests/cases/given.json` against the rules, compared finding by finding.

#[path = "support/golden.rs"]
mod golden;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use estimatord::domain::{
    compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda, Containers, LOCAL},
    facts::{Facts, SnapshotFacts},
    finding::Finding,
    ids::SnapshotId,
    judge::{judge, plan, redacted, wanted},
};
use golden::{ALWAYS, SKIPPED, body_of, cases, compare, fixtures, list, text};
use json_patch::Patch;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// The snapshots by their ids, which are made up from the names of the fixtures.
struct Snapshots(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Snapshots {
    fn load() -> Self {
        let snapshots = fixtures().into_iter().map(|(name, files)| (snapshot_id(&name), files)).collect();
        Self(snapshots)
    }

    /// What a service would look up for this body.
    fn facts(&self, case: &Value, body: &Map<String, Value>) -> Facts {
        let wanted = wanted(body);
        let mut facts = Facts::default();
        if let Some(files) = wanted.snapshot.and_then(|id| self.0.get(id.as_str())) {
            let mut snapshot = SnapshotFacts::default();
            for (path, bytes) in files {
                snapshot.files.insert(path.clone(), bytes.len() as u64);
                if wanted.contents.contains(path) {
                    snapshot.contents.insert(path.clone(), bytes.clone());
                }
            }
            facts.snapshot = Some(Arc::new(snapshot));
        }
        let targets = Arc::make_mut(&mut facts.targets);
        targets.push(target(LOCAL, ComputeTargetType::Local, 1, 0));
        for given in list(case, "targets") {
            let name = text(given, "name");
            let kind = serde_json::from_value(given["type"].clone()).unwrap();
            let number = |key: &str| u32::try_from(given[key].as_u64().unwrap()).unwrap();
            targets.retain(|known| known.name.as_str() != name);
            targets.push(target(name, kind, number("max_nodes"), number("gpus_per_node")));
        }
        facts.datastores = list(case, "datastores").iter().map(|s| s.as_str().unwrap().to_owned()).collect();
        facts
    }
}

fn target(name: &str, kind: ComputeTargetType, max_nodes: u32, gpus_per_node: u32) -> ComputeTarget {
    ComputeTarget {
        name: name.parse().unwrap(),
        kind,
        backend: Backend::process(),
        max_nodes,
        vm_size: None,
        vm_priority: None,
        gpus_per_node,
        containers: Containers::Auto,
        conda: Conda::Auto,
        projects: Vec::new(),
    }
}

fn snapshot_id(fixture: &str) -> String {
    SnapshotId::from_digest(Sha256::digest(fixture).into()).to_string()
}

#[test]
fn the_golden_cases_hold() {
    let snapshots = Snapshots::load();
    let mut failures = Vec::new();
    let mut passed = 0;
    for case in cases() {
        let id = text(&case, "id");
        if SKIPPED.iter().any(|(skipped, _)| *skipped == id) {
            continue;
        }
        let body = body_of(&case, &snapshot_id);
        let verdict = judge(&body, &snapshots.facts(&case, &body));
        let mut bad = compare(&case["expect"], verdict.is_valid(), &verdict.findings);
        let shown = serde_json::to_string(&verdict.findings).unwrap()
            + &serde_json::to_string(&redacted(&body)).unwrap();
        for secret in list(&case["expect"], "never_in_response") {
            if shown.contains(secret.as_str().unwrap()) {
                bad.push("a secret is shown".to_owned());
            }
        }
        if bad.is_empty() {
            passed += 1;
        }
        failures.extend(bad.into_iter().map(|line| format!("{id}: {line}")));
    }
    assert!(failures.is_empty(), "{passed} passed; failures:\n{}", failures.join("\n"));
    assert!(passed > 300, "only {passed} cases were judged");
}

#[test]
fn every_skipped_case_exists() {
    let ids: BTreeSet<String> = cases().iter().map(|case| text(case, "id").to_owned()).collect();
    for (id, why) in SKIPPED {
        assert!(ids.contains(*id) && !why.is_empty(), "{id}");
    }
}

#[test]
fn a_redacted_definition_gets_the_same_verdict() {
    let snapshots = Snapshots::load();
    for case in cases() {
        let body = body_of(&case, &snapshot_id);
        let facts = snapshots.facts(&case, &body);
        let first = judge(&body, &facts);
        let shown = redacted(&body);
        let second = judge(&shown, &facts);
        assert_eq!(first.findings, second.findings, "{}", text(&case, "id"));
        let keys = |map: &Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&body), keys(&shown));
        if let (Some(first), Some(second)) = (first.accepted, second.accepted) {
            assert_eq!(plan(&first), plan(&second));
        }
    }
}

#[test]
fn patches_lead_to_definitions_without_that_finding() {
    let snapshots = Snapshots::load();
    for case in cases() {
        let body = body_of(&case, &snapshot_id);
        let verdict = judge(&body, &snapshots.facts(&case, &body));
        for finding in &verdict.findings {
            let Some(patch) = &finding.fix.patch else { continue };
            let patched = apply(&body, [patch]);
            let again = judge(&patched, &snapshots.facts(&case, &patched));
            let same = |f: &&Finding| f.rule == finding.rule && f.pointer == finding.pointer;
            assert_eq!(again.findings.iter().find(same), None, "{}", text(&case, "id"));
        }
    }
}

/// Every patch after the other.
fn apply<'a>(body: &Map<String, Value>, patches: impl IntoIterator<Item = &'a Patch>) -> Map<String, Value> {
    let mut body = Value::Object(body.clone());
    for patch in patches {
        json_patch::patch(&mut body, patch).unwrap_or_else(|why| panic!("{patch}: {why}"));
    }
    match body {
        Value::Object(body) => body,
        other => panic!("{other}"),
    }
}

/// Deprecated words only: all patches together, in any number of copies, lead to a definition without any finding but the one
/// about the class.
#[test]
fn all_patches_of_deprecations_lead_to_none() {
    let snapshots = Snapshots::load();
    let mut passed = 0;
    for case in cases() {
        let body = body_of(&case, &snapshot_id);
        let verdict = judge(&body, &snapshots.facts(&case, &body));
        let others = || verdict.findings.iter().filter(|f| f.rule != ALWAYS);
        if others().count() == 0 || others().any(|f| f.rule != "deprecated-parameter") {
            continue;
        }
        let patched = apply(&body, others().map(|f| f.fix.patch.as_ref().expect("a mechanical fix")));
        let again = judge(&patched, &snapshots.facts(&case, &patched));
        let left: Vec<_> = again.findings.iter().filter(|f| f.rule != ALWAYS).collect();
        assert!(again.is_valid() && left.is_empty(), "{}: {left:?}", text(&case, "id"));
        passed += 1;
    }
    assert!(passed >= 3, "only {passed} cases have deprecations alone");
}

/// Findings may ask for the same removal; all patches can be applied one after the other all the same.
#[test]
fn patches_do_not_get_in_each_others_way() {
    let snapshots = Snapshots::load();
    for case in cases() {
        let body = body_of(&case, &snapshot_id);
        let verdict = judge(&body, &snapshots.facts(&case, &body));
        let removing = |f: &&Finding| {
            ["deprecated-parameter", "conflicting-parameters", "overridden-by-environment-definition"]
                .contains(&f.rule.as_str())
        };
        let _ = apply(&body, verdict.findings.iter().filter(removing).filter_map(|f| f.fix.patch.as_ref()));
    }
}
