//! Every kind of error is a problem.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use crate::app::TestApp;

const VALIDATE: &str = "/v1/estimators/validate";

#[sqlx::test(migrator = "MIGRATOR")]
async fn unknown_paths_and_methods(pool: PgPool) {
    let app = TestApp::new(pool);
    app.get("/v1/nowhere").await.problem(404, "unknown-route");
    let answer = app.delete("/v1/runs").await;
    answer.problem(405, "method-not-allowed");
    let allowed = answer.header("allow");
    assert!(allowed.contains("GET") && allowed.contains("POST"), "{allowed}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn malformed_ids_names_and_queries(pool: PgPool) {
    let app = TestApp::new(pool);
    for path in [
        "/v1/runs/42",
        "/v1/estimators/x",
        "/v1/snapshots/sha256:zz",
        "/v1/compute-targets/-x",
        "/v1/runs?limit=0",
        "/v1/runs?limit=201",
        "/v1/runs?limit=ten",
        "/v1/runs?status=running",
        "/v1/runs?experiment=x",
        "/v1/runs?status=Running&status=Failed",
        "/v1/runs?created_after=yesterday",
        "/v1/runs?experiment_name=%00",
        "/v1/runs/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10/logs/%00",
        "/v1/runs/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10/logs/%ff",
    ] {
        app.get(path).await.problem(400, "malformed-request");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn malformed_ids_are_explained_in_our_own_words(pool: PgPool) {
    let app = TestApp::new(pool);
    let id = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
    let uuid = format!("`42` is no UUID; ids look like {id}");
    let snapshot = "the path cannot be read: a snapshot id is `sha256:` and 64 lower-case hexadecimal digits";
    for (path, detail) in [
        ("/v1/runs/42".to_owned(), uuid.as_str()),
        ("/v1/runs/42/logs/a/b.txt".to_owned(), uuid.as_str()),
        ("/v1/estimators/42".to_owned(), uuid.as_str()),
        ("/v1/snapshots/sha256:zz".to_owned(), snapshot),
        (format!("/v1/runs/{id}/logs/%ff"), "the `path` in the path is not UTF-8"),
    ] {
        assert_eq!(app.get(&path).await.problem(400, "malformed-request")["detail"], detail, "{path}");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn well_formed_ids_of_nothing(pool: PgPool) {
    let app = TestApp::new(pool);
    let id = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
    let snapshot = format!("sha256:{}", "0".repeat(64));
    for path in [
        format!("/v1/runs/{id}"),
        format!("/v1/runs/{id}/logs"),
        format!("/v1/runs/{id}/logs/a/b.txt"),
        format!("/v1/runs/{id}/outputs"),
        format!("/v1/runs/{id}/outputs/a"),
        format!("/v1/runs/{id}/events"),
        format!("/v1/estimators/{id}"),
        format!("/v1/snapshots/{snapshot}"),
        format!("/v1/snapshots/{snapshot}/files"),
        "/v1/compute-targets/nothing".to_owned(),
    ] {
        app.get(&path).await.problem(404, "not-found");
    }
    app.delete(&format!("/v1/estimators/{id}")).await.problem(404, "not-found");
    app.delete("/v1/compute-targets/nothing").await.problem(404, "not-found");
    app.post(&format!("/v1/runs/{id}/cancel"), &json!({})).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn bodies_that_are_no_json_object(pool: PgPool) {
    let app = TestApp::new(pool);
    let broken = app.post_text(VALIDATE, "{\n  \"a\": }").await.problem(400, "invalid-json");
    assert_eq!((broken["line"].to_string(), broken["column"].to_string()), ("2".to_owned(), "8".to_owned()));
    for (empty, place) in [("", ("1", "1")), ("{\n", ("2", "1"))] {
        let problem = app.post_text(VALIDATE, empty).await.problem(400, "invalid-json");
        assert_eq!((problem["line"].to_string().as_str(), problem["column"].to_string().as_str()), place);
        assert!(!problem["detail"].to_string().contains("column 0"), "{problem}");
    }
    let twice = app.post_text(VALIDATE, "{\"a\": {\"b\": 1, \"b\": 2}}").await;
    assert!(twice.problem(400, "duplicate-key")["detail"].as_str().expect("a text").contains("\"b\""));
    for other in ["[]", "null", "3", "\"x\""] {
        app.post_text(VALIDATE, other).await.problem(422, "not-an-object");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn content_types_and_sizes(pool: PgPool) {
    let app = TestApp::new(pool);
    for headers in [&[][..], &[("content-type", "text/plain")][..]] {
        let answer = app.with_headers("POST", VALIDATE, headers, Body::from("{}")).await;
        answer.problem(415, "unsupported-media-type");
    }
    for fine in ["application/json; charset=utf-8", "application/merge-patch+json"] {
        let answer = app.with_headers("POST", VALIDATE, &[("content-type", fine)], Body::from("{}")).await;
        answer.ok(200);
    }
    let large = format!("{{\"x\": \"{}\"}}", "y".repeat(4 << 20));
    app.post_text(VALIDATE, &large).await.problem(413, "body-too-large");
    let answer = app.with_headers("POST", "/v1/snapshots", &[("content-type", "text/plain")], Body::empty());
    let problem = answer.await.problem(415, "unsupported-media-type");
    assert!(problem["detail"].as_str().expect("a text").contains("application/zip"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_row_that_makes_no_sense_is_a_500_without_internals(pool: PgPool) {
    let app = TestApp::new(pool);
    let statement = "UPDATE compute_targets SET type = 'Nonsense'";
    sqlx::query(statement).execute(&app.pool).await.expect("updated");
    let problem = app.get("/v1/compute-targets").await.problem(500, "internal");
    assert!(!problem.to_string().contains("Nonsense"), "{problem}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn cursors_belong_to_one_list(pool: PgPool) {
    let app = TestApp::new(pool);
    for name in ["a", "b", "c"] {
        app.run(name).await;
        app.clock.advance(1);
    }
    let page = app.get("/v1/runs?limit=2").await.ok(200);
    let names = |page: &serde_json::Value| {
        let items = page["items"].as_array().expect("items").iter();
        items.map(|run| run["experiment_name"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&page), ["c", "b"]);
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let rest = app.get(&format!("/v1/runs?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!((names(&rest), rest["next_cursor"].is_null()), (vec!["a".to_owned()], true));
    for path in [
        format!("/v1/runs?status=Queued&cursor={cursor}"),
        format!("/v1/estimators?cursor={cursor}"),
        "/v1/runs?cursor=nonsense".to_owned(),
        "/v1/runs?cursor=7b7d".to_owned(),
    ] {
        app.get(&path).await.problem(400, "invalid-cursor");
    }
}
