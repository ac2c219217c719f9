//! A small world for tests of rules.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::domain::{
    compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda, Containers},
    facts::{Facts, SnapshotFacts, SourceLimits},
    finding::{Finding, Severity},
    ids::SnapshotId,
    judge::{Verdict, judge},
};

/// The id of the one snapshot of this world.
pub(crate) fn snapshot() -> String {
    SnapshotId::from_digest([7; 32]).to_string()
}

/// Targets, datastores and files.
pub(crate) fn world() -> Facts {
    let target = |name: &str, kind, max_nodes, gpus_per_node| ComputeTarget {
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
    };
    let mut files = SnapshotFacts::default();
    for (path, content) in [
        ("train.py", ""),
        ("sub/other.py", ""),
        ("conda.yml", "channels: [defaults]\ndependencies: [python=3.7, numpy, {pip: [chainer==6.0.0]}]"),
        ("conda_escape.yml", "dependencies: [{pip: ['-r ../x.txt']}]"),
        ("conda_bad.yml", "foo: bar"),
        ("req.txt", "tqdm\nmpi4py==3.1.0 # newer\n"),
        ("req_options.txt", "--pre\ntqdm\n"),
        ("req_escape.txt", "-r ../x.txt\n"),
        ("req_bad.txt", "numpy==\n"),
    ] {
        files.files.insert(path.to_owned(), content.len() as u64);
        files.contents.insert(path.to_owned(), content.as_bytes().to_vec());
    }
    Facts {
        limits: SourceLimits::default(),
        snapshot: Some(Arc::new(files)),
        targets: Arc::new(vec![
            target("local", ComputeTargetType::Local, 1, 0),
            target("cpu-cluster", ComputeTargetType::AmlCompute, 4, 0),
            target("gpu-cluster", ComputeTargetType::AmlCompute, 4, 4),
            target("kube", ComputeTargetType::Kubernetes, 4, 0),
            target("hdi", ComputeTargetType::HDInsightCompute, 4, 0),
        ]),
        one_off_target: None,
        datastores: ["mystore".to_owned(), "my-files".to_owned()].into(),
    }
}

/// A sound definition on `cpu-cluster`, with the given members put over it.
pub(crate) fn body(members: &Value) -> Map<String, Value> {
    let base = json!({
        "source_directory": snapshot(),
        "compute_target": "cpu-cluster",
        "entry_script": "train.py",
        "framework_version": "7.0.0",
    });
    let (Value::Object(mut body), Value::Object(members)) = (base, members) else {
        panic!("members are an object")
    };
    for (key, value) in members {
        body.insert(key.clone(), value.clone());
    }
    body
}

/// The verdict on that definition.
pub(crate) fn verdict(members: &Value) -> Verdict {
    judge(&body(members), &world())
}

fn found(findings: &[Finding], severity: Severity) -> Vec<String> {
    let of_that = findings.iter().filter(|f| f.severity == severity && !f.pointer.is_empty());
    of_that.map(|f| format!("{}@{}", f.rule, f.pointer)).collect()
}

/// The errors of that definition as `rule@pointer`.
pub(crate) fn errors(members: &Value) -> Vec<String> {
    found(&verdict(members).findings, Severity::Error)
}

/// The warnings of that definition as `rule@pointer`.
pub(crate) fn warnings(members: &Value) -> Vec<String> {
    found(&verdict(members).findings, Severity::Warning)
}

/// The one finding of that rule.
pub(crate) fn finding(members: &Value, rule: &str) -> Finding {
    let verdict = verdict(members);
    let mut of_that = verdict.findings.iter().filter(|f| f.rule == rule);
    let first = of_that.next().unwrap_or_else(|| panic!("{rule} is not there"));
    assert!(of_that.next().is_none(), "{rule} is there twice");
    first.clone()
}
