//! The golden cases over HTTP, against validate and create: the same verdict everywhere.

use std::collections::BTreeMap;

use axum::body::Body;
use estimatord::{domain::finding::Finding, storage::MIGRATOR};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    app::{Answer, TestApp},
    golden::{SKIPPED, body_of, cases, compare, fixtures, list, text},
};

/// Uploads every fixture; answers their ids by name.
pub async fn upload_fixtures(app: &TestApp) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    for (name, files) in fixtures() {
        let files: Vec<_> = files.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice())).collect();
        let headers = [("content-type", "application/x-tar")];
        let body = Body::from(crate::app::tar_of(&files));
        let answer = app.with_headers("POST", "/v1/snapshots", &headers, body).await;
        assert!(answer.status.is_success(), "{name}: {}", answer.text());
        ids.insert(name, answer.json()["id"].as_str().unwrap().to_owned());
    }
    ids
}

/// Puts in place what a case needs besides snapshots.
async fn prepare(app: &TestApp, case: &Value) {
    for target in list(case, "targets") {
        let path = format!("/v1/compute-targets/{}", text(target, "name"));
        let body = json!({"type": target["type"], "backend": {"kind": "process"}, "max_nodes": target["max_nodes"],
            "gpus_per_node": target["gpus_per_node"]});
        let answer = app.put(&path, &body).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }
    for name in list(case, "datastores") {
        let path = format!("/v1/datastores/{}", name.as_str().unwrap());
        let answer = app.put(&path, &json!({"url": "file:///srv/data"})).await;
        assert!(answer.status.is_success(), "{}", answer.text());
    }
}

fn findings(answer: &Answer) -> Vec<Finding> {
    serde_json::from_value(answer.json()["findings"].clone()).unwrap()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn validate_and_create_say_what_the_cases_expect(pool: PgPool) {
    let app = TestApp::new(pool);
    let ids = upload_fixtures(&app).await;
    let mut failures = Vec::new();
    let mut passed = 0;
    for case in cases() {
        let id = text(&case, "id");
        if SKIPPED.iter().any(|(skipped, _)| *skipped == id) {
            continue;
        }
        prepare(&app, &case).await;
        let body = body_of(&case, &|fixture| ids[fixture].clone());
        let sent = serde_json::to_string(&body).unwrap();
        let validated = app.post_text("/v1/estimators/validate", &sent).await;
        assert_eq!(validated.status, 200, "{id}: {}", validated.text());
        let valid = validated.json()["valid"] == json!(true);
        let said = findings(&validated);
        let mut bad = compare(&case["expect"], valid, &said);
        let created = app.post_text("/v1/estimators", &sent).await;
        if created.status != if valid { 201 } else { 422 } || findings(&created) != said {
            bad.push(format!("create answers {} and other findings: {}", created.status, created.text()));
        }
        for secret in list(&case["expect"], "never_in_response") {
            let secret = secret.as_str().unwrap();
            if validated.text().contains(secret) || created.text().contains(secret) {
                bad.push("a secret is shown".to_owned());
            }
        }
        passed += usize::from(bad.is_empty());
        failures.extend(bad.into_iter().map(|line| format!("{id}: {line}")));
    }
    assert!(failures.is_empty(), "{passed} passed; failures:\n{}", failures.join("\n"));
    assert!(passed > 300, "only {passed} cases were judged");
}
