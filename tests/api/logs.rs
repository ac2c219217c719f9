//! Logs and outputs.

use std::time::Duration;

use axum::{body::Body, http::Request};
use estimatord::{
    clock::Clock as _,
    domain::run::{Cause, Ending, LOG_SEGMENT_BYTES, Move, Status},
    storage::{MIGRATOR, transitions::Written},
};
use http_body_util::BodyExt as _;
use serde_json::json;
use sqlx::PgPool;
use tower::ServiceExt as _;

use crate::app::TestApp;

const LOG: &str = "user_logs/std_log.txt";

#[sqlx::test(migrator = "MIGRATOR")]
async fn logs_are_read_in_parts(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let logs = format!("/v1/runs/{}/logs", run["id"].as_str().expect("an id"));
    assert_eq!(app.get(&logs).await.ok(200), json!({"items": [], "run_status": "Queued"}));
    let claimed = app.admit().await;
    let size = usize::try_from(LOG_SEGMENT_BYTES).expect("small");
    let content: Vec<u8> = (0..size * 2 + 1000).map(|at| u8::try_from(at % 251).expect("small")).collect();
    app.write_log(&claimed, LOG, &content, false).await;

    let list = app.get(&logs).await.ok(200);
    let expected = json!([{"path": LOG, "bytes": content.len(), "complete": false, "attempt": 1}]);
    assert_eq!(list["items"].to_string(), expected.to_string());
    let log = format!("{logs}/{LOG}");
    let whole = app.get(&log).await;
    assert_eq!(whole.header("content-type"), "text/plain; charset=utf-8");
    assert!(whole.body == content);
    assert!(app.get(&format!("{log}?offset=300000")).await.body == content[300_000..]);
    assert_eq!(app.get(&format!("{log}?offset={}", content.len())).await.body, b"");
    app.get(&format!("{log}?offset=9999999")).await.problem(416, "range-not-satisfiable");
    let across = [("range", "bytes=262140-262150")];
    let part = app.with_headers("GET", &log, &across, Body::empty()).await;
    assert_eq!((part.status.as_u16(), part.header("content-range")), (206, "bytes 262140-262150/525288"));
    assert!(part.body == content[262_140..=262_150]);
    let behind = app.with_headers("GET", &log, &[("range", "bytes=525288-")], Body::empty()).await;
    behind.problem(416, "range-not-satisfiable");
    assert_eq!(behind.header("content-range"), "bytes */525288");
    let nothing = app.get(&format!("{logs}/nothing.txt")).await.problem(404, "not-found");
    assert_eq!(nothing["detail"], "attempt 1 of the run has no log `nothing.txt`");
    let later = app.get(&format!("{log}?attempt=2")).await.problem(404, "not-found");
    assert_eq!(later["detail"], format!("attempt 2 of the run has no log `{LOG}`"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_follow_begins_before_the_log_and_ends_with_the_run(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let log = format!("/v1/runs/{}/logs/{LOG}", run["id"].as_str().expect("an id"));
    let events = [("accept", "text/event-stream")];
    let plain = format!("{log}?follow=true");
    let (plain, events, ()) =
        tokio::join!(app.get(&plain), app.with_headers("GET", &log, &events, Body::empty()), async {
            let claimed = app.admit().await;
            app.start(&claimed).await;
            // The second byte of é comes later.
            app.write_log(&claimed, LOG, b"one\r\nt\xc3", false).await;
            tokio::time::sleep(Duration::from_millis(600)).await;
            app.write_log(&claimed, LOG, "one\r\ntérès 5%\r10%\n".as_bytes(), true).await;
            app.complete(&claimed).await;
        });
    assert_eq!(plain.text(), "one\r\ntérès 5%\r10%\n");
    assert_eq!(
        events.text(),
        "id: 1-6\nevent: log\ndata: one\ndata: t\n\n\
         id: 1-20\nevent: log\ndata: érès 5%\ndata: 10%\ndata: \n\n\
         id: 1-20\nevent: end\ndata: Completed\n\n"
    );

    let resumed = [("accept", "text/event-stream"), ("last-event-id", "1-17")];
    let resumed = app.with_headers("GET", &log, &resumed, Body::empty()).await;
    assert_eq!(
        resumed.text(),
        "id: 1-20\nevent: log\ndata: 0%\ndata: \n\nid: 1-20\nevent: end\ndata: Completed\n\n"
    );
    app.get(&format!("{log}.2?follow=true")).await.problem(404, "not-found");
}

/// The proper end of a plain follow means that the run has ended; a service that stops breaks it off instead.
/// Pieces end inside characters, and do not end where segments do.
#[sqlx::test(migrator = "MIGRATOR")]
async fn who_follows_from_far_behind_gets_every_byte_once(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let log = format!("/v1/runs/{}/logs/{LOG}", run["id"].as_str().expect("an id"));
    let claimed = app.admit().await;
    app.start(&claimed).await;
    let lines = usize::try_from(LOG_SEGMENT_BYTES).expect("small");
    let text: String = (0..lines).map(|line| if line % 7 == 0 { "é\n" } else { "é" }).collect();
    app.write_log(&claimed, LOG, text.as_bytes(), true).await;
    app.complete(&claimed).await;
    for from in [0, 2, 100_001] {
        // An odd number of bytes may end inside a character.
        let expected = &text.as_bytes()[from..];
        let plain = app.get(&format!("{log}?follow=true&offset={from}")).await;
        assert!(plain.body == expected, "{from}");
        let resumed = format!("1-{from}");
        let headers = [("accept", "text/event-stream"), ("last-event-id", resumed.as_str())];
        let events = app.with_headers("GET", &log, &headers, Body::empty()).await;
        let events = events.text();
        let mut got = String::new();
        for event in events.split("\n\n").filter(|event| event.contains("event: log")) {
            let data: Vec<&str> = event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
            got.push_str(&data.join("\n"));
        }
        assert!(got == String::from_utf8_lossy(expected), "{from}");
        assert!(events.ends_with(&format!("id: 1-{}\nevent: end\ndata: Completed\n\n", text.len())));
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_shutdown_breaks_a_follow_off(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let log = format!("/v1/runs/{}/logs/{LOG}?follow=true", run["id"].as_str().expect("an id"));
    let follow = |accept: &'static str| {
        let request = Request::get(&log).header("accept", accept).body(Body::empty()).expect("a request");
        let router = app.router.clone();
        async move { router.oneshot(request).await.expect("an answer").into_body().collect().await }
    };
    let (plain, events, ()) = tokio::join!(follow("text/plain"), follow("text/event-stream"), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.shutdown.cancel();
    });
    assert!(plain.is_err(), "broken off");
    let events = events.expect("ended").to_bytes();
    assert!(!String::from_utf8_lossy(&events).contains("event: end"), "without an `end`, to be resumed");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn outputs_are_downloaded(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let claimed = app.admit().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "0123456789").expect("written");
    let name = "models/a b.npz";
    let stored = app
        .artifacts
        .put_output(claimed.run.id, 1, name, file.reopen().expect("opened"), 10)
        .await
        .expect("stored");
    app.storage.record_output(&claimed.lease, 1, name, stored.bytes, &stored.sha256).await.expect("recorded");

    let outputs = format!("/v1/runs/{}/outputs", run["id"].as_str().expect("an id"));
    let list = app.get(&outputs).await.ok(200);
    assert_eq!(
        (&list["items"][0]["path"], &list["items"][0]["sha256"]),
        (&json!(name), &json!(stored.sha256))
    );
    let path = format!("{outputs}/models/a%20b.npz");
    let whole = app.get(&path).await;
    assert_eq!(whole.text(), "0123456789");
    assert_eq!(whole.header("content-type"), "application/octet-stream");
    assert!(whole.header("content-disposition").starts_with("attachment; filename=\"a_b.npz\""));
    assert_eq!(whole.header("etag"), format!("\"{}\"", stored.sha256));
    let part = app.with_headers("GET", &path, &[("range", "bytes=-3")], Body::empty()).await;
    assert_eq!((part.status.as_u16(), part.text().as_str()), (206, "789"));
    let held = [("if-none-match", whole.header("etag"))];
    assert_eq!(app.with_headers("GET", &path, &held, Body::empty()).await.status, 304);
    app.get(&format!("{outputs}/nothing")).await.problem(404, "not-found");
}

/// A run that is tried again has a log for each attempt: who follows the run is told of the next one, and resumes where they were.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_follow_as_events_goes_on_with_the_next_attempt(pool: PgPool) {
    let app = TestApp::new(pool.clone());
    let definition = app.definition().await;
    let body = json!({"experiment_name": "e", "estimator": definition, "max_attempts": 2});
    let run = app.post("/v1/runs", &body).await.ok(201);
    let log = format!("/v1/runs/{}/logs/{LOG}", run["id"].as_str().expect("an id"));
    let first = app.admit().await;
    app.start(&first).await;
    app.write_log(&first, LOG, b"one\n", true).await;
    let ending = Ending { cause: Some(Cause::ComputeLost), ..Ending::default() };
    let again = Move::Requeue { ending, delay: chrono::TimeDelta::zero() };
    let written = app.storage.move_run(&first.lease, Status::Running, &again, app.clock.now()).await;
    assert_eq!(written.expect("asked"), Written::Done);
    let second = app.admit().await;
    app.start(&second).await;
    app.storage.record_log(&second.lease, 2, LOG, 4, true).await.expect("recorded");
    app.artifacts.put_log_segment(second.run.id, 2, LOG, 0, b"two\n".to_vec().into()).await.expect("stored");
    app.complete(&second).await;
    let follow = |path: String, last: &'static str| {
        let headers = [("accept", "text/event-stream"), ("last-event-id", last)];
        let app = &app;
        async move { app.with_headers("GET", &path, &headers, Body::empty()).await }
    };
    let rest = "id: 2-0\nevent: attempt\ndata: 2\n\nid: 2-4\nevent: log\ndata: two\ndata: \n\n\
                id: 2-4\nevent: end\ndata: Completed\n\n";
    assert_eq!(
        follow(log.clone(), "1-0").await.text(),
        format!("id: 1-4\nevent: log\ndata: one\ndata: \n\n{rest}")
    );
    assert_eq!(follow(log.clone(), "1-4").await.text(), rest);
    // Who asks for one attempt gets that one; who asks for none, the latest.
    let one = follow(format!("{log}?attempt=1"), "").await.text();
    assert_eq!(one, "id: 1-4\nevent: log\ndata: one\ndata: \n\nid: 1-4\nevent: end\ndata: Completed\n\n");
    assert!(follow(log.clone(), "").await.text().starts_with("id: 2-4\nevent: log\ndata: two\n"));
    follow(log.clone(), "1-5").await.problem(416, "range-not-satisfiable");
    for nonsense in ["x", "1-", "-1", "0-3", "1-2-3", "9223372036854775808"] {
        follow(log.clone(), nonsense).await.problem(400, "malformed-request");
    }
    app.get(&format!("{log}?follow=true&offset=5")).await.problem(416, "range-not-satisfiable");

    let events = log.replace(&format!("/logs/{LOG}"), "/events");
    let told = follow(events.clone(), "").await.text();
    assert!(told.ends_with("event: end\ndata: Completed\n\n"), "{told}");
    let last = told.lines().rev().find_map(|line| line.strip_prefix("id: ")).expect("an id").to_owned();
    let headers = [("accept", "text/event-stream"), ("last-event-id", last.as_str())];
    let nothing_new = app.with_headers("GET", &events, &headers, Body::empty()).await.text();
    assert_eq!(nothing_new, format!("id: {last}\nevent: end\ndata: Completed\n\n"));
}
