//! Requests that are sent again, and runs that are made again.

use axum::body::Body;
use estimatord::{
    api::ApiSettings,
    clock::Clock as _,
    domain::run::{Cause, Ending, Move, Status},
    storage::MIGRATOR,
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::{TestApp, callers};

const ID: &str = "/v1/runs/01980000-0000-7000-8000-000000000001";

async fn body(app: &TestApp) -> Value {
    json!({"experiment_name": "e", "estimator": app.definition().await, "script_params": {"--epochs": 5}})
}

async fn count(app: &TestApp) -> usize {
    app.get("/v1/runs?limit=200").await.ok(200)["items"].as_array().expect("items").len()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_run_put_twice_is_one_run_and_shows_how_it_is_now(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = body(&app).await;
    let first = app.put(ID, &body).await;
    assert_eq!(first.header("location"), ID);
    let run = first.ok(201);
    assert_eq!(
        (run["status"].as_str(), ID.ends_with(run["id"].as_str().expect("an id"))),
        (Some("Queued"), true)
    );
    let claimed = app.admit().await;
    app.start(&claimed).await;
    assert_eq!(app.put(ID, &body).await.ok(200)["status"], "Running");
    app.put(ID, &json!({"experiment_name": "other"})).await.problem(409, "conflict");
    assert_eq!(count(&app).await, 1);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn of_puts_at_once_one_makes_the_run(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = body(&app).await;
    let answers = join_all((0..20).map(|_| app.put(ID, &body))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 201).count(), 1);
    assert!(answers.iter().all(|answer| [200, 201].contains(&answer.status.as_u16())));
    assert_eq!(count(&app).await, 1);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_id_of_one_s_own_is_a_uuid_of_version_7(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = body(&app).await;
    for id in ["4f1a2b3c-0f0e-4c3a-9a55-0f6f6f1b7a10", "00000000-0000-0000-0000-000000000000", "x"] {
        app.put(&format!("/v1/runs/{id}"), &body).await.problem(400, "malformed-request");
    }
    let made_here = app.post("/v1/runs", &body).await.ok(201)["id"].as_str().expect("an id").to_owned();
    app.put(&format!("/v1/runs/{made_here}"), &body).await.problem(409, "conflict");
    app.put(ID, &json!({})).await.problem(422, "invalid-run");
    assert_eq!(app.put(ID, &body).await.status, 201, "what was refused left nothing behind");
}

/// What the answer of a run that was made with one key has; every client gets the same, once it asked again.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_hundred_posts_at_once_with_one_key_are_one_run(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = body(&app).await.to_string();
    let post = async || loop {
        let headers = [("content-type", "application/json"), ("idempotency-key", "the-key")];
        let answer = app.with_headers("POST", "/v1/runs", &headers, Body::from(body.clone())).await;
        if answer.status != 409 {
            return answer.ok(201)["id"].clone();
        }
        assert_eq!(answer.header("retry-after"), "1");
        tokio::task::yield_now().await;
    };
    let ids = join_all((0..100).map(|_| post())).await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(count(&app).await, 1);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_snapshot_s_key_belongs_to_one_tree(pool: PgPool) {
    let app = TestApp::new(pool);
    let send = async |text: &str| {
        let headers = [("content-type", "application/x-tar"), ("idempotency-key", "k")];
        app.with_headers("POST", "/v1/snapshots", &headers, Body::from(crate::app::tar(&[("a.py", text)])))
            .await
    };
    let first = send("1").await;
    assert_eq!((first.status.as_u16(), first.header("idempotency-replayed")), (201, ""));
    let again = send("1").await;
    assert_eq!((again.status.as_u16(), again.header("idempotency-replayed")), (201, "true"));
    assert_eq!((again.text(), again.header("location")), (first.text(), first.header("location")));
    send("2").await.problem(422, "idempotency-key-reused");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_rerun_is_exactly_what_ran(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut first = body(&app).await;
    for (name, value) in [
        ("tags", json!({"a": "b"})),
        ("priority", json!(3)),
        ("max_attempts", json!(4)),
        ("retry_on", json!(["script_failed"])),
        ("max_queue_duration_seconds", json!(600)),
        ("display_name", json!("n")),
    ] {
        first[name] = value;
    }
    let first = app.post("/v1/runs", &first).await.ok(201);
    let claimed = app.admit().await;
    app.start(&claimed).await;
    app.complete(&claimed).await;
    // Nobody can make a new run of it, and what ran can be repeated.
    let estimator = first["estimator_id"].as_str().expect("an id");
    assert!(app.delete(&format!("/v1/estimators/{estimator}")).await.status.is_success());
    let path = format!("/v1/runs/{}/rerun", first["id"].as_str().expect("an id"));
    let answer = app.post(&path, &json!({})).await;
    let again = answer.ok(201);
    assert_ne!(again["id"], first["id"]);
    assert_eq!(again["rerun_of"], first["id"]);
    for member in [
        "experiment_name",
        "plan",
        "definition",
        "findings",
        "estimator_id",
        "compute_target",
        "tags",
        "priority",
        "max_attempts",
        "retry_on",
        "max_queue_duration_seconds",
        "display_name",
        "status",
        "attempt",
    ] {
        assert_eq!(again[member], first[member], "{member}");
    }
    assert_eq!(app.admit().await.run.plan.arguments, ["--epochs", "5"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_rerun_with_a_patch_is_judged_as_a_whole(pool: PgPool) {
    let app = TestApp::new(pool);
    let first = app.post("/v1/runs", &body(&app).await).await.ok(201);
    let path = format!("/v1/runs/{}/rerun", first["id"].as_str().expect("an id"));
    let patch = json!({"script_params": {"--epochs": 40, "--more": "x"}, "tags": {"why": "longer"}});
    let again = app.post(&path, &patch).await.ok(201);
    assert_eq!(again["plan"]["arguments"], json!(["--epochs", "40", "--more", "x"]));
    assert_eq!((&again["tags"], &again["experiment_name"]), (&json!({"why": "longer"}), &json!("e")));
    let refused = app
        .post(&path, &json!({"script_params": {"--a": {"b": 1}}, "max_attempts": 0, "estimator": {}}))
        .await;
    refused.problem(422, "invalid-run");
    let rules: Vec<_> = refused.errors().into_iter().map(|(_, pointer)| pointer).collect();
    assert_eq!(rules, ["/max_attempts", "/estimator"]);
    let refused = app.post(&path, &json!({"compute_target": "nowhere"})).await;
    assert_eq!(refused.errors(), [("compute-target-not-found".to_owned(), "/compute_target".to_owned())]);
    app.post("/v1/runs/01980000-0000-7000-8000-0000000000ff/rerun", &json!({}))
        .await
        .problem(404, "not-found");
    assert_eq!(count(&app).await, 2);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_rerun_s_key_belongs_to_one_run(pool: PgPool) {
    let app = TestApp::new(pool);
    let runs = [app.run("a").await, app.run("b").await];
    let rerun = async |run: &Value| {
        let path = format!("/v1/runs/{}/rerun", run["id"].as_str().expect("an id"));
        let headers = [("content-type", "application/json"), ("idempotency-key", "k")];
        app.with_headers("POST", &path, &headers, Body::from("{}")).await
    };
    let first = rerun(&runs[0]).await;
    let again = rerun(&runs[0]).await;
    assert_eq!((again.header("idempotency-replayed"), again.text()), ("true", first.text()));
    rerun(&runs[1]).await.problem(422, "idempotency-key-reused");
    assert_eq!(count(&app).await, 3);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_full_queue_says_when_to_come_back(pool: PgPool) {
    let app = TestApp::changed(pool, |settings| ApiSettings { max_queued_runs: 1, ..settings });
    let body = body(&app).await;
    app.post("/v1/runs", &body).await.ok(201);
    for answer in [app.post("/v1/runs", &body).await, app.put(ID, &body).await] {
        answer.problem(429, "queue-full");
        assert_eq!(answer.header("retry-after"), "10");
    }
    app.admit().await;
    assert_eq!(app.put(ID, &body).await.status, 201);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_cancel_shows_how_far_it_is_and_by_what_it_is_known(pool: PgPool) {
    let app = TestApp::new(pool);
    let queued = app.run("a").await;
    let path = |run: &Value| format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
    assert!(queued["cancellation"].is_null());
    let canceled = app.post(&format!("{}/cancel", path(&queued)), &json!({})).await.ok(202);
    assert_eq!(
        canceled["cancellation"]["evidence"],
        "it was in the queue: nothing of it was handed to a backend"
    );
    assert_eq!(canceled["cancellation"]["confirmed_at"], canceled["finished_at"]);

    let running = app.run("b").await;
    let claimed = app.admit().await;
    app.start(&claimed).await;
    let asked = app.post(&format!("{}/cancel", path(&running)), &json!({})).await.ok(202);
    let cancellation = &asked["cancellation"];
    assert!(
        cancellation["requested_at"].is_string() && cancellation["stop_sent_at"].is_null(),
        "{cancellation}"
    );
    let now = app.clock.now();
    app.storage.record_stop_sent(&claimed.lease, now).await.expect("recorded");
    let ending = Ending {
        evidence: Some("gone".to_owned()),
        cause: Some(Cause::CanceledByUser),
        ..Default::default()
    };
    let step = Move::End { status: Status::Canceled, ending };
    app.storage.move_run(&claimed.lease, Status::CancelRequested, &step, now).await.expect("written");
    let ended = app.get(&path(&running)).await.ok(200)["cancellation"].clone();
    assert_eq!(ended["evidence"], "gone");
    assert!(ended["stop_sent_at"].is_string() && ended["confirmed_at"].is_string(), "{ended}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn callers_are_told_apart_by_their_tokens(pool: PgPool) {
    let access = callers("vision 0123456789abcdef\nci fedcba9876543210");
    let app = TestApp::changed(pool, |settings| ApiSettings { access, ..settings });
    let send = async |method: &str, path: &str, token: &str, kind: &str, body: Body| {
        let token = format!("Bearer {token}");
        app.with_headers(method, path, &[("authorization", &token), ("content-type", kind)], body).await
    };
    let tar = crate::app::tar(&[("train.py", "print('hello')\n")]);
    let snapshot =
        send("POST", "/v1/snapshots", "0123456789abcdef", "application/x-tar", tar.into()).await.ok(201);
    let definition = json!({"source_directory": snapshot["id"], "compute_target": "local", "entry_script": "train.py",
        "user_managed": true, "use_docker": false});
    let body = json!({"experiment_name": "e", "estimator": definition}).to_string();
    for (token, caller) in [("0123456789abcdef", "vision"), ("fedcba9876543210", "ci")] {
        let run = send("POST", "/v1/runs", token, "application/json", body.clone().into()).await.ok(201);
        assert_eq!(run["caller"], caller);
    }
    let unknown = send("POST", "/v1/runs", "ffffffffffffffff", "application/json", body.into()).await;
    unknown.problem(401, "unauthorized");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_service_that_is_about_to_end_says_so_first_and_answers_still(pool: PgPool) {
    let app = TestApp::new(pool);
    assert_eq!(app.get("/readyz").await.header("connection"), "");
    app.draining.cancel();
    app.get("/readyz").await.problem(503, "shutting-down");
    let answer = app.get("/v1/runs").await;
    assert_eq!(answer.header("connection"), "close");
    answer.ok(200);
}

/// What one caller sent under a key is not what another gets.
#[sqlx::test(migrator = "MIGRATOR")]
async fn keys_and_ids_are_their_callers_own(pool: PgPool) {
    let access = callers("alice 0123456789abcdef\nbob fedcba9876543210");
    let plain = TestApp::new(pool.clone());
    let definition = plain.definition().await;
    let app = TestApp::changed(pool, |settings| ApiSettings { access, ..settings });
    let body = json!({"experiment_name": "e", "estimator": definition}).to_string();
    let send = |method: &'static str, path: String, token: &'static str| {
        let headers =
            [("content-type", "application/json"), ("idempotency-key", "k"), ("authorization", token)];
        let (app, body) = (&app, body.clone());
        async move { app.with_headers(method, &path, &headers, Body::from(body)).await }
    };
    let (alice, bob) = ("Bearer 0123456789abcdef", "Bearer fedcba9876543210");
    let hers = send("POST", "/v1/runs".to_owned(), alice).await;
    let his = send("POST", "/v1/runs".to_owned(), bob).await;
    assert_eq!((his.status.as_u16(), his.header("idempotency-replayed")), (201, ""));
    assert_ne!(hers.json()["id"], his.json()["id"]);
    assert_eq!((&hers.json()["caller"], &his.json()["caller"]), (&json!("alice"), &json!("bob")));
    let again = send("POST", "/v1/runs".to_owned(), bob).await;
    assert_eq!((again.header("idempotency-replayed"), &again.json()["id"]), ("true", &his.json()["id"]));

    let path = "/v1/runs/01980000-0000-7000-8000-000000000000".to_owned();
    send("PUT", path.clone(), alice).await.ok(201);
    send("PUT", path.clone(), alice).await.ok(200);
    send("PUT", path, bob).await.problem(409, "conflict");
}

/// However many come at once: the bound is one.
#[sqlx::test(migrator = "MIGRATOR")]
async fn the_queue_is_bounded_for_those_who_come_together(pool: PgPool) {
    let app = TestApp::changed(pool, |settings| ApiSettings { max_queued_runs: 5, ..settings });
    let definition = app.definition().await;
    let body = json!({"experiment_name": "e", "estimator": definition});
    let answers = join_all((0..24).map(|_| app.post("/v1/runs", &body))).await;
    let accepted = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(accepted, 5);
    for answer in answers.iter().filter(|answer| answer.status != 201) {
        answer.problem(429, "queue-full");
    }
}
