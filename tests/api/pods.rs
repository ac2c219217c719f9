//! What the pods of an attempt fetch and send, and who is let in.

use std::io::Write as _;

use axum::body::{Body, Bytes};
use estimatord::{
    api::ApiSettings,
    artifacts::Limits,
    domain::run::Status,
    storage::{MIGRATOR, leases::Claimed},
    vault::Vault,
};
use futures_util::stream;
use sqlx::PgPool;

use crate::app::{Answer, TestApp};

/// The vault of [`TestApp`].
fn token(claimed: &Claimed, attempt: u32) -> String {
    let token = Vault::new([7; 32]).attempt_token(claimed.run.id, attempt);
    format!("Bearer {}", token.expose())
}

fn path(claimed: &Claimed, rest: &str) -> String {
    format!("/v1/runs/{}/attempts/1/{rest}", claimed.run.id)
}

async fn put(app: &TestApp, claimed: &Claimed, rest: &str, body: impl Into<Body>) -> Answer {
    let token = token(claimed, 1);
    let headers = [("authorization", token.as_str()), ("content-type", "application/x-tar")];
    app.with_headers("PUT", &path(claimed, rest), &headers, body.into()).await
}

async fn get(app: &TestApp, path: &str, token: &str) -> Answer {
    app.with_headers("GET", path, &[("authorization", token)], Body::empty()).await
}

/// A run that a worker has, with its bundle packed.
async fn packed(app: &TestApp) -> Claimed {
    app.run("e").await;
    let claimed = app.admit().await;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"a tar").unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    app.artifacts.put_bundle(claimed.run.id, 1, file).await.unwrap();
    claimed
}

async fn kept(app: &TestApp, claimed: &Claimed) -> Vec<(String, bool, u64)> {
    let all = app.artifacts.list_returned(claimed.run.id, 1).await.unwrap();
    all.into_iter().map(|one| (one.part.as_str().to_owned(), one.is_final, one.bytes)).collect()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_pod_fetches_its_bundle_and_sends_back_what_was_written(pool: PgPool) {
    let app = TestApp::new(pool);
    let claimed = packed(&app).await;
    let answer = get(&app, &path(&claimed, "bundle"), &token(&claimed, 1)).await;
    assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, "a tar"));
    assert_eq!((answer.header("content-type"), answer.header("content-length")), ("application/x-tar", "5"));
    assert_eq!(put(&app, &claimed, "returned/pod-0", "so far").await.status, 204);
    assert_eq!(put(&app, &claimed, "returned/pod-1?final=false", "more").await.status, 204);
    assert_eq!(kept(&app, &claimed).await, [("pod-0".into(), false, 6), ("pod-1".into(), false, 4)]);
    assert_eq!(put(&app, &claimed, "returned/pod-0?final=true", "everything").await.status, 204);
    // It was on its way for longer.
    assert_eq!(put(&app, &claimed, "returned/pod-0", "late").await.status, 204);
    assert_eq!(kept(&app, &claimed).await, [("pod-0".into(), true, 10), ("pod-1".into(), false, 4)]);
    app.artifacts.delete_exchange(claimed.run.id, 1).await.unwrap();
    assert_eq!(kept(&app, &claimed).await, []);
    get(&app, &path(&claimed, "bundle"), &token(&claimed, 1)).await.problem(404, "not-found");
}

/// While the secret key is changed: pods have the token that they were started with.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_token_of_the_key_before_opens_as_long_as_that_key_is_known(pool: PgPool) {
    let new = Vault::new([8; 32]);
    for (vault, expected) in [(new.clone().opening_also([Vault::new([7; 32])]), 200), (new, 401)] {
        let app = TestApp::changed(pool.clone(), |settings| ApiSettings { vault: Some(vault), ..settings });
        let claimed = packed(&app).await;
        let answer = get(&app, &path(&claimed, "bundle"), &token(&claimed, 1)).await;
        assert_eq!(answer.status.as_u16(), expected);
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_token_opens_what_is_its_attempts_and_nothing_else(pool: PgPool) {
    let app = TestApp::with(pool, Some("the-token-of-the-operator"), Limits::default());
    let operators = "Bearer the-token-of-the-operator";
    let snapshot = {
        let headers = [("authorization", operators), ("content-type", "application/x-tar")];
        let body = Body::from(crate::app::tar(&[("train.py", "")]));
        app.with_headers("POST", "/v1/snapshots", &headers, body).await.json()["id"].clone()
    };
    let body = serde_json::json!({"experiment_name": "e", "estimator": {"source_directory": snapshot,
        "compute_target": "local", "entry_script": "train.py", "framework_version": "7.0.0", "use_docker": false}});
    let headers = [("authorization", operators), ("content-type", "application/json")];
    app.with_headers("POST", "/v1/runs", &headers, Body::from(body.to_string())).await.ok(201);
    let claimed = app.admit().await;
    let bundle = path(&claimed, "bundle");
    let mine = token(&claimed, 1);
    get(&app, &bundle, &mine).await.problem(404, "not-found");
    let other_key = format!("Bearer {}", Vault::new([8; 32]).attempt_token(claimed.run.id, 1).expose());
    for stranger in
        [&token(&claimed, 2), operators, "Bearer ", "", &other_key, &mine.replace("Bearer ", "Basic ")]
    {
        get(&app, &bundle, stranger).await.problem(401, "unauthorized");
    }
    let script = format!("Bearer {}", Vault::new([7; 32]).script_token(claimed.run.id, 1).expose());
    get(&app, &bundle, &script).await.problem(401, "unauthorized");
    for elsewhere in [&*format!("/v1/runs/{}", claimed.run.id), "/v1/runs", "/v1/compute-targets", "/metrics"]
    {
        get(&app, elsewhere, &mine).await.problem(401, "unauthorized");
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_run_that_is_over_or_further_takes_nothing(pool: PgPool) {
    let app = TestApp::new(pool);
    let claimed = packed(&app).await;
    let later = path(&claimed, "bundle").replace("attempts/1", "attempts/2");
    get(&app, &later, &token(&claimed, 2)).await.problem(409, "conflict");
    app.start(&claimed).await;
    app.complete(&claimed).await;
    let problem = get(&app, &path(&claimed, "bundle"), &token(&claimed, 1)).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().unwrap().contains(Status::Completed.as_str()), "{problem}");
    put(&app, &claimed, "returned/pod?final=true", "x").await.problem(409, "conflict");
    assert_eq!(kept(&app, &claimed).await, []);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn an_upload_that_breaks_off_leaves_what_was_there(pool: PgPool) {
    let app = TestApp::new(pool);
    let claimed = packed(&app).await;
    assert_eq!(put(&app, &claimed, "returned/pod?final=true", "whole").await.status, 204);
    let broken = stream::iter([
        Ok(Bytes::from_static(b"half of it")),
        Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "gone")),
    ]);
    put(&app, &claimed, "returned/pod?final=true", Body::from_stream(broken))
        .await
        .problem(400, "malformed-request");
    assert_eq!(kept(&app, &claimed).await, [("pod".into(), true, 5)]);
    put(&app, &claimed, "returned/Pod", "x").await.problem(400, "malformed-request");
    put(&app, &claimed, "returned/pod?final=perhaps", "x").await.problem(400, "malformed-request");
    let token = token(&claimed, 1);
    let headers = [("authorization", token.as_str()), ("content-type", "text/plain")];
    let answer = app.with_headers("PUT", &path(&claimed, "returned/pod"), &headers, Body::from("x")).await;
    answer.problem(415, "unsupported-media-type");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_sent_while_the_script_runs_has_a_limit(pool: PgPool) {
    let app = TestApp::new(pool);
    let claimed = packed(&app).await;
    let piece = Bytes::from(vec![0; 1 << 20]);
    let large = stream::iter((0..257).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    put(&app, &claimed, "returned/pod", Body::from_stream(large)).await.problem(413, "body-too-large");
    assert_eq!(kept(&app, &claimed).await, []);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn without_the_key_nobody_is_let_in(pool: PgPool) {
    let app = TestApp::without_vault(pool);
    let claimed = packed(&app).await;
    get(&app, &path(&claimed, "bundle"), &token(&claimed, 1)).await.problem(500, "internal");
}
