//! `PATCH /v1/runs/{id}`, `POST /v1/runs/batch`, `GET /v1/experiments`.

use axum::body::Body;
use estimatord::{domain::run::Status, storage::MIGRATOR};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{Answer, TestApp, errors_of};

async fn patch(app: &TestApp, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut all = vec![("content-type", "application/merge-patch+json")];
    all.extend(headers);
    app.with_headers("PATCH", path, &all, Body::from(body.to_string())).await
}

fn path_of(run: &Value) -> String {
    format!("/v1/runs/{}", run["id"].as_str().expect("an id"))
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_run_is_changed_member_by_member(pool: PgPool) {
    let app = TestApp::new(pool);
    let path = path_of(&app.run("e").await);
    let body = json!({"display_name": "one", "tags": {"a": "1", "b": "2"}, "priority": 7});
    let changed = patch(&app, &path, &[], &body).await.ok(200);
    assert_eq!((&changed["display_name"], &changed["priority"]), (&json!("one"), &json!(7)));
    assert_eq!(changed["tags"], json!({"a": "1", "b": "2"}));
    let changed = patch(&app, &path, &[], &json!({"tags": {"a": null, "c": "3"}})).await.ok(200);
    assert_eq!(changed["tags"], json!({"b": "2", "c": "3"}));
    assert_eq!((&changed["display_name"], &changed["priority"]), (&json!("one"), &json!(7)));
    let body = json!({"tags": null, "display_name": null, "priority": null});
    let answer = patch(&app, &path, &[], &body).await;
    let tag = answer.header("etag").to_owned();
    let changed = answer.ok(200);
    assert_eq!(
        (&changed["tags"], &changed["display_name"], &changed["priority"]),
        (&json!({}), &Value::Null, &json!(0))
    );
    assert_eq!(app.get(&path).await.header("etag"), tag);
    // Plain JSON is the same.
    let plain = [("content-type", "application/json")];
    let answer = app.with_headers("PATCH", &path, &plain, Body::from(r#"{"priority": 3}"#)).await;
    assert_eq!(answer.ok(200)["priority"], 3);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_change_that_is_wrong_says_everything_and_changes_nothing(pool: PgPool) {
    let app = TestApp::new(pool);
    let path = path_of(&app.run("e").await);
    let body =
        json!({"priority": "high", "tags": {"a": 1}, "status": "Completed", "display_name": "x".repeat(256)});
    let refused = patch(&app, &path, &[], &body).await;
    let errors = refused.errors();
    refused.problem(422, "invalid-run");
    let has = |rule: &str, pointer: &str| errors.contains(&(rule.to_owned(), pointer.to_owned()));
    assert!(has("wrong-type", "/priority") && has("wrong-type", "/tags/a"), "{errors:?}");
    assert!(has("unknown-parameter", "/status") && has("too-long", "/display_name"), "{errors:?}");
    let many: serde_json::Map<_, _> = (0..60).map(|n| (format!("t{n}"), json!("x"))).collect();
    patch(&app, &path, &[], &json!({"tags": many})).await.ok(200);
    let more: serde_json::Map<_, _> = (60..120).map(|n| (format!("t{n}"), json!("x"))).collect();
    let refused = patch(&app, &path, &[], &json!({"tags": more})).await;
    assert_eq!(refused.errors(), [("too-long".to_owned(), "/tags".to_owned())]);
    let nobody = "/v1/runs/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
    patch(&app, nobody, &[], &json!({})).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_change_can_ask_for_the_run_as_it_was_read(pool: PgPool) {
    let app = TestApp::new(pool);
    let path = path_of(&app.run("e").await);
    let tag = app.get(&path).await.header("etag").to_owned();
    patch(&app, &path, &[("if-match", &tag)], &json!({"priority": 1})).await.ok(200);
    patch(&app, &path, &[("if-match", &tag)], &json!({"priority": 2}))
        .await
        .problem(412, "precondition-failed");
    assert_eq!(app.get(&path).await.ok(200)["priority"], 1);
    patch(&app, &path, &[("if-match", "*")], &json!({"priority": 2})).await.ok(200);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn of_a_run_that_has_ended_labels_change_and_its_priority_does_not(pool: PgPool) {
    let app = TestApp::new(pool);
    let path = path_of(&app.run("e").await);
    let claimed = app.admit().await;
    app.start(&claimed).await;
    app.complete(&claimed).await;
    patch(&app, &path, &[], &json!({"priority": 1})).await.problem(409, "conflict");
    let changed = patch(&app, &path, &[], &json!({"tags": {"good": "yes"}, "priority": 0})).await.ok(200);
    assert_eq!((&changed["tags"], &changed["status"]), (&json!({"good": "yes"}), &json!("Completed")));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn of_a_batch_each_is_judged_by_itself_and_it_can_be_sent_again(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let good = json!({"experiment_name": "e", "estimator": definition});
    let body = json!({"runs": [good, {"experiment_name": "-", "estimator": {}}, 3, good]});
    let send = |body: Value| {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        let app = &app;
        async move { app.with_headers("POST", "/v1/runs/batch", &headers, Body::from(body.to_string())).await }
    };
    let first = send(body.clone()).await.ok(200);
    let items = first["items"].as_array().expect("items");
    let statuses: Vec<_> = items.iter().map(|item| item["status"].as_u64().expect("a status")).collect();
    assert_eq!(statuses, [201, 422, 422, 201]);
    assert_eq!(items[0]["run"]["status"], "Queued");
    assert!(errors_of(&items[1]["problem"]).len() >= 2, "{}", items[1]);
    assert_eq!(items[2]["problem"]["type"], "/problems/not-an-object");
    let again = send(body.clone()).await.ok(200);
    assert_eq!(again["items"][0]["run"]["id"], items[0]["run"]["id"]);
    assert_eq!((&again["items"][0]["replayed"], &items[0]["replayed"]), (&json!(true), &json!(false)));
    let mut other = body;
    other["runs"][0]["experiment_name"] = json!("other");
    let other = send(other).await.ok(200);
    assert_eq!(other["items"][0]["problem"]["type"], "/problems/idempotency-key-reused");
    assert_eq!(app.get("/v1/runs").await.ok(200)["items"].as_array().expect("items").len(), 2);
}

/// Some are judged sooner than others: what is stored has to be read, and so has what a key was used for.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_runs_of_a_batch_stand_in_the_queue_as_in_the_request(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let stored = app.post("/v1/estimators", &definition).await.ok(201)["id"].clone();
    let run = |place: usize| match place % 3 {
        0 => json!({"experiment_name": "e", "estimator": definition, "display_name": place.to_string()}),
        _ => json!({"experiment_name": "e", "estimator_id": stored, "display_name": place.to_string()}),
    };
    let body = json!({"runs": (0..60).map(run).collect::<Vec<_>>()});
    let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
    let text = Body::from(body.to_string());
    let items = app.with_headers("POST", "/v1/runs/batch", &headers, text).await.ok(200);
    let places: Vec<String> = (0..60).map(|place: usize| place.to_string()).collect();
    let named = |run: &Value| run["display_name"].as_str().expect("a name").to_owned();
    let answered: Vec<_> =
        items["items"].as_array().expect("items").iter().map(|item| named(&item["run"])).collect();
    assert_eq!(answered, places);
    let listed = app.get("/v1/runs?limit=200").await.ok(200);
    let listed: Vec<_> = listed["items"].as_array().expect("items").iter().rev().map(named).collect();
    assert_eq!(listed, places);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_no_batch_is_refused(pool: PgPool) {
    let app = TestApp::new(pool);
    for (body, rule, pointer) in [
        (json!({}), "missing-member", "/runs"),
        (json!({"runs": []}), "out-of-range", "/runs"),
        (json!({"runs": vec![json!({}); 101]}), "out-of-range", "/runs"),
        (json!({"runs": {}}), "wrong-type", "/runs"),
        (json!({"runs": [{}], "atomic": true}), "unknown-parameter", "/atomic"),
    ] {
        let refused = app.post("/v1/runs/batch", &body).await;
        assert_eq!(refused.errors(), [(rule.to_owned(), pointer.to_owned())]);
        refused.problem(422, "invalid-run");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn experiments_count_their_runs(pool: PgPool) {
    let app = TestApp::new(pool);
    for name in ["b", "a", "b", "c"] {
        app.run(name).await;
        app.clock.advance(60);
    }
    let claimed = app.admit().await;
    app.move_to(&claimed, Status::Preparing, Status::Starting).await;
    let first = app.get("/v1/experiments?limit=2").await.ok(200);
    let items = first["items"].as_array().expect("items");
    assert_eq!((&items[0]["name"], &items[1]["name"]), (&json!("a"), &json!("b")));
    assert_eq!(items[1]["last_run_created_at"], "2026-11-23T12:02:00Z");
    let cursor = first["next_cursor"].as_str().expect("a cursor");
    let second = app.get(&format!("/v1/experiments?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!(second["items"][0]["name"], "c");
    assert_eq!(second["next_cursor"], Value::Null);
    let all = app.get("/v1/experiments").await.ok(200);
    let count = |name: &str, status: &str| {
        let item = all["items"].as_array().and_then(|all| all.iter().find(|item| item["name"] == name));
        item.and_then(|item| item["runs"][status].as_u64()).unwrap_or(0)
    };
    assert_eq!((count("a", "Preparing"), count("b", "Starting"), count("b", "Preparing")), (1, 1, 1));
}
