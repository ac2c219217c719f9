//! The audit trail of accepted runs: each request has one row, and the row of a run is stored with it.

use estimatord::storage::MIGRATOR;
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

/// The operations and statuses of the trail's rows about runs, in no order, and how many runs there are.
async fn known(pool: &PgPool) -> (Vec<(String, i32)>, i64) {
    let rows = sqlx::query_as("SELECT operation, status FROM audit_events WHERE operation LIKE '%run%'");
    let runs = sqlx::query_scalar("SELECT count(*) FROM runs");
    (rows.fetch_all(pool).await.expect("read"), runs.fetch_one(pool).await.expect("counted"))
}

async fn body(app: &TestApp) -> Value {
    json!({"experiment_name": "e", "estimator": app.definition().await})
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_request_has_one_row_whoever_shares_its_transaction(pool: PgPool) {
    let app = TestApp::new(pool.clone());
    let body = body(&app).await;
    let answers = join_all((0..12).map(|_| app.post("/v1/runs", &body))).await;
    assert!(answers.iter().all(|answer| answer.status == 201));
    app.post("/v1/runs/batch", &json!({"runs": [body, body]})).await.ok(200);
    app.post("/v1/runs", &json!({})).await.problem(422, "invalid-run");
    let (rows, runs) = known(&pool).await;
    let of = |operation: &str, status| {
        rows.iter().filter(|row| (row.0.as_str(), row.1) == (operation, status)).count()
    };
    assert_eq!((of("create_run", 201), of("create_runs", 200), of("create_run", 422)), (12, 1, 1));
    assert_eq!((rows.len(), runs), (14, 14));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_run_is_accepted_without_its_row(pool: PgPool) {
    let app = TestApp::new(pool.clone());
    let body = body(&app).await;
    sqlx::query("ALTER TABLE audit_events ADD CONSTRAINT nothing_fits CHECK (false) NOT VALID")
        .execute(&pool)
        .await
        .expect("altered");
    app.post("/v1/runs", &body).await.problem(500, "internal");
    assert_eq!(known(&pool).await, (Vec::new(), 0));
    sqlx::query("ALTER TABLE audit_events DROP CONSTRAINT nothing_fits")
        .execute(&pool)
        .await
        .expect("altered");
    app.post("/v1/runs", &body).await.ok(201);
    assert_eq!(known(&pool).await, (vec![("create_run".to_owned(), 201)], 1));
}
