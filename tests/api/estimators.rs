//! Estimators.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, errors_of};

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_definition_comes_back_key_for_key(pool: PgPool) {
    let app = TestApp::new(pool);
    let id = app.upload(&[("train.py", "")]).await;
    let text = format!(
        r#"{{"use_docker":false,"script_params":{{"--z":1,"--a":0.10,"--m":[3,2,1]}},"framework_version":"7.0.0","entry_script":"train.py","compute_target":"local","source_directory":"{id}"}}"#
    );
    let created = app.post_text("/v1/estimators", &text).await;
    let location = created.header("location").to_owned();
    let created = created.ok(201);
    assert_eq!(created["definition"].to_string(), text);
    let read = app.get(&location).await;
    assert!(read.text().contains(&text), "{}", read.text());
    assert_eq!(read.json(), created);
    assert_eq!(created["framework"], "Chainer");
    assert!(created["environment"]["hash"].as_str().expect("a hash").starts_with("sha256:"));
    assert_eq!(created["findings"][0]["rule"], "estimator-deprecated");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn validate_and_create_never_disagree(pool: PgPool) {
    let app = TestApp::new(pool);
    let good = app.definition().await;
    let verdict = app.post("/v1/estimators/validate", &good).await.ok(200);
    assert_eq!((&verdict["valid"], verdict["environment"].is_object()), (&json!(true), true));
    app.post("/v1/estimators", &good).await.ok(201);

    let mut bad = good.clone();
    bad["node_count"] = json!(2);
    bad["entry_script"] = json!("tain.py");
    bad["nodeCount"] = json!(2);
    let verdict = app.post("/v1/estimators/validate", &bad).await.ok(200);
    assert_eq!((&verdict["valid"], verdict["environment"].is_null()), (&json!(false), true));
    let refused = app.post("/v1/estimators", &bad).await;
    assert_eq!(refused.problem(422, "invalid-definition")["findings"], verdict["findings"]);
    let rules: Vec<String> = errors_of(&verdict).into_iter().map(|(rule, _)| rule).collect();
    for rule in [
        "distributed-requires-mpi",
        "distributed-requires-amlcompute",
        "entry-script-not-found",
        "unknown-parameter",
    ] {
        assert!(rules.iter().any(|found| found == rule), "{rule} in {rules:?}");
    }
    assert_eq!(app.get("/v1/estimators").await.ok(200)["items"].as_array().expect("items").len(), 1);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn archiving_hides_and_keeps(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let created = app.post("/v1/estimators", &definition).await.ok(201);
    let path = format!("/v1/estimators/{}", created["id"].as_str().expect("an id"));
    assert_eq!(app.delete(&path).await.status, 204);
    assert_eq!(app.delete(&path).await.status, 204);
    assert!(!app.get(&path).await.ok(200)["archived_at"].is_null());
    assert_eq!(app.get("/v1/estimators").await.ok(200)["items"], json!([]));
    let body = json!({"experiment_name": "e", "estimator_id": created["id"]});
    let answer = app.post("/v1/runs", &body).await;
    assert_eq!(answer.errors(), [("estimator-not-found".to_owned(), "/estimator_id".to_owned())]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_estimator_has_an_entity_tag(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let created = app.post("/v1/estimators", &definition).await;
    let location = created.header("location").to_owned();
    let tag = app.get(&location).await.header("etag").to_owned();
    let list = format!("\"x\", W/{tag}");
    let held = app.with_headers("GET", &location, &[("if-none-match", &list)], Body::empty()).await;
    assert_eq!(held.status, 304);
    let other = app.with_headers("GET", &location, &[("if-none-match", "\"x\"")], Body::empty()).await;
    assert_eq!(other.status, 200);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_secret_never_appears(pool: PgPool) {
    let app = TestApp::new(pool);
    let secret = "hunter2-very-secret";
    let mut definition = app.definition().await;
    definition["use_docker"] = json!(true);
    definition["custom_docker_image"] = json!("registry.example/chainer:7");
    definition["image_registry_details"] =
        json!({"address": "registry.example", "username": "u", "password": secret});
    let mut answers = Vec::new();
    answers.push(app.post("/v1/estimators/validate", &definition).await);
    answers.push(app.post("/v1/estimators", &definition).await);
    assert_eq!(answers[1].status, 201, "{}", answers[1].text());
    let location = answers[1].header("location").to_owned();
    answers.push(app.get(&location).await);
    answers.push(app.get("/v1/estimators").await);
    let run = json!({"experiment_name": "e", "estimator": definition});
    answers.push(app.post("/v1/runs", &run).await);
    let mut bad = definition.clone();
    bad["image_registry_details"] = json!({"address": 5, "password": secret});
    answers.push(app.post("/v1/estimators", &bad).await);
    for answer in &answers {
        assert!(!answer.text().contains(secret), "{}", answer.text());
    }
    let rows: Vec<(Value,)> =
        sqlx::query_as("SELECT definition FROM estimators").fetch_all(&app.pool).await.expect("rows");
    assert!(!rows.is_empty());
    assert!(rows.iter().all(|(definition,)| !definition.to_string().contains(secret)));
}

const PARSE: &str = "/v1/estimators/parse";

async fn parse(app: &TestApp, content_type: &str, source: impl Into<Body>) -> crate::app::Answer {
    app.with_headers("POST", PARSE, &[("content-type", content_type)], source.into()).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn python_source_becomes_a_definition_that_is_valid(pool: PgPool) {
    let app = TestApp::new(pool);
    let source = "from azureml.train.dnn import Chainer\n\
        est = Chainer(source_directory='./src', compute_target='local', entry_script='train.py',\n\
        \x20             script_params={'--lr': 1e-3}, framework_version='7.0.0')\n\
        run = Experiment(ws, 'digits').submit(est)\n";
    let parsed = parse(&app, "text/x-python; charset=utf-8", source).await.ok(200);
    assert_eq!(
        (&parsed["experiment_name"], &parsed["items"][0]["assigned_to"]),
        (&json!("digits"), &json!("est"))
    );
    let item = &parsed["items"][0];
    assert_eq!((&item["line"], &item["column"]), (&json!(2), &json!(7)));
    assert_eq!(errors_of(item), [("value-to-fill-in".to_owned(), "/source_directory".to_owned())]);
    let mut definition = item["definition"].clone();
    definition["source_directory"] = json!(app.upload(&[("train.py", "print('hello')\n")]).await);
    let verdict = app.post("/v1/estimators/validate", &definition).await.ok(200);
    assert_eq!(verdict["valid"], true, "{verdict}");
    app.post("/v1/estimators", &definition).await.ok(201);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn sources_that_cannot_be_read(pool: PgPool) {
    let app = TestApp::new(pool);
    parse(&app, "application/json", "Chainer()").await.problem(415, "unsupported-media-type");
    let none = app.with_headers("POST", PARSE, &[], Body::from("Chainer()")).await;
    none.problem(415, "unsupported-media-type");
    let large = "#".repeat((1 << 20) + 1);
    parse(&app, "text/x-python", large).await.problem(413, "body-too-large");
    let larger = "#".repeat(8 << 20);
    parse(&app, "text/x-python", larger).await.problem(413, "body-too-large");
    let broken = parse(&app, "text/x-python", "x = 1\nChainer(\n").await.problem(422, "invalid-source");
    assert_eq!((&broken["line"], &broken["column"]), (&json!(2), &json!(8)));
    assert_eq!(errors_of(&broken), [("script-syntax-error".to_owned(), String::new())]);
    let other = parse(&app, "text/x-python", "x = PyTorch('.')\n").await.problem(422, "invalid-source");
    assert_eq!(errors_of(&other), [("estimator-call-not-found".to_owned(), String::new())]);
    assert!(other["detail"].as_str().expect("a text").contains("`PyTorch(…)` in line 1"), "{other}");
    parse(&app, "text/x-python", vec![0xff, 0xfe]).await.problem(422, "invalid-source");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn scripts_are_parsed_when_that_is_asked_for(pool: PgPool) {
    let app = TestApp::new(pool);
    let id = app
        .upload(&[("train.py", "import helper, pandas\n"), ("helper.py", ""), ("old.py", "print 'a'\n")])
        .await;
    let mut definition = json!({
        "source_directory": id, "compute_target": "local", "entry_script": "old.py", "framework_version": "7.0.0",
        "_disable_validation": false, "_show_package_warnings": true
    });
    let warnings = |verdict: &Value| {
        let findings = verdict["findings"].as_array().expect("findings").iter();
        let warnings = findings.filter(|finding| finding["severity"] == "warning");
        warnings.map(|finding| finding["rule"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let verdict = app.post("/v1/estimators/validate", &definition).await.ok(200);
    assert_eq!(
        (&verdict["valid"], warnings(&verdict)),
        (&json!(true), vec!["script-syntax-error".to_owned()])
    );
    definition["entry_script"] = json!("train.py");
    let verdict = app.post("/v1/estimators/validate", &definition).await.ok(200);
    assert_eq!(warnings(&verdict), ["package-not-declared"]);
    definition["pip_packages"] = json!(["pandas"]);
    assert!(warnings(&app.post("/v1/estimators/validate", &definition).await.ok(200)).is_empty());
}
