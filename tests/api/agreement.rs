//! The same verdict everywhere: validate, create, an inline run, an overridden run and a rendering are asked about the same
//! generated definitions.

use estimatord::{
    domain::{finding::Finding, judge},
    storage::MIGRATOR,
};
use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, Value, json};
use sqlx::PgPool;

use crate::{
    app::{Answer, TestApp},
    golden::{body_of, cases},
    golden_cases::upload_fixtures,
};

/// Definitions bred from the golden cases: the members of one, with members of others put over them or left out.
fn bred(definitions: Vec<Map<String, Value>>) -> impl Strategy<Value = Map<String, Value>> {
    let one = proptest::sample::select(definitions);
    let change = (one.clone(), any::<prop::sample::Index>(), 0..4_u8);
    (one, proptest::collection::vec(change, 0..4)).prop_map(|(mut body, changes)| {
        for (other, index, what) in changes {
            let Some((name, value)) = other.iter().nth(index.index(other.len().max(1))) else { continue };
            if what == 0 {
                body.shift_remove(name);
            } else {
                body.insert(name.clone(), value.clone());
            }
        }
        body
    })
}

fn findings(answer: &Answer) -> Vec<Finding> {
    serde_json::from_value(answer.json()["findings"].clone()).unwrap_or_default()
}

/// Rule and pointer of all findings.
fn pairs(answer: &Answer) -> Vec<(String, String)> {
    findings(answer).into_iter().map(|finding| (finding.rule, finding.pointer)).collect()
}

/// Whether a run says the same of a definition.
fn run_agrees(answer: &Answer, valid: bool) -> bool {
    match answer.status.as_u16() {
        201 => valid,
        422 => !valid,
        _ => false,
    }
}

async fn agree(app: &TestApp, body: &Map<String, Value>) {
    let text = serde_json::to_string(body).unwrap();
    let validated = app.post_text("/v1/estimators/validate", &text).await;
    assert_eq!(validated.status, 200, "{text}: {}", validated.text());
    let valid = validated.json()["valid"] == json!(true);
    let again = app.post_text("/v1/estimators/validate", &text).await;
    assert_eq!(validated.json(), again.json(), "{text}");

    let created = app.post_text("/v1/estimators", &text).await;
    assert_eq!(created.status, if valid { 201 } else { 422 }, "{text}: {}", created.text());
    assert_eq!(findings(&validated), findings(&created), "{text}");

    let place = |pairs: Vec<(String, String)>| -> Vec<(String, String)> {
        pairs.into_iter().map(|(rule, pointer)| (rule, format!("/estimator{pointer}"))).collect()
    };
    let inline = app.post_text("/v1/runs", &format!(r#"{{"experiment_name":"e","estimator":{text}}}"#)).await;
    assert!(run_agrees(&inline, valid), "{text}: {}", inline.text());
    if inline.status != 201 {
        assert_eq!(pairs(&inline), place(pairs(&validated)), "{text}");
    }

    let render = format!(r#"{{"format":"script-run-config","estimator":{text}}}"#);
    let rendered = app.post_text("/v1/estimators/render", &render).await;
    assert_eq!(rendered.status, if valid { 200 } else { 422 }, "{text}: {}", rendered.text());
    if !valid {
        assert_eq!(pairs(&rendered), place(pairs(&validated)), "{text}");
    }

    let overrides = json!({"compute_target": "local", "script_params": {"--overridden": 1.50}});
    let Value::Object(overrides) = overrides else { unreachable!() };
    let merged = serde_json::to_string(&judge::with_overrides(body, &overrides)).unwrap();
    let merged = app.post_text("/v1/estimators/validate", &merged).await;
    let merged_valid = merged.json()["valid"] == json!(true);
    let run =
        json!({"experiment_name": "e", "compute_target": "local", "script_params": {"--overridden": 1.50}});
    let with = |name: &str, value: &str| {
        let run = run.to_string();
        format!("{},\"{name}\":{value}}}", run.strip_suffix('}').unwrap())
    };
    let overridden = app.post_text("/v1/runs", &with("estimator", &text)).await;
    assert!(run_agrees(&overridden, merged_valid), "{text}: {}", overridden.text());

    if valid {
        // Byte for byte: numbers as they were spelt, keys in their order.
        let shown = serde_json::to_string(&judge::redacted(body)).unwrap();
        assert!(created.text().contains(&shown), "{shown} is not in {}", created.text());
        let path = created.header("location").to_owned();
        assert!(app.get(&path).await.text().contains(&shown), "{shown}");
        let id = created.json()["id"].to_string();
        let stored = app.post_text("/v1/runs", &with("estimator_id", &id)).await;
        assert!(run_agrees(&stored, merged_valid), "{text}: {}", stored.text());
        let revalidated = app.post(&format!("{path}/revalidate"), &json!({})).await;
        assert_eq!(revalidated.json()["valid"], json!(true), "{text}");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_way_in_says_the_same_of_every_definition(pool: PgPool) {
    let app = TestApp::new(pool);
    let ids = upload_fixtures(&app).await;
    let cluster =
        json!({"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 4, "gpus_per_node": 1});
    app.put("/v1/compute-targets/cpu-cluster", &cluster).await.ok(201);
    app.put("/v1/datastores/mystore", &json!({"url": "file:///srv/data"})).await.ok(201);
    let definitions = cases().iter().map(|case| body_of(case, &|fixture| ids[fixture].clone())).collect();
    // The same definitions at every run: a failure can be looked at again.
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let strategy = bred(definitions);
    let mut accepted = 0;
    for _ in 0..150 {
        let body = strategy.new_tree(&mut runner).expect("a definition").current();
        agree(&app, &body).await;
        let text = serde_json::to_string(&body).unwrap();
        let verdict = app.post_text("/v1/estimators/validate", &text).await.json();
        accepted += usize::from(verdict["valid"] == json!(true));
    }
    assert!(
        (15..135).contains(&accepted),
        "{accepted} of 150 are accepted: too few of one kind to tell anything"
    );
}
