//! Datastores.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use crate::app::TestApp;

const STORE: &str = "/v1/datastores/training_data";

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_datastore_is_made_replaced_listed_and_deleted(pool: PgPool) {
    let app = TestApp::new(pool);
    let made = app.put(STORE, &json!({"url": "file:///srv/datasets", "credentials": null})).await;
    assert_eq!((made.header("location"), made.header("etag").len()), (STORE, 66));
    let made = made.ok(201);
    assert_eq!((&made["name"], &made["kind"]), (&json!("training_data"), &json!("file")));
    app.clock.advance(5);
    let replaced = app.put(STORE, &json!({"url": "s3://bucket/sets", "credentials": {}})).await.ok(200);
    assert_eq!((&replaced["kind"], &replaced["url"]), (&json!("s3"), &json!("s3://bucket/sets")));
    assert_eq!(replaced["created_at"], made["created_at"]);
    assert_ne!(replaced["updated_at"], made["updated_at"]);
    app.put("/v1/datastores/another", &json!({"url": "az://container", "options": {"account_name": "sets"}}))
        .await
        .ok(201);
    let page = app.get("/v1/datastores?limit=1").await.ok(200);
    assert_eq!(page["items"][0]["name"], "another");
    let cursor = page["next_cursor"].as_str().expect("a second page");
    let page = app.get(&format!("/v1/datastores?limit=1&cursor={cursor}")).await.ok(200);
    assert_eq!((&page["items"][0], &page["next_cursor"]), (&replaced, &json!(null)));
    assert_eq!(app.delete(STORE).await.status, 204);
    app.get(STORE).await.problem(404, "not-found");
    app.delete(STORE).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_cannot_be_kept_is_refused_and_not_repeated(pool: PgPool) {
    let app = TestApp::new(pool);
    let secret = "hunter2-very-secret";
    let body = json!({"url": format!("s3://key:{secret}@bucket"), "credentials": {"secret_access_key": secret}, "uri": "x"});
    let answer = app.put(STORE, &body).await;
    answer.problem(422, "invalid-datastore");
    let expected = [("datastore-url-invalid", "/url"), ("unknown-parameter", "/uri")];
    assert_eq!(answer.errors(), expected.map(|(rule, pointer)| (rule.to_owned(), pointer.to_owned())));
    assert!(!answer.text().contains(secret), "{}", answer.text());
    let body = json!({"url": "s3://bucket", "options": {"endpoint": "ftp://x"}, "credentials": {"account_key": secret}});
    let answer = app.put(STORE, &body).await;
    let expected = [
        ("datastore-options-invalid", "/options/endpoint"),
        ("datastore-credentials-invalid", "/credentials/account_key"),
    ];
    assert_eq!(answer.errors(), expected.map(|(rule, pointer)| (rule.to_owned(), pointer.to_owned())));
    assert!(!answer.text().contains(secret), "{}", answer.text());
    app.get(STORE).await.problem(404, "not-found");
    let missing = app.put(STORE, &json!({})).await.errors();
    assert_eq!(missing, [("missing-member".to_owned(), "/url".to_owned())]);
    app.put("/v1/datastores/-bad", &json!({"url": "file:///x"})).await.problem(400, "malformed-request");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn entity_tags_guard_changes(pool: PgPool) {
    let app = TestApp::new(pool);
    let tag = app.put(STORE, &json!({"url": "file:///a"})).await.header("etag").to_owned();
    let held = app.with_headers("GET", STORE, &[("if-none-match", &tag)], Body::empty()).await;
    assert_eq!(held.status, 304);
    app.clock.advance(1);
    let headers = [("content-type", "application/json"), ("if-match", tag.as_str())];
    let put = || Body::from(json!({"url": "file:///b"}).to_string());
    assert_eq!(app.with_headers("PUT", STORE, &headers, put()).await.status, 200);
    app.with_headers("PUT", STORE, &headers, put()).await.problem(412, "precondition-failed");
    let stale = [("if-match", tag.as_str())];
    app.with_headers("DELETE", STORE, &stale, Body::empty()).await.problem(412, "precondition-failed");
    assert_eq!(app.get(STORE).await.ok(200)["url"], "file:///b");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn definitions_may_name_it_while_it_is_there(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut definition = app.definition().await;
    definition["inputs"] = json!(["training_data"]);
    let missing = app.post("/v1/estimators", &definition).await.errors();
    assert_eq!(missing, [("datastore-not-found".to_owned(), "/inputs/0".to_owned())]);
    app.put(STORE, &json!({"url": "file:///srv/datasets"})).await.ok(201);
    let created = app.post("/v1/estimators", &definition).await.ok(201);
    let path = format!("/v1/estimators/{}/revalidate", created["id"].as_str().expect("an id"));
    let again = app.post(&path, &json!({})).await.ok(200);
    assert_eq!((&again["valid"], &again["same_environment"]), (&json!(true), &json!(true)));
    assert_eq!(again["findings"], created["findings"]);
    app.delete(STORE).await;
    let again = app.post(&path, &json!({})).await;
    assert_eq!(again.errors(), [("datastore-not-found".to_owned(), "/inputs/0".to_owned())]);
    let again = again.ok(200);
    assert_eq!((&again["valid"], &again["environment"]), (&json!(false), &json!(null)));
    assert_eq!(
        (&again["accepted_under"], &again["rule_set_version"]),
        (&created["rule_set_version"], &json!("6"))
    );
}
