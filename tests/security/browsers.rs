//! What pages in a browser may do with the service: nothing, unless the operator names their origin.

use axum::body::Body;
use estimatord::{api::ApiSettings, storage::MIGRATOR};
use sqlx::PgPool;

use crate::app::{TestApp, callers};

const ASKED: [(&str, &str); 3] = [
    ("origin", "https://portal.example.com"),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "authorization,content-type"),
];

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_origin_may_ask_until_it_is_named(pool: PgPool) {
    let closed = TestApp::new(pool.clone());
    let answer = closed.with_headers("OPTIONS", "/v1/runs", &ASKED, Body::empty()).await;
    answer.problem(405, "method-not-allowed");
    let answer = closed.with_headers("GET", "/v1/runs", &ASKED[..1], Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (200, ""));
    let open = TestApp::changed(pool, |settings| ApiSettings {
        access: callers("a-token-of-the-file"),
        cors_origins: vec!["https://portal.example.com".parse().expect("a header")],
        ..settings
    });
    let answer = open.with_headers("OPTIONS", "/v1/runs", &ASKED, Body::empty()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), "https://portal.example.com");
    assert_eq!(answer.header("access-control-allow-credentials"), "");
    let other = [("origin", "https://evil.example"), ASKED[1], ASKED[2]];
    let answer = open.with_headers("OPTIONS", "/v1/runs", &other, Body::empty()).await;
    assert_eq!(answer.header("access-control-allow-origin"), "");
    // It lets nobody in who shows no token.
    let answer = open.with_headers("GET", "/v1/runs", &ASKED[..1], Body::empty()).await;
    answer.problem(401, "unauthorized");
    assert_eq!(answer.header("access-control-allow-origin"), "https://portal.example.com");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_answer_tells_browsers_to_trust_nothing(pool: PgPool) {
    let app = TestApp::new(pool);
    for path in ["/docs/", "/v1/runs", "/openapi.json", "/nothing", "/problems/not-found"] {
        let answer = app.get(path).await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert!(
            !policy.contains("script-src 'unsafe") && !policy.contains("unsafe-eval"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{path}");
    }
}
