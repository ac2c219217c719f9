//! `Idempotency-Key`.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use crate::app::{Answer, TestApp};

async fn post(app: &TestApp, path: &str, key: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json"), ("idempotency-key", key)];
    app.with_headers("POST", path, &headers, Body::from(body.to_owned())).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_first_answer_is_given_again(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let run = json!({"experiment_name": "e", "estimator": definition}).to_string();
    for (path, body) in [("/v1/runs", run), ("/v1/estimators", definition.to_string())] {
        let first = post(&app, path, "key", &body).await;
        assert_eq!(
            (first.status.as_u16(), first.header("idempotency-replayed")),
            (201, ""),
            "{}",
            first.text()
        );
        app.clock.advance(60);
        let again = post(&app, path, "key", &body).await;
        assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
        assert_eq!((again.text(), again.header("location")), (first.text(), first.header("location")));
        post(&app, path, "key", "{\"other\": 1}").await.problem(422, "idempotency-key-reused");
        assert_eq!(post(&app, path, "another", &body).await.status, 201);
    }
    assert_eq!(app.get("/v1/runs").await.ok(200)["items"].as_array().expect("items").len(), 2);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn failures_are_not_remembered(pool: PgPool) {
    let app = TestApp::new(pool);
    post(&app, "/v1/estimators", "key", "{}").await.problem(422, "invalid-definition");
    let definition = app.definition().await.to_string();
    assert_eq!(post(&app, "/v1/estimators", "key", &definition).await.status, 201);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn malformed_keys_are_refused(pool: PgPool) {
    let app = TestApp::new(pool);
    for key in ["", "x".repeat(256).as_str()] {
        post(&app, "/v1/estimators", key, "{}").await.problem(400, "malformed-request");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn of_requests_at_once_one_does_the_work(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let body = json!({"experiment_name": "e", "estimator": definition}).to_string();
    let answers = futures_util::future::join_all((0..8).map(|_| post(&app, "/v1/runs", "key", &body))).await;
    let fresh = answers.iter().filter(|a| a.status == 201 && a.header("idempotency-replayed").is_empty());
    assert_eq!(fresh.count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.problem(409, "idempotency-in-progress");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(app.get("/v1/runs").await.ok(200)["items"].as_array().expect("items").len(), 1);
}
