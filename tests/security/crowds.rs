//! One caller must not keep the others out: neither by sending slowly, nor by guessing tokens, nor by what it says of where it is.

use std::{iter, net::SocketAddr, num::NonZeroU32};

use axum::{
    body::{Body, Bytes},
    extract::ConnectInfo,
    http::Request,
};
use estimatord::{
    api::ApiSettings,
    domain::{api_token, forwarded::TrustedProxies},
    storage::MIGRATOR,
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::app::{Answer, TestApp, callers};

const TOKENS: &str = "alice a-token-of-alice submit\nbob a-token-of-bob-too read\na-token-without-a-name";

async fn ask(app: &TestApp, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    app.with_headers("GET", "/v1/caller", &[("authorization", &authorization)], Body::empty()).await
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn whoever_sends_slowly_keeps_nobody_else_out(pool: PgPool) {
    let app = TestApp::changed(pool, |settings| ApiSettings { access: callers(TOKENS), ..settings });
    let (begun, mut begins) = mpsc::unbounded_channel();
    let gone = CancellationToken::new();
    let upload = || {
        let (begun, gone) = (begun.clone(), gone.clone());
        // It has begun to be read, and goes on until the connection is gone.
        let first = stream::once(async move {
            begun.send(()).expect("somebody counts");
            Ok::<_, std::io::Error>(Bytes::from_static(b"x"))
        });
        let request = Request::post("/v1/snapshots")
            .header("authorization", "Bearer a-token-of-alice")
            .header("content-type", "application/x-tar")
            .body(Body::from_stream(first.chain(stream::once(async move {
                gone.cancelled().await;
                Err(std::io::Error::other("the connection is gone"))
            }))))
            .expect("a request");
        let router = app.router.clone();
        tokio::spawn(async move { router.oneshot(request).await.expect("never fails").status() })
    };
    let uploads: Vec<_> = iter::repeat_with(upload).take(256).collect();
    for _ in &uploads {
        begins.recv().await.expect("it is being read");
    }
    let refused = ask(&app, "a-token-of-alice").await;
    let problem = refused.problem(429, "rate-limited");
    assert!(problem["detail"].as_str().expect("a text").contains("256 requests of this caller"), "{problem}");
    assert_eq!(refused.header("retry-after"), "1");
    ask(&app, "a-token-of-bob-too").await.ok(200);
    gone.cancel();
    for upload in uploads {
        let status = upload.await.expect("it ends");
        assert!(status.is_client_error(), "{status}");
    }
    ask(&app, "a-token-of-alice").await.ok(200);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn whoever_guesses_tokens_keeps_no_good_one_out(pool: PgPool) {
    let app = TestApp::changed(pool, |settings| ApiSettings {
        access: callers(TOKENS),
        max_requests_per_minute: NonZeroU32::new(10).expect("not 0"),
        ..settings
    });
    let root = [("authorization", "Bearer a-token-without-a-name"), ("content-type", "application/json")];
    let make = async |name: &str| -> Value {
        let body = json!({"name": name, "scope": "read"}).to_string();
        app.with_headers("POST", "/v1/tokens", &root, Body::from(body)).await.ok(201)
    };
    let (good, other) = (make("good").await, make("other").await);
    let mut answers = Vec::new();
    for guess in 0..20 {
        let made_up = api_token::generate([guess; 32]);
        answers.push(ask(&app, made_up.expose()).await.status.as_u16());
    }
    assert_eq!((answers[0], answers[19]), (401, 429), "{answers:?}");
    let token = good["token"].as_str().expect("a token");
    assert_eq!(ask(&app, token).await.ok(200)["name"], "good");
    // One that has no name is somebody, all the same.
    ask(&app, "a-token-without-a-name").await.ok(200);
    let path = format!("/v1/tokens/{}", other["id"].as_str().expect("an id"));
    app.with_headers("DELETE", &path, &root, Body::empty()).await.ok(200);
    ask(&app, token).await.ok(200);
    ask(&app, other["token"].as_str().expect("a token")).await.problem(429, "rate-limited");
}

/// Sends a request that stands in the trail, from an address and with what it says of itself.
async fn delete_from(app: &TestApp, peer: &str, headers: &[(&str, &str)], token: &str) -> u16 {
    let mut request = Request::delete("/v1/webhooks/none").header("authorization", format!("Bearer {token}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut request = request.body(Body::empty()).expect("a request");
    let peer: SocketAddr = peer.parse().expect("an address");
    request.extensions_mut().insert(ConnectInfo(peer));
    app.router.clone().oneshot(request).await.expect("never fails").status().as_u16()
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn only_trusted_proxies_say_where_a_request_came_from(pool: PgPool) {
    let app = TestApp::changed(pool, |settings| ApiSettings {
        access: callers(TOKENS),
        max_requests_per_minute: NonZeroU32::new(12).expect("not 0"),
        trusted_proxies: TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().expect("a network")],
            ..Default::default()
        },
        ..settings
    });
    let root = "a-token-without-a-name";
    for (peer, headers, from) in [
        ("192.0.2.1:1", &[("x-forwarded-for", "198.51.100.7")][..], "192.0.2.1"),
        ("10.0.0.1:1", &[("x-forwarded-for", "1.1.1.1, 198.51.100.7")], "198.51.100.7"),
        ("10.0.0.1:1", &[("x-forwarded-for", "198.51.100.7"), ("forwarded", "for=1.1.1.1")], "198.51.100.7"),
        ("10.0.0.1:1", &[("forwarded", "for=1.1.1.1")], "10.0.0.1"),
    ] {
        app.clock.advance(1);
        assert_eq!(delete_from(&app, peer, headers, root).await, 404);
        let header = [("authorization", "Bearer a-token-without-a-name")];
        let trail = app.with_headers("GET", "/v1/audit-events?limit=1", &header, Body::empty()).await.ok(200);
        assert_eq!(trail["items"][0]["address"], from, "{peer} {headers:?}");
    }
    // Each behind the proxy is counted by itself, and whoever is no proxy is counted where it is, whatever it says.
    let knock = async |peer: &str, from: &str| {
        delete_from(&app, peer, &[("x-forwarded-for", from)], "no-token-of-anybody").await
    };
    for at in 0..13 {
        let expected = if at < 12 { 401 } else { 429 };
        assert_eq!(knock("10.0.0.1:1", &format!("203.0.113.{at}, 198.51.100.9")).await, expected);
        assert_eq!(knock("192.0.2.9:1", &format!("203.0.113.{at}")).await, expected);
    }
    assert_eq!(knock("10.0.0.1:1", "198.51.100.10").await, 401);
}
