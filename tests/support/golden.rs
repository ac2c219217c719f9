//! The golden cases: how they are read, and how a verdict is compared with what they expect.

use std::{collections::BTreeMap, fs, path::Path};

use estimatord::domain::{
    definition::{SIGNATURE, rank},
    finding::{Finding, Severity},
    json,
};
use serde_json::{Map, Value};

/// In every answer, left out of every case.
pub const ALWAYS: &str = "estimator-deprecated";

/// Cases that are not judged here, and why.
pub const SKIPPED: &[(&str, &str)] = &[(
    "sp-dataset-reserved",
    "the contract refuses an input that would become the variable PATH (reserved-name); the case is older than that rule",
)];

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cases"))
}

pub fn cases() -> Vec<Value> {
    let bytes = fs::read(folder().join("given.json")).unwrap();
    match json::parse(&bytes).unwrap() {
        Value::Array(cases) => cases,
        other => panic!("the cases are a list, not {}", json::kind_of(&other)),
    }
}

pub fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} is a text"))
}

pub fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
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

/// The files of every fixture, by its name.
pub fn fixtures() -> BTreeMap<String, BTreeMap<String, Vec<u8>>> {
    let mut fixtures = BTreeMap::new();
    for entry in fs::read_dir(folder().join("fixtures")).unwrap() {
        let entry = entry.unwrap();
        let mut files = BTreeMap::new();
        files_of(&entry.path(), "", &mut files);
        fixtures.insert(entry.file_name().to_str().unwrap().to_owned(), files);
    }
    fixtures
}

/// Puts ids in the place of `${snapshot:<fixture>}`.
fn fill(value: &mut Value, id: &dyn Fn(&str) -> String) {
    match value {
        Value::String(text) => {
            let fixture = text.strip_prefix("${snapshot:").and_then(|rest| rest.strip_suffix('}'));
            if let Some(fixture) = fixture {
                *text = id(fixture);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| fill(item, id)),
        Value::Object(map) => map.values_mut().for_each(|member| fill(member, id)),
        _ => {}
    }
}

/// The definition of a case; `id` answers the id of a fixture.
pub fn body_of(case: &Value, id: &dyn Fn(&str) -> String) -> Map<String, Value> {
    let mut definition = case["definition"].clone();
    fill(&mut definition, id);
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
pub fn compare(expect: &Value, valid: bool, findings: &[Finding]) -> Vec<String> {
    let mut bad = Vec::new();
    if expect["valid"] != Value::Bool(valid) {
        bad.push(format!("valid is {}, expected {}", valid, expect["valid"]));
    }
    for (severity, key) in
        [(Severity::Error, "errors"), (Severity::Warning, "warnings"), (Severity::Info, "infos")]
    {
        let got = pairs(findings, severity);
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
    let always: Vec<_> = findings.iter().filter(|f| f.rule == ALWAYS).collect();
    if always.len() != 1 || always[0].severity != Severity::Info {
        bad.push(format!("{ALWAYS} must come exactly once, as info"));
    }
    let others = || findings.iter().filter(|f| f.rule != ALWAYS);
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
        for finding in findings.iter().filter(|f| f.rule == rule && f.pointer == pointer) {
            if !serde_json::to_string(&finding.fix).unwrap().contains(wanted) {
                bad.push(format!("the fix of {rule} at {pointer} does not name {wanted:?}"));
            }
        }
    }
    bad
}
