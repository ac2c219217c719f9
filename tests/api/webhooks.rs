//! Webhooks: as they are put and shown, and as a receiver sees them.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use estimatord::{
    api::ApiSettings,
    clock::SystemClock,
    domain::{
        secret::Secret,
        webhook::{allow_list::AllowList, signature},
    },
    storage::MIGRATOR,
    vault::Vault,
    webhooks::Dispatcher,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::app::{Answer, TestApp};

type Received = (HeaderMap, String);

/// Somebody who is told.
#[derive(Clone, Default)]
struct Receiver {
    received: Arc<Mutex<Vec<Received>>>,
    /// What it answers; 204 when there is nothing more in it.
    answers: Arc<Mutex<VecDeque<u16>>>,
}

impl Receiver {
    async fn hears(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        let body = String::from_utf8(body.to_vec()).expect("UTF-8");
        this.received.lock().expect("nobody panicked").push((headers, body));
        let code = this.answers.lock().expect("nobody panicked").pop_front().unwrap_or(204);
        StatusCode::from_u16(code).expect("a status")
    }

    /// Its port.
    async fn start(&self) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let router = Router::new().route("/hook", post(Self::hears)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    fn received(&self) -> Vec<Received> {
        self.received.lock().expect("nobody panicked").clone()
    }
}

fn allowing(entries: &[&str]) -> AllowList {
    AllowList::new(entries.iter().map(|text| text.parse().expect("an entry")).collect())
}

fn app(pool: PgPool, entries: &[&str]) -> TestApp {
    let webhook_receivers = allowing(entries);
    TestApp::changed(pool, |settings| ApiSettings { webhook_receivers, ..settings })
}

/// A sender, as a replica has one.
struct Sender {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Sender {
    fn start(app: &TestApp, entries: &[&str]) -> Self {
        let stop = CancellationToken::new();
        let dispatcher = Dispatcher::new(
            app.storage.clone(),
            Vault::new([7; 32]),
            Arc::new(SystemClock),
            allowing(entries),
            app.figures.clone(),
            stop.clone(),
        );
        Self { stop, task: tokio::spawn(dispatcher.expect("a client").run()) }
    }

    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("no panic");
    }
}

async fn put(app: &TestApp, name: &str, body: &Value) -> Answer {
    app.put(&format!("/v1/webhooks/{name}"), body).await
}

/// The deliveries of a webhook, as soon as they are as wanted.
async fn deliveries(app: &TestApp, name: &str, wanted: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    let path = format!("/v1/webhooks/{name}/deliveries");
    let looking = async {
        loop {
            let page = app.get(&path).await.ok(200);
            let items = page["items"].as_array().expect("items").clone();
            if wanted(&items) {
                return items;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), looking).await {
        Ok(items) => items,
        Err(_) => panic!("never: {}", app.get(&path).await.text()),
    }
}

fn all_are(items: &[Value], count: usize, status: &str) -> bool {
    items.len() == count && items.iter().all(|item| item["status"] == status)
}

#[track_caller]
fn assert_signed(received: &Received, secrets: &[&str]) {
    let (headers, body) = received;
    let header = |name: &str| headers[name].to_str().expect("a text");
    let timestamp = header("webhook-timestamp").parse().expect("seconds");
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new((*secret).to_owned())).collect();
    assert_eq!(header("webhook-signature"), signature::sign(&secrets, header("webhook-id"), timestamp, body));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_webhook_is_made_shown_changed_and_deleted(pool: PgPool) {
    let app = app(pool, &["hooks.example.com"]);
    let body = json!({"url": "https://hooks.example.com/x", "statuses": ["Completed", "Completed"]});
    let made = put(&app, "ci", &body).await;
    assert_eq!((made.header("location"), made.status.as_u16()), ("/v1/webhooks/ci", 201));
    let tag = made.header("etag").to_owned();
    let secret = made.json()["secret"].as_str().expect("a secret").to_owned();
    assert!(secret.starts_with("whsec_"));
    let shown = app.get("/v1/webhooks/ci").await;
    assert_eq!(shown.header("etag"), tag);
    let shown = shown.ok(200);
    assert_eq!((&shown["secret"], &shown["statuses"]), (&Value::Null, &json!(["Completed"])));
    let held = [("if-none-match", tag.as_str())];
    assert_eq!(app.with_headers("GET", "/v1/webhooks/ci", &held, Body::empty()).await.status, 304);

    let changed = put(&app, "ci", &json!({"url": "https://hooks.example.com/y", "enabled": false})).await;
    assert_eq!(changed.status, 200);
    assert_eq!((&changed.json()["secret"], &changed.json()["enabled"]), (&Value::Null, &json!(false)));
    let rotated = app.post("/v1/webhooks/ci/rotate-secret", &json!({})).await.ok(200);
    assert!(rotated["secret"].as_str().is_some_and(|new| new != secret));
    assert_eq!(rotated["previous_secret_until"], "2026-11-24T12:00:00Z");
    put(&app, "ab", &json!({"url": "https://hooks.example.com/"})).await.ok(201);
    let list = app.get("/v1/webhooks").await.ok(200);
    let names: Vec<_> = list["items"].as_array().expect("items").iter().map(|item| &item["name"]).collect();
    assert_eq!(names, ["ab", "ci"]);
    assert!(!list.to_string().contains("whsec_"));

    let stale = [("if-match", tag.as_str())];
    app.with_headers("DELETE", "/v1/webhooks/ci", &stale, Body::empty())
        .await
        .problem(412, "precondition-failed");
    assert_eq!(app.delete("/v1/webhooks/ci").await.status, 204);
    for path in ["/v1/webhooks/ci", "/v1/webhooks/ci/deliveries"] {
        app.get(path).await.problem(404, "not-found");
    }
    app.delete("/v1/webhooks/ci").await.problem(404, "not-found");
    app.post("/v1/webhooks/ci/rotate-secret", &json!({})).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_cannot_be_told_is_refused_with_everything_that_is_wrong(pool: PgPool) {
    let app = app(pool.clone(), &["hooks.example.com"]);
    let body = json!({"url": "http://169.254.169.254/latest", "statuses": ["Done", 1], "enabled": "yes", "secret": "x"});
    let refused = put(&app, "ci", &body).await;
    let mut pointers: Vec<_> = refused.errors().into_iter().map(|(_, pointer)| pointer).collect();
    pointers.sort();
    assert_eq!(pointers, ["/enabled", "/secret", "/statuses/0", "/statuses/1", "/url"]);
    refused.problem(422, "invalid-webhook");
    put(&app, "ci", &json!({})).await.problem(422, "invalid-webhook");
    app.get("/v1/webhooks/ci").await.problem(404, "not-found");
    app.get("/v1/webhooks/ci/deliveries?status=lost").await.problem(400, "malformed-request");
    let keyless = TestApp::changed(pool, |settings| ApiSettings {
        vault: None,
        webhook_receivers: allowing(&["hooks.example.com"]),
        ..settings
    });
    let refused = put(&keyless, "ci", &json!({"url": "https://hooks.example.com/"})).await;
    assert_eq!(refused.errors()[0].0, "secret-key-missing");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_receiver_is_told_of_what_it_asked_for_and_nothing_else(pool: PgPool) {
    let receiver = Receiver::default();
    let entry = format!("http://127.0.0.1:{}", receiver.start().await);
    let app = app(pool, &[&entry]);
    let body = json!({"url": format!("{entry}/hook"), "statuses": ["Queued", "Completed"], "experiment_name": "mine"});
    let secret = put(&app, "ci", &body).await.ok(201)["secret"].as_str().expect("a secret").to_owned();
    put(&app, "off", &json!({"url": format!("{entry}/hook"), "enabled": false})).await.ok(201);
    app.run("other").await;
    let other = app.admit().await;
    app.start(&other).await;
    let run = app.run("mine").await;
    let claimed = app.admit().await;
    app.start(&claimed).await;
    app.complete(&claimed).await;

    let sender = Sender::start(&app, &[&entry]);
    let items = deliveries(&app, "ci", |items| all_are(items, 2, "delivered")).await;
    sender.end().await;
    let attempt = &items[0]["attempts"][0];
    assert_eq!((&attempt["number"], &attempt["status_code"]), (&json!(1), &json!(204)));
    let mut received = receiver.received();
    assert_eq!(received.len(), 2);
    received.sort_by_key(|(_, body)| body.contains("Completed"));
    for (one, status) in received.iter().zip(["Queued", "Completed"]) {
        assert_signed(one, &[&secret]);
        let message: Value = serde_json::from_str(&one.1).expect("JSON");
        assert_eq!(
            (&message["type"], &message["data"]["status"]),
            (&json!("run.status_changed"), &json!(status))
        );
        assert_eq!(
            (&message["data"]["run_id"], &message["data"]["experiment_name"]),
            (&run["id"], &json!("mine"))
        );
        assert_eq!(one.0["content-type"], "application/json");
    }
    assert!(items.iter().any(|item| item["id"] == received[0].0["webhook-id"].to_str().expect("a text")));
    assert!(deliveries(&app, "off", |_| true).await.is_empty());
}

/// Makes what is due later due now.
async fn hurry(app: &TestApp) {
    sqlx::query("UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'pending'")
        .execute(&app.pool)
        .await
        .expect("hurried");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_not_taken_is_sent_again_and_a_message_can_be_replayed(pool: PgPool) {
    let receiver = Receiver::default();
    receiver.answers.lock().expect("nobody panicked").extend([500, 302, 204]);
    let entry = format!("http://127.0.0.1:{}", receiver.start().await);
    let app = app(pool, &[&entry]);
    let body = json!({"url": format!("{entry}/hook"), "statuses": ["Queued"]});
    let old = put(&app, "ci", &body).await.ok(201)["secret"].as_str().expect("a secret").to_owned();
    app.run("e").await;
    // One that died after it took the message: whoever comes next sends it.
    let taken = app.storage.claim_deliveries(8, &[], Duration::from_secs(60)).await.expect("claimed");
    assert_eq!(taken.len(), 1);
    assert!(app.storage.claim_deliveries(8, &[], Duration::from_secs(60)).await.expect("claimed").is_empty());
    hurry(&app).await;

    let sender = Sender::start(&app, &[&entry]);
    for tried in 1..=2 {
        deliveries(&app, "ci", |items| items[0]["attempts"].as_array().is_some_and(|all| all.len() == tried))
            .await;
        hurry(&app).await;
    }
    let items = deliveries(&app, "ci", |items| all_are(items, 1, "delivered")).await;
    let codes: Vec<_> = items[0]["attempts"]
        .as_array()
        .expect("attempts")
        .iter()
        .map(|attempt| (attempt["number"].clone(), attempt["status_code"].clone()))
        .collect();
    assert_eq!(codes, [(json!(2), json!(500)), (json!(3), json!(302)), (json!(4), json!(204))]);

    let new = app.post("/v1/webhooks/ci/rotate-secret", &json!({})).await.ok(200);
    // The clock of the test stands still; until when the old one counts is looked up by the database's.
    sqlx::query("UPDATE webhooks SET previous_until = now() + interval '1 hour'")
        .execute(&app.pool)
        .await
        .expect("set");
    let id = items[0]["id"].as_str().expect("an id");
    let replay = format!("/v1/webhooks/ci/deliveries/{id}/replay");
    assert_eq!(app.post(&replay, &json!({})).await.ok(202)["status"], "pending");
    deliveries(&app, "ci", |items| {
        all_are(items, 1, "delivered") && items[0]["attempts"].as_array().is_some_and(|all| all.len() == 4)
    })
    .await;
    sender.end().await;
    let received = receiver.received();
    assert_eq!(received.len(), 4);
    assert!(
        received
            .iter()
            .all(|one| one.0["webhook-id"] == received[0].0["webhook-id"] && one.1 == received[0].1)
    );
    assert_signed(&received[2], &[&old]);
    assert_signed(&received[3], &[new["secret"].as_str().expect("a secret"), &old]);
    let unknown = "/v1/webhooks/ci/deliveries/01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10/replay";
    app.post(unknown, &json!({})).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_message_goes_on_in_the_trace_of_the_request_that_the_run_came_by(pool: PgPool) {
    let receiver = Receiver::default();
    let entry = format!("http://127.0.0.1:{}", receiver.start().await);
    let app = app(pool, &[&entry]);
    put(&app, "ci", &json!({"url": format!("{entry}/hook")})).await.ok(201);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for given in [trace, "nonsense"] {
        let body = json!({"experiment_name": "e", "estimator": app.definition().await}).to_string();
        let headers = [("content-type", "application/json"), ("traceparent", given)];
        app.with_headers("POST", "/v1/runs", &headers, Body::from(body)).await.ok(201);
    }
    let sender = Sender::start(&app, &[&entry]);
    deliveries(&app, "ci", |items| all_are(items, 2, "delivered")).await;
    sender.end().await;
    let received = receiver.received();
    let mut traces: Vec<_> = received.iter().map(|(headers, _)| headers.get("traceparent")).collect();
    traces.sort();
    assert_eq!(traces.len(), 2);
    assert_eq!(traces[0], None, "what is no traceparent leads nowhere");
    assert_eq!(traces[1].expect("there"), trace);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn who_answers_gone_is_told_nothing_any_more(pool: PgPool) {
    let receiver = Receiver::default();
    receiver.answers.lock().expect("nobody panicked").push_back(410);
    let entry = format!("http://127.0.0.1:{}", receiver.start().await);
    let app = app(pool, &[&entry]);
    put(&app, "ci", &json!({"url": format!("{entry}/hook")})).await.ok(201);
    app.run("e").await;
    let sender = Sender::start(&app, &[&entry]);
    deliveries(&app, "ci", |items| all_are(items, 1, "failed")).await;
    sender.end().await;
    let webhook = app.get("/v1/webhooks/ci").await.ok(200);
    assert_eq!(webhook["enabled"], false);
    assert_eq!(webhook["disabled_reason"], "the receiver answered 410 (Gone)");
    app.run("e").await;
    assert_eq!(deliveries(&app, "ci", |_| true).await.len(), 1);
}

/// A name that is listed may still lead inside: to where nothing is listed, nothing is sent.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_name_that_leads_inside_is_not_followed(pool: PgPool) {
    let receiver = Receiver::default();
    let port = receiver.start().await;
    let entry = format!("http://localhost:{port}");
    let app = app(pool, &[&entry]);
    put(&app, "ci", &json!({"url": format!("{entry}/hook"), "statuses": ["Queued"]})).await.ok(201);
    app.run("e").await;
    let sender = Sender::start(&app, &[&entry]);
    let tried = |items: &[Value]| !items[0]["attempts"][0].is_null();
    let items = deliveries(&app, "ci", tried).await;
    sender.end().await;
    let error = items[0]["attempts"][0]["error"].as_str().expect("an error");
    assert!(
        error.contains("`localhost` leads to no address")
            && !error.contains("127.0.0.1")
            && error.contains("--webhook-allow"),
        "{error}"
    );
    assert!(receiver.received().is_empty());

    // With the network listed, it is.
    let entries = [entry.as_str(), "127.0.0.0/8", "::1/128"];
    hurry(&app).await;
    let sender = Sender::start(&app, &entries);
    deliveries(&app, "ci", |items| all_are(items, 1, "delivered")).await;
    sender.end().await;
    assert_eq!(receiver.received().len(), 1);

    // And where the list does not have the receiver any more, nothing is sent either.
    app.run("e").await;
    let sender = Sender::start(&app, &["hooks.example.com"]);
    let items = deliveries(&app, "ci", |items| items.len() == 2 && tried(items)).await;
    sender.end().await;
    let error = items[0]["attempts"][0]["error"].as_str().expect("an error");
    assert!(error.contains("is not on the operator's list"), "{error}");
    assert_eq!(receiver.received().len(), 1);
}

/// One that reads and says nothing takes its own few places, and no others.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_receiver_that_hangs_holds_no_other_up(pool: PgPool) {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let hangs = format!("http://127.0.0.1:{}", silent.local_addr().expect("an address").port());
    let receiver = Receiver::default();
    let answers = format!("http://127.0.0.1:{}", receiver.start().await);
    let entries = [hangs.as_str(), answers.as_str()];
    let app = app(pool, &entries);
    for name in ["a", "b", "c"] {
        put(&app, name, &json!({"url": format!("{hangs}/hook")})).await.ok(201);
    }
    for _ in 0..20 {
        app.run("e").await;
    }
    let sender = Sender::start(&app, &entries);
    put(&app, "good", &json!({"url": format!("{answers}/hook")})).await.ok(201);
    for _ in 0..3 {
        app.run("e").await;
    }
    // Long before any of those that hang is given up.
    let started = std::time::Instant::now();
    deliveries(&app, "good", |items| all_are(items, 3, "delivered")).await;
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    sender.end().await;
    assert!(deliveries(&app, "a", |_| true).await.iter().all(|item| item["status"] == "pending"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_secret_that_receivers_know_counts_although_it_was_rotated_twice(pool: PgPool) {
    let receiver = Receiver::default();
    let entry = format!("http://127.0.0.1:{}", receiver.start().await);
    let app = app(pool, &[&entry]);
    let body = json!({"url": format!("{entry}/hook"), "statuses": ["Queued"]});
    let secret = |answer: Value| answer["secret"].as_str().expect("a secret").to_owned();
    let mut secrets = vec![secret(put(&app, "ci", &body).await.ok(201))];
    for _ in 0..2 {
        secrets.push(secret(app.post("/v1/webhooks/ci/rotate-secret", &json!({})).await.ok(200)));
        sqlx::query("UPDATE webhooks SET previous_until = now() + interval '1 day'")
            .execute(&app.pool)
            .await
            .expect("set");
    }
    app.run("e").await;
    let sender = Sender::start(&app, &[&entry]);
    let items = deliveries(&app, "ci", |items| all_are(items, 1, "delivered")).await;
    sender.end().await;
    let [first, lost, present] = &secrets[..] else { panic!("three of them") };
    assert_signed(&receiver.received()[0], &[present, first, lost]);

    // What is disabled sends nothing, and says so.
    put(&app, "ci", &json!({"url": format!("{entry}/hook"), "enabled": false})).await.ok(200);
    let replay = format!("/v1/webhooks/ci/deliveries/{}/replay", items[0]["id"].as_str().expect("an id"));
    app.post(&replay, &json!({})).await.problem(409, "conflict");
}
