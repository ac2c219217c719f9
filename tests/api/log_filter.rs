//! What is logged, changed while the service runs.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Answer, TestApp};

const PATH: &str = "/v1/service/log-filter";

async fn put(app: &TestApp, body: &Value) -> Answer {
    let headers = [("content-type", "application/json")];
    app.with_headers("PUT", PATH, &headers, Body::from(body.to_string())).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_log_filter_is_shown_and_changed_for_a_while(pool: PgPool) {
    let app = TestApp::new(pool);
    let configured = json!({"filter": "info,sqlx=warn", "configured": "info,sqlx=warn", "until": null});
    assert_eq!(app.get(PATH).await.ok(200), configured);
    let changed = put(&app, &json!({"filter": "debug", "for_seconds": 60})).await.ok(200);
    let expected =
        json!({"filter": "debug", "configured": "info,sqlx=warn", "until": "2026-11-23T12:01:00Z"});
    assert_eq!(changed, expected);
    assert_eq!(app.get(PATH).await.ok(200), expected);
    let changed = put(&app, &json!({"filter": "warn"})).await.ok(200);
    assert_eq!(changed["until"], "2026-11-23T12:10:00Z", "ten minutes when nothing else is said");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_unfit_log_filter_is_refused_and_changes_nothing(pool: PgPool) {
    let app = TestApp::new(pool);
    let long = "x".repeat(1001);
    for (body, rule, pointer) in [
        (json!({}), "missing-member", "/filter"),
        (json!({"filter": 5}), "wrong-type", "/filter"),
        (json!({"filter": ""}), "invalid-log-filter", "/filter"),
        (json!({"filter": "estimatord=loud"}), "invalid-log-filter", "/filter"),
        (json!({"filter": long}), "invalid-log-filter", "/filter"),
        (json!({"filter": "debug", "for_seconds": 0}), "out-of-range", "/for_seconds"),
        (json!({"filter": "debug", "for_seconds": 86_401}), "out-of-range", "/for_seconds"),
        (json!({"filter": "debug", "for_second": 5}), "unknown-parameter", "/for_second"),
    ] {
        let problem = put(&app, &body).await.problem(422, "invalid-log-filter");
        assert_eq!(problem["findings"][0]["rule"], rule, "{body}");
        assert_eq!(problem["findings"][0]["pointer"], pointer, "{body}");
    }
    assert_eq!(app.get(PATH).await.ok(200)["filter"], "info,sqlx=warn");
}
