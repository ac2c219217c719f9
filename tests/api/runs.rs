//! Runs.

use std::time::{Duration, Instant};

use axum::body::Body;
use estimatord::{clock::Clock as _, domain::run::Status, storage::MIGRATOR};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

fn path(run: &Value) -> String {
    format!("/v1/runs/{}", run["id"].as_str().expect("an id"))
}

fn strings(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(rule, pointer)| ((*rule).to_owned(), (*pointer).to_owned())).collect()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_run_is_accepted_and_shown(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    let body = json!({
        "experiment_name": "mnist", "estimator": definition, "script_params": {"--epochs": 5},
        "display_name": "first", "tags": {"team": "vision"}, "priority": -3, "max_attempts": 2
    });
    app.storage.record_process_health(true, "here", 4, app.clock.now()).await.expect("a worker");
    let woken = app.wakeup.notified();
    let created = app.post("/v1/runs", &body).await;
    tokio::time::timeout(Duration::from_secs(1), woken).await.expect("workers are woken");
    let location = created.header("location").to_owned();
    let run = created.ok(201);
    assert_eq!(location, path(&run));
    assert_eq!(run["status"], "Queued");
    assert_eq!(run["blocked_by"][0]["code"], "waiting_for_worker");
    assert_eq!(run["plan"]["arguments"], json!(["--epochs", "5"]));
    assert_eq!(run["tags"], json!({"team": "vision"}));
    assert_eq!((run["priority"].to_string(), run["max_attempts"].to_string()), ("-3".into(), "2".into()));
    assert!(run["environment"]["actual"].is_null());
    assert_eq!(app.get(&location).await.ok(200), run);
    let estimator =
        app.get(&format!("/v1/estimators/{}", run["estimator_id"].as_str().expect("an id"))).await;
    assert_eq!(estimator.ok(200)["definition"], run["definition"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn everything_wrong_with_the_body_is_said_at_once(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = json!({"experiment_name": "-x", "tags": {"a": 1}, "priority": "high", "max_attempts": 0,
                      "compute_target": 3, "script_parms": {}});
    let answer = app.post("/v1/runs", &body).await;
    answer.problem(422, "invalid-run");
    let expected = strings(&[
        ("experiment-name-invalid", "/experiment_name"),
        ("missing-member", "/estimator"),
        ("wrong-type", "/compute_target"),
        ("wrong-type", "/tags/a"),
        ("wrong-type", "/priority"),
        ("out-of-range", "/max_attempts"),
        ("unknown-parameter", "/script_parms"),
    ]);
    assert_eq!(answer.errors(), expected);
    assert!(answer.text().contains("`script_params`"));
    let both = json!({"experiment_name": "x", "estimator": {}, "estimator_id": "x"});
    let errors = app.post("/v1/runs", &both).await.errors();
    assert_eq!(errors, strings(&[("conflicting-parameters", "/estimator_id")]));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn findings_point_into_the_body_that_was_sent(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut definition = app.definition().await;
    definition["entry_script"] = json!("nothing.py");
    let body = json!({"experiment_name": "e", "estimator": definition, "compute_target": "cpu"});
    let answer = app.post("/v1/runs", &body).await;
    let expected = strings(&[
        ("compute-target-not-found", "/compute_target"),
        ("entry-script-not-found", "/estimator/entry_script"),
    ]);
    assert_eq!(answer.errors(), expected);
    let findings = answer.json()["findings"].clone();
    assert_eq!(findings[0]["pointer"], "/estimator", "{findings}");

    let good = app.definition().await;
    let id = app.post("/v1/estimators", &good).await.ok(201)["id"].clone();
    let body = json!({"experiment_name": "e", "estimator_id": id, "script_params": {"--a": {"b": 1}}});
    let errors = app.post("/v1/runs", &body).await.errors();
    assert_eq!(errors, strings(&[("wrong-type", "/script_params/--a")]));
    let body = json!({"experiment_name": "e", "estimator_id": "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10"});
    let errors = app.post("/v1/runs", &body).await.errors();
    assert_eq!(errors, strings(&[("estimator-not-found", "/estimator_id")]));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_said_of_an_accepted_run_points_into_its_body_too(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut definition = app.definition().await;
    definition["vm_size"] = json!("STANDARD_NC6");
    let files = [("train.py", "print('hello')\n"), ("req.txt", "numpy\n")];
    definition["source_directory"] = json!(app.upload(&files).await);
    definition["pip_requirements_file_path"] = json!("req.txt");
    let pointers = |value: &Value| -> Vec<String> {
        let findings = value["findings"].as_array().expect("findings").iter();
        findings.map(|finding| finding["pointer"].as_str().expect("a text").to_owned()).collect()
    };
    let body = json!({"experiment_name": "e", "estimator": definition});
    let run = app.post("/v1/runs", &body).await.ok(201);
    let found = pointers(&run);
    assert!(found.contains(&"/estimator/vm_size".to_owned()), "{found:?}");
    assert!(found.iter().all(|pointer| pointer.starts_with("/estimator")), "{found:?}");
    assert_eq!(app.get(&path(&run)).await.ok(200)["findings"], run["findings"]);
    let patched = run["findings"].as_array().expect("findings").iter().flat_map(|finding| {
        let steps = finding["fix"]["patch"].as_array().into_iter().flatten();
        let paths = steps.flat_map(|step| [&step["path"], &step["from"]]);
        paths.filter_map(|path| path.as_str().map(str::to_owned)).collect::<Vec<_>>()
    });
    let patched: Vec<_> = patched.collect();
    assert!(!patched.is_empty() && patched.iter().all(|path| path.starts_with("/estimator/")), "{patched:?}");

    // The estimator that was stored with it, and a run of that, have no such member to point at.
    let stored = app.get(&format!("/v1/estimators/{}", run["estimator_id"].as_str().expect("an id"))).await;
    let bare: Vec<_> = found.iter().map(|pointer| pointer["/estimator".len()..].to_owned()).collect();
    assert_eq!(pointers(&stored.ok(200)), bare);
    let body = json!({"experiment_name": "e", "estimator_id": run["estimator_id"]});
    assert_eq!(pointers(&app.post("/v1/runs", &body).await.ok(201)), bare);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_stored_estimator_is_run_with_overrides(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut definition = app.definition().await;
    definition["script_params"] = json!({"--lr": 0.1, "--epochs": 1});
    let id = app.post("/v1/estimators", &definition).await.ok(201)["id"].clone();
    let body =
        json!({"experiment_name": "e", "estimator_id": id, "script_params": {"--seed": 7, "--lr": 0.2}});
    let run = app.post("/v1/runs", &body).await.ok(201);
    assert_eq!(run["plan"]["arguments"], json!(["--lr", "0.2", "--epochs", "1", "--seed", "7"]));
    assert_eq!(run["estimator_id"], id);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn lists_are_filtered(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = app.definition().await;
    for (name, tags) in [("a", json!({"k": "1", "l": "x"})), ("b", json!({"k": "2"})), ("b", json!({}))] {
        let body = json!({"experiment_name": name, "estimator": definition, "tags": tags});
        app.post("/v1/runs", &body).await.ok(201);
        app.clock.advance(1);
    }
    for (query, expected) in [
        ("", 3),
        ("?experiment_name=b", 2),
        ("?tag.k=1&tag.l=x", 1),
        ("?tag.k=1&tag.l=y", 0),
        ("?status=Queued&compute_target=local", 3),
        ("?status=Running", 0),
        ("?created_after=2026-11-23T12:00:00Z", 2),
        ("?created_after=2026-11-23T13:00:00%2B01:00", 2),
    ] {
        let found = app.get(&format!("/v1/runs{query}")).await.ok(200);
        assert_eq!(found["items"].as_array().expect("items").len(), expected, "{query}");
    }
    let runs = app.get("/v1/runs").await.ok(200);
    assert_eq!(runs["items"][0]["blocked_by"][0]["code"], "behind_other_runs");
    assert_eq!(runs["items"][2]["blocked_by"][0]["code"], "no_worker");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_queued_run_is_canceled_at_once(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let cancel = format!("{}/cancel", path(&run));
    let canceled = app.post(&cancel, &json!({})).await.ok(202);
    assert_eq!((&canceled["status"], &canceled["cause"]), (&json!("Canceled"), &json!("canceled_by_user")));
    let problem = app.post(&cancel, &json!({})).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().expect("a text").contains("Canceled"));
    let events = app.get(&format!("{}/events", path(&run))).await.ok(200);
    assert_eq!(events["items"][1]["status"], "Canceled");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_running_run_is_asked_to_end(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let claimed = app.admit().await;
    app.start(&claimed).await;
    // A body is not needed.
    let answer =
        app.with_headers("POST", &format!("{}/cancel", path(&run)), &[], Body::empty()).await.ok(202);
    assert_eq!(answer["status"], "CancelRequested");
    assert!(!answer["cancel_requested_at"].is_null());
    assert_eq!(answer["attempts"][0]["node"], "node-1");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_long_poll_ends_with_a_change_of_status(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let wait = |seconds: &'static str| {
        let (app, path) = (&app, path(&run));
        async move { app.with_headers("GET", &path, &[("prefer", seconds)], Body::empty()).await }
    };
    let none = wait("wait=0").await;
    assert_eq!((none.header("preference-applied"), &none.json()["status"]), ("wait=0", &json!("Queued")));
    let started = Instant::now();
    let (answer, claimed) = tokio::join!(wait("respond-async, wait=300"), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        app.admit().await
    });
    assert_eq!(answer.header("preference-applied"), "wait=60");
    assert_eq!(answer.ok(200)["status"], "Preparing");
    assert!(started.elapsed() < Duration::from_secs(5));
    app.start(&claimed).await;
    app.complete(&claimed).await;
    assert_eq!(wait("wait=50").await.ok(200)["status"], "Completed");
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn events_are_listed_and_followed(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let claimed = app.admit().await;
    app.start(&claimed).await;
    let events = format!("{}/events", path(&run));
    let page = app.get(&format!("{events}?limit=2")).await.ok(200);
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let rest = app.get(&format!("{events}?cursor={cursor}")).await.ok(200);
    assert_eq!(
        (&rest["items"][0]["status"], &rest["items"][1]["status"]),
        (&json!("Starting"), &json!("Running"))
    );
    assert_eq!(
        app.get(&format!("{events}?after=3")).await.ok(200)["items"].as_array().expect("items").len(),
        1
    );

    let headers = [("accept", "text/event-stream"), ("last-event-id", "3")];
    let (stream, ()) = tokio::join!(app.with_headers("GET", &events, &headers, Body::empty()), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        app.complete(&claimed).await;
    });
    assert_eq!(stream.header("content-type"), "text/event-stream");
    let text = stream.text();
    assert!(text.starts_with("id: 4\nevent: status\ndata: {\"sequence\":4,"), "{text}");
    assert!(text.contains(&format!("\"status\":\"{}\"", Status::Completed)), "{text}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_size_gets_a_target_of_its_own_until_the_run_has_ended(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut definition = app.definition().await;
    definition["compute_target"] = Value::Null;
    definition["vm_size"] = "STANDARD_D2_V2".into();
    definition["vm_priority"] = "lowpriority".into();
    definition["node_count"] = 2.into();
    definition["distributed_training"] = json!({"type": "Mpi"});
    let body = json!({"experiment_name": "sized", "estimator": definition});
    let run = app.post("/v1/runs", &body).await.ok(201);
    let target = format!("/v1/compute-targets/{}", run["compute_target"].as_str().expect("a name"));
    let made = app.get(&target).await.ok(200);
    assert_eq!((&made["type"], &made["vm_size"]), (&json!("AmlCompute"), &json!("STANDARD_D2_V2")));
    assert_eq!((&made["vm_priority"], &made["max_nodes"]), (&json!("lowpriority"), &json!(2)));
    app.delete(&target).await.problem(409, "conflict");
    let claimed = app.admit().await;
    assert_eq!(claimed.run.status, Status::Provisioning);
    app.move_to(&claimed, Status::Provisioning, Status::Preparing).await;
    app.start(&claimed).await;
    app.get(&target).await.ok(200);
    app.complete(&claimed).await;
    app.get(&target).await.problem(404, "not-found");
    // Another run has another, which goes with a cancel too.
    let second = app.post("/v1/runs", &body).await.ok(201);
    let other = format!("/v1/compute-targets/{}", second["compute_target"].as_str().expect("a name"));
    app.get(&other).await.ok(200);
    app.post(&format!("{}/cancel", path(&second)), &json!({})).await.ok(202);
    app.get(&other).await.problem(404, "not-found");
}
