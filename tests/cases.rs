//! The golden cases, judged in process: `tests/cases/given.json` against the rules, compared finding by finding.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use estimatord::domain::{
    compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda, Containers, LOCAL},
    definition::{SIGNATURE, rank},
    facts::{Facts, SnapshotFacts},
    finding::{Finding, Severity},
    ids::SnapshotId,
    json,
    judge::{Verdict, judge, plan, redacted, wanted},
};
use json_patch::Patch;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// In every answer, left out of every case.
const ALWAYS: &str = "estimator-deprecated";

/// Cases that are not judged here, and why.
const SKIPPED: &[(&str, &str)] = &[(
    "sp-dataset-reserved",
    "the contract refuses an input that would become the variable PATH (reserved-name); the case is older than that rule",
)];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"))
}

fn cases() -> Vec<Value> {
    let bytes = fs::read(folder().join("given.json")).unwrap();
    match json::parse(&bytes).unwrap() {
        Value::Array(cases) => cases,
        other => panic!("the cases are a list, not {}", json::kind_of(&other)),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is a text"))
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn files_of(folder: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files_of(&entry.path(), &format!("{name}/"), found);
        } else {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
}

/// The snapshots by their ids, which are made up from the names of the fixtures.
struct Snapshots(BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl Snapshots {
    fn load() -> Self {
        let mut snapshots = BTreeMap::new();
        for entry in fs::read_dir(folder().join("fixtures")).unwrap() {
            let entry = entry.unwrap();
            let mut files = BTreeMap::new();
            files_of(&entry.path(), "", &mut files);
            snapshots.insert(snapshot_id(entry.file_name().to_str().unwrap()), files);
        }
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
            facts.snapshot = Some(snapshot);
        }
        facts.targets.push(target(LOCAL, ComputeTargetType::Local, 1, 0));
        for given in list(case, "targets") {
            let name = text(given, "name");
            let kind = serde_json::from_value(given["type"].clone()).unwrap();
            let number = |key: &str| u32::try_from(given[key].as_u64().unwrap()).unwrap();
            facts.targets.retain(|known| known.name.as_str() != name);
            facts.targets.push(target(name, kind, number("max_nodes"), number("gpus_per_node")));
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
    }
}

fn snapshot_id(fixture: &str) -> String {
    SnapshotId::from_digest(Sha256::digest(fixture).into()).to_string()
}

/// Puts ids in the place of `${snapshot:<fixture>}`.
fn fill(value: &mut Value) {
    match value {
        Value::String(text) => {
            let fixture = text.strip_prefix("${snapshot:").and_then(|rest| rest.strip_suffix('}'));
            if let Some(fixture) = fixture {
                *text = snapshot_id(fixture);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(fill),
        Value::Object(map) => map.values_mut().for_each(fill),
        _ => {}
    }
}

fn body_of(case: &Value) -> Map<String, Value> {
    let mut definition = case["definition"].clone();
    fill(&mut definition);
    match definition {
        Value::Object(map) => map,
        other => panic!("a definition is an object, not {}", json::kind_of(&other)),
    }
}

fn pairs(findings: &[Finding], severity: Severity) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = findings
        .iter()
        .filter(|f| f.severity == severity && f.rule != ALWAYS)
        .map(|f| (f.rule.clone(), f.pointer.clone()))
        .collect();
    pairs.sort();
    pairs
}

fn minus(left: &[(String, String)], right: &[(String, String)]) -> Vec<(String, String)> {
    let mut right = right.to_vec();
    let mut rest = Vec::new();
    for pair in left {
        match right.iter().position(|other| other == pair) {
            Some(at) => {
                right.remove(at);
            }
            None => rest.push(pair.clone()),
        }
    }
    rest
}

/// What is wrong with one verdict.
fn compare(expect: &Value, verdict: &Verdict) -> Vec<String> {
    let mut bad = Vec::new();
    if expect["valid"] != Value::Bool(verdict.is_valid()) {
        bad.push(format!("valid is {}, expected {}", verdict.is_valid(), expect["valid"]));
    }
    for (severity, key) in
        [(Severity::Error, "errors"), (Severity::Warning, "warnings"), (Severity::Info, "infos")]
    {
        let got = pairs(&verdict.findings, severity);
        let exact = expect.get(key).is_some();
        let least = format!("{key}_at_least");
        let stated = if exact { list(expect, key) } else { list(expect, &least) };
        let want: Vec<_> =
            stated.iter().map(|x| (text(x, "rule").to_owned(), text(x, "pointer").to_owned())).collect();
        let lacking = minus(&want, &got);
        if !lacking.is_empty() {
            bad.push(format!("{key} missing: {lacking:?}"));
        }
        let extra = minus(&got, &want);
        if exact && !extra.is_empty() {
            bad.push(format!("{key} not expected: {extra:?}"));
        }
    }
    let always: Vec<_> = verdict.findings.iter().filter(|f| f.rule == ALWAYS).collect();
    if always.len() != 1 || always[0].severity != Severity::Info {
        bad.push(format!("{ALWAYS} must come exactly once, as info"));
    }
    let others = || verdict.findings.iter().filter(|f| f.rule != ALWAYS);
    let ranks: Vec<_> = others()
        .map(|f| json::first_token(&f.pointer).and_then(|p| rank(&p)).unwrap_or(SIGNATURE.len()))
        .collect();
    if !ranks.is_sorted() {
        bad.push("findings are not in the order of the signature".to_owned());
    } else if expect.get("order").is_some() {
        let mut seen: Vec<String> = others()
            .filter(|f| f.severity == Severity::Error)
            .filter_map(|f| json::first_token(&f.pointer))
            .collect();
        seen.dedup();
        let want: Vec<_> = list(expect, "order").iter().map(|p| p.as_str().unwrap().to_owned()).collect();
        if seen != want {
            bad.push(format!("errors in the order {seen:?}, expected {want:?}"));
        }
    }
    for mention in list(expect, "fix_mentions") {
        let (rule, pointer, wanted) =
            (text(mention, "rule"), text(mention, "pointer"), text(mention, "text"));
        for finding in verdict.findings.iter().filter(|f| f.rule == rule && f.pointer == pointer) {
            if !serde_json::to_string(&finding.fix).unwrap().contains(wanted) {
                bad.push(format!("the fix of {rule} at {pointer} does not name {wanted:?}"));
            }
        }
    }
    bad
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
        let body = body_of(&case);
        let verdict = judge(&body, &snapshots.facts(&case, &body));
        let mut bad = compare(&case["expect"], &verdict);
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
        let body = body_of(&case);
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
        let body = body_of(&case);
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
        let body = body_of(&case);
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
