//! Built environments.

use std::slice;

use axum::body::Body;
use estimatord::{clock::Clock as _, domain::built_environment::BuiltEnvironment, storage::MIGRATOR};
use serde_json::json;
use sqlx::PgPool;

use crate::app::TestApp;

fn built(digit: &str, packages: &[&str], bytes: u64) -> BuiltEnvironment {
    BuiltEnvironment {
        key: digit.repeat(64).parse().expect("a key"),
        kind: "virtual_environment".to_owned(),
        python_version: "3.11.7".to_owned(),
        packages: packages.iter().map(|package| (*package).to_owned()).collect(),
        bytes,
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_nodes_keep_is_listed_once_with_its_uses(pool: PgPool) {
    let app = TestApp::new(pool);
    let empty = app.get("/v1/environments").await.ok(200);
    assert_eq!(empty, json!({"items": [], "next_cursor": null}));
    let (a, b) = (built("a", &["chainer==7.0.0", "numpy==1.23.5"], 1000), built("b", &[], 70));
    let now = app.clock.now();
    app.storage.record_environments("node-2", &[], &[a.clone(), b.clone()], now).await.expect("recorded");
    app.storage.record_environments("node-1", &[], slice::from_ref(&a), now).await.expect("recorded");
    app.clock.advance(60);
    let later = app.clock.now();
    for (node, hit) in [("node-1", false), ("node-2", false), ("node-2", true), ("node-2", true)] {
        assert!(app.storage.count_environment_use(&a.key, node, hit, later).await.expect("counted"));
    }
    assert!(!app.storage.count_environment_use(&b.key, "node-1", true, later).await.expect("not there"));

    let page = app.get("/v1/environments?limit=1").await.ok(200);
    let first = json!({"key": a.key, "kind": "virtual_environment", "python_version": "3.11.7", "package_count": 2,
        "nodes": ["node-1", "node-2"], "bytes": 2000, "created_at": "2026-11-23T12:00:00Z",
        "last_used_at": "2026-11-23T12:01:00Z", "hits": 2, "misses": 2});
    assert_eq!(page["items"], json!([first]));
    let cursor = page["next_cursor"].as_str().expect("a second page");
    let page = app.get(&format!("/v1/environments?limit=1&cursor={cursor}")).await.ok(200);
    assert_eq!((&page["items"][0]["key"], &page["next_cursor"]), (&json!(b.key), &json!(null)));

    let path = format!("/v1/environments/{}", a.key);
    let mut details = first;
    details["packages"] = json!(["chainer==7.0.0", "numpy==1.23.5"]);
    let answer = app.get(&path).await;
    let tag = answer.header("etag").to_owned();
    assert_eq!(answer.ok(200), details);
    let held = app.with_headers("GET", &path, &[("if-none-match", &tag)], Body::empty()).await;
    assert_eq!(held.status, 304);

    let gone = [a.key.to_string()];
    app.storage.record_environments("node-1", &gone, &[], later).await.expect("forgotten");
    assert_eq!(app.get(&path).await.ok(200)["nodes"], json!(["node-2"]));
    app.storage.record_environments("node-2", &gone, &[b], later).await.expect("forgotten");
    app.get(&path).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_no_key_or_no_page_is_refused(pool: PgPool) {
    let app = TestApp::new(pool);
    for path in [
        "/v1/environments/nonsense",
        "/v1/environments?limit=0",
        "/v1/environments?cursor=zz",
        "/v1/environments?x=1",
    ] {
        assert_eq!(app.get(path).await.status, 400, "{path}");
    }
    app.get(&format!("/v1/environments/{}", "0".repeat(64))).await.problem(404, "not-found");
}
