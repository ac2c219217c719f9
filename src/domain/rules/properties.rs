//! What holds for every body whatever.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::testing::{body, world};
use crate::domain::{
    definition::{SIGNATURE, rank},
    facts::Facts,
    json,
    judge::{judge, plan, redacted, wanted},
    rules::grammar::{conda, image, pip, requirements},
};

/// Texts that mean something somewhere, among arbitrary ones.
fn any_text() -> impl Strategy<Value = String> {
    let known = [
        "",
        "local",
        "cpu-cluster",
        "mpi",
        "Mpi",
        "train.py",
        "../x",
        "/x",
        "a.ipynb",
        "conda.yml",
        "req.txt",
        "mystore",
        "7.0.0",
        "2g",
        "numpy==1",
        "-r ../x",
        "a\u{0}b",
        "DataReference",
        "DatasetConsumptionConfig",
        "DataPath",
        "d1",
    ];
    prop_oneof![
        3 => proptest::sample::select(known.to_vec()).prop_map(str::to_owned),
        1 => any::<String>(),
    ]
}

fn any_key() -> impl Strategy<Value = String> {
    let members = [
        "type",
        "process_count_per_node",
        "address",
        "username",
        "password",
        "datastore",
        "name",
        "dataset",
        "path",
        "mode",
        "data_reference_name",
        "path_on_datastore",
        "python",
        "docker",
        "baseImageRegistry",
        "base_image",
        "enabled",
        "environmentVariables",
        "userManagedDependencies",
        "conda_dependencies",
        "dependencies",
        "--a",
    ];
    prop_oneof![
        3 => proptest::sample::select(members.to_vec()).prop_map(str::to_owned),
        1 => any_text(),
    ]
}

pub(super) fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2_i64..5).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        Just(json!(1.5)),
        any_text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::vec((any_key(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn any_body() -> impl Strategy<Value = Map<String, Value>> {
    let names: Vec<&str> = SIGNATURE.iter().map(|parameter| parameter.name).collect();
    let key = prop_oneof![
        8 => proptest::sample::select(names).prop_map(str::to_owned),
        1 => any_key(),
    ];
    let members = proptest::collection::vec((key, any_value()), 0..12);
    (members, any::<bool>()).prop_map(|(members, sound)| {
        let members: Map<String, Value> = members.into_iter().collect();
        if sound { body(&Value::Object(members)) } else { members }
    })
}

/// What is known of the world, made once.
pub(super) fn facts() -> &'static Facts {
    static FACTS: LazyLock<Facts> = LazyLock::new(world);
    &FACTS
}

proptest! {
    #[test]
    fn every_body_gets_an_ordered_verdict(body in any_body()) {
        let facts = world();
        let verdict = judge(&body, &facts);
        let again = judge(&body, &facts);
        prop_assert_eq!(&verdict.findings, &again.findings);

        let sent: Vec<&String> = body.keys().collect();
        let mut places = Vec::new();
        let mut pairs = Vec::new();
        for finding in &verdict.findings {
            pairs.push((&finding.rule, &finding.pointer));
            prop_assert!(!finding.message.is_empty() && !finding.fix.description.is_empty());
            let Some(name) = json::first_token(&finding.pointer) else {
                prop_assert_eq!(&finding.rule, "estimator-deprecated");
                continue;
            };
            let unknown = sent.iter().position(|key| **key == name);
            places.push(rank(&name).or(unknown.map(|at| SIGNATURE.len() + at)));
        }
        prop_assert!(places.is_sorted() && places.iter().all(Option::is_some));
        let count = pairs.len();
        pairs.sort();
        pairs.dedup();
        prop_assert_eq!(pairs.len(), count, "one finding for each rule and pointer");

        let refused = verdict.findings.iter().any(|f| f.severity == crate::domain::finding::Severity::Error);
        prop_assert_eq!(verdict.is_valid(), !refused);
        if let Some(accepted) = &verdict.accepted {
            let _ = plan(accepted);
        }
        for path in wanted(&body).contents {
            prop_assert!(!path.starts_with('/') && path.split('/').all(|part| part != ".."));
        }
    }

    #[test]
    fn redaction_keeps_the_verdict_and_the_order(body in any_body()) {
        let facts = world();
        let shown = redacted(&body);
        prop_assert_eq!(judge(&body, &facts).findings, judge(&shown, &facts).findings);
        prop_assert_eq!(body.keys().collect::<Vec<_>>(), shown.keys().collect::<Vec<_>>());
        prop_assert_eq!(&redacted(&shown), &shown);
    }

    #[test]
    fn json_comes_back_as_it_was_sent(body in any_body()) {
        let text = serde_json::to_string(&body).unwrap();
        let read = json::parse_object(text.as_bytes()).unwrap();
        prop_assert_eq!(serde_json::to_string(&read).unwrap(), text);
    }

    #[test]
    fn grammars_take_any_text(text in any::<String>(), bytes in any::<Vec<u8>>()) {
        let _ = pip::parse(&text);
        let _ = image::fault(&text);
        let _ = requirements::parse(text.as_bytes());
        let _ = requirements::parse(&bytes);
        let _ = conda::parse(text.as_bytes());
        let _ = conda::parse(&bytes);
        let _ = pip::without_credentials(&text);
        let _ = json::parse(&bytes);
        let _ = json::parse(text.as_bytes());
    }

    #[test]
    fn pip_takes_any_likely_text(text in "[a-z#@:;/\\[\\](),.<>=!~+ %'\"é-]{0,24}") {
        let _ = pip::parse(&text);
        let _ = pip::parse(&format!("a @ {text}"));
        let _ = pip::parse(&format!("a; {text}"));
        let _ = pip::parse(&format!("https://{text}"));
        let _ = requirements::parse(text.as_bytes());
    }
}
