//! The OpenAPI document: up to date, complete, and true.

use std::collections::BTreeSet;

use estimatord::{
    api::{estimators::EXAMPLE_SNAPSHOT, openapi},
    domain::rules::examples,
    storage::MIGRATOR,
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

fn document() -> Value {
    serde_json::to_value(openapi()).expect("JSON")
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let paths = document["paths"].as_object().expect("paths");
    paths
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().expect("an item").iter();
            methods.map(move |(method, operation)| (format!("{method} {path}"), operation))
        })
        .collect()
}

#[test]
fn the_checked_in_document_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
    let checked_in = std::fs::read_to_string(path).expect("openapi/openapi.json is there");
    let generated = openapi().to_pretty_json().expect("JSON") + "\n";
    assert!(
        checked_in == generated,
        "openapi/openapi.json is out of date: run `cargo run -- openapi > openapi/openapi.json`"
    );
}

#[test]
fn every_operation_is_described() {
    let document = document();
    let mut ids = BTreeSet::new();
    for (name, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap_or_default();
        assert!(id.contains('_') && ids.insert(id.to_owned()), "{name}: operationId {id:?}");
        for member in ["summary", "tags"] {
            assert!(!operation[member].is_null(), "{name} has no {member}");
        }
        let empty = Vec::new();
        for parameter in operation["parameters"].as_array().unwrap_or(&empty) {
            let described = parameter["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name}: {} has no description", parameter["name"]);
        }
    }
}

#[test]
fn every_answer_is_described_and_every_error_is_a_problem() {
    let document = document();
    for (name, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().expect("responses") {
            let described = response["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{name} {status} has no description");
            if status.starts_with('4') || status.starts_with('5') {
                let content = response["content"].as_object().expect("content");
                assert_eq!(
                    content.keys().collect::<Vec<_>>(),
                    ["application/problem+json"],
                    "{name} {status}"
                );
            }
        }
    }
}

#[test]
fn every_path_parameter_is_declared_and_every_reference_resolves() {
    let document = document();
    for (name, operation) in operations(&document) {
        let path = name.split_once(' ').expect("method and path").1;
        let in_path: BTreeSet<&str> = path
            .split('/')
            .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')))
            .collect();
        let empty = Vec::new();
        let declared: BTreeSet<&str> = operation["parameters"]
            .as_array()
            .unwrap_or(&empty)
            .iter()
            .filter(|parameter| parameter["in"] == "path")
            .filter_map(|parameter| parameter["name"].as_str())
            .collect();
        assert_eq!(in_path, declared, "{name}");
    }
    let text = document.to_string();
    for reference in text.split("\"$ref\":\"#").skip(1) {
        let pointer = reference.split('"').next().expect("a reference");
        assert!(document.pointer(pointer).is_some(), "{pointer} does not resolve");
    }
}

#[test]
fn the_document_says_what_it_is() {
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["info"]["license"]["name"], "Apache-2.0");
    let properties = document["components"]["schemas"]["EstimatorDefinition"]["properties"].as_object();
    // The 34 parameters and `framework`.
    assert_eq!(properties.expect("properties").len(), 35);
}

/// The example of an operation's request body, or of its schema.
fn example<'a>(document: &'a Value, path: &str, method: &str) -> &'a Value {
    let content = &document["paths"][path][method]["requestBody"]["content"]["application/json"];
    if let Some(first) = content["examples"].as_object().and_then(|examples| examples.values().next()) {
        return &first["value"];
    }
    if !content["example"].is_null() {
        return &content["example"];
    }
    let reference = content["schema"]["$ref"].as_str().expect("a reference");
    let pointer = reference.strip_prefix('#').expect("a local reference");
    &document.pointer(pointer).expect("it resolves")["example"]
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_examples_do_what_the_document_says(pool: PgPool) {
    let app = TestApp::new(pool);
    let document = document();
    let validate = "/v1/estimators/validate";
    let verdict = app.post(validate, example(&document, validate, "post")).await.ok(200);
    assert_eq!(verdict["valid"], false);
    let target = "/v1/compute-targets/{name}";
    app.put("/v1/compute-targets/cpu-cluster", example(&document, target, "put")).await.ok(201);
    let parse = "/v1/estimators/parse";
    let source = &document["paths"][parse]["post"]["requestBody"]["content"]["text/x-python"]["example"];
    let source = source.as_str().expect("a source").to_owned();
    let headers = [("content-type", "text/x-python")];
    let parsed = app.with_headers("POST", parse, &headers, source.into()).await.ok(200);
    let item = &parsed["items"][0];
    assert_eq!(
        (&item["line"], &item["column"], &parsed["experiment_name"]),
        (&json!(11), &json!(13), &json!("digits"))
    );
    assert_eq!(
        item["findings"].as_array().map(Vec::len),
        Some(1),
        "only the folder is to be uploaded: {item}"
    );
    // Before the upload nothing but the snapshot is missing.
    for (path, pointer) in
        [("/v1/estimators", "/source_directory"), ("/v1/runs", "/estimator/source_directory")]
    {
        let errors = app.post(path, example(&document, path, "post")).await.errors();
        assert_eq!(errors, [("source-directory-not-found".to_owned(), pointer.to_owned())], "{path}");
    }
    let script = include_str!("../../examples/digits/train.py");
    let id = app.upload(&[("train.py", script)]).await;
    let files = app.upload(&examples::FILES).await;
    assert_eq!(files, examples::FILES_SNAPSHOT, "write the new id into FILES_SNAPSHOT");
    assert_eq!(id, EXAMPLE_SNAPSHOT, "write the new id into EXAMPLE_SNAPSHOT and generate the document anew");
    for path in ["/v1/estimators", "/v1/runs"] {
        app.post(path, example(&document, path, "post")).await.ok(201);
    }
    for path in ["/v1/snapshots/{id}", "/v1/snapshots/{id}/files"] {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().expect("parameters");
        let id = parameters.iter().find(|parameter| parameter["name"] == "id").expect("an id");
        app.get(&path.replace("{id}", id["example"].as_str().expect("an example"))).await.ok(200);
    }
}
