//! Definitions in other words.

use estimatord::storage::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

const FORMATS: [(&str, &str, &str); 4] = [
    ("script-run-config", "text/x-python", "ScriptRunConfig("),
    ("azureml-v2", "application/yaml", "type: command"),
    ("sbatch", "text/x-shellscript", "#SBATCH"),
    ("kubernetes", "application/yaml", "kind: Job"),
];

async fn distributed(app: &TestApp) -> Value {
    let cluster = json!({"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 4});
    app.put("/v1/compute-targets/cpu-cluster", &cluster).await.ok(201);
    let mut definition = app.definition().await;
    definition["compute_target"] = json!("cpu-cluster");
    definition["node_count"] = json!(2);
    definition["distributed_training"] = json!({"type": "Mpi", "process_count_per_node": 2});
    definition
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_format_of_a_stored_and_of_an_inline_definition_is_the_same(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let created = app.post("/v1/estimators", &definition).await.ok(201);
    let path = format!("/v1/estimators/{}/render", created["id"].as_str().expect("an id"));
    for (format, media_type, part) in FORMATS {
        let stored = app.post(&path, &json!({"format": format})).await.ok(200);
        assert_eq!((&stored["format"], &stored["media_type"]), (&json!(format), &json!(media_type)));
        assert!(stored["text"].as_str().expect("a text").contains(part), "{stored}");
        assert!(stored["text"].as_str().expect("a text").contains("train.py"), "{stored}");
        assert!(stored["not_expressed"].is_array(), "{stored}");
        let body = json!({"format": format, "estimator": definition});
        assert_eq!(app.post("/v1/estimators/render", &body).await.ok(200), stored);
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_rendering_can_be_for_another_target(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = distributed(&app).await;
    app.put(
        "/v1/compute-targets/other",
        &json!({"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 9}),
    )
    .await
    .ok(201);
    let body = json!({"format": "azureml-v2", "estimator": definition, "compute_target": "other"});
    let text = app.post("/v1/estimators/render", &body).await.ok(200)["text"].to_string();
    assert!(text.contains("azureml:other") && !text.contains("cpu-cluster"), "{text}");
    let body = json!({"format": "kubernetes", "estimator": definition});
    assert!(
        app.post("/v1/estimators/render", &body).await.ok(200)["text"].to_string().contains("kind: MPIJob")
    );
    // The target takes part in the verdict, and the finding points to where it was named.
    let body = json!({"format": "sbatch", "estimator": definition, "compute_target": "local"});
    let errors = app.post("/v1/estimators/render", &body).await;
    errors.problem(422, "invalid-definition");
    let pairs = errors.errors();
    assert!(
        pairs.contains(&("distributed-requires-amlcompute".to_owned(), "/compute_target".to_owned())),
        "{pairs:?}"
    );
    assert!(
        pairs.contains(&("node-count-exceeds-target".to_owned(), "/estimator/node_count".to_owned())),
        "{pairs:?}"
    );
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_cannot_be_rendered_is_explained(pool: PgPool) {
    let app = TestApp::new(pool);
    let answer = app.post("/v1/estimators/render", &json!({"format": "azureml-v3", "estimater": {}})).await;
    answer.problem(422, "invalid-definition");
    let expected = [
        ("format-unknown", "/format"),
        ("missing-member", "/estimator"),
        ("unknown-parameter", "/estimater"),
    ];
    assert_eq!(answer.errors(), expected.map(|(rule, pointer)| (rule.to_owned(), pointer.to_owned())));
    assert!(answer.text().contains("azureml-v2"), "{}", answer.text());
    let unknown = "/v1/estimators/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
    app.post(&format!("{unknown}/render"), &json!({"format": "sbatch"})).await.problem(404, "not-found");
    app.post(&format!("{unknown}/revalidate"), &json!({})).await.problem(404, "not-found");
    app.post("/v1/estimators/x/render", &json!({"format": "sbatch"})).await.problem(400, "malformed-request");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_text_holds_a_password(pool: PgPool) {
    let app = TestApp::new(pool);
    let secret = "hunter2-very-secret";
    let mut definition = app.definition().await;
    definition["use_docker"] = json!(true);
    definition["custom_docker_image"] = json!("registry.example/chainer:7");
    definition["image_registry_details"] =
        json!({"address": "registry.example", "username": "u", "password": secret});
    for (format, ..) in FORMATS {
        let answer =
            app.post("/v1/estimators/render", &json!({"format": format, "estimator": definition})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(
            !answer.text().contains(secret) && !answer.text().contains("[redacted]"),
            "{}",
            answer.text()
        );
    }
}
