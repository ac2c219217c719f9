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
    answer.problem(401, "unauthorized");
    let answer = closed.with_headers("GET", "/v1/runs", &ASKED[..1], Body::empty()).await;
    assert_eq!((answer.status.as_u16(), answer.header("access-control-allow-origin")), (401, ""));
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

/// Where everybody is let in: not what a page of somebody else's sends from a browser on this machine, nor one whose name was made to
/// lead here.
#[sqlx::test(migrator = "MIGRATOR")]
async fn a_page_of_somebody_elses_is_not_everybody(pool: PgPool) {
    let app = TestApp::new(pool);
    let own = [
        ("host", "localhost:8080"),
        ("origin", "http://localhost:8080"),
        ("content-type", "application/json"),
    ];
    let made =
        app.with_headers("POST", "/v1/tokens", &own, Body::from(r#"{"name": "own", "scope": "read"}"#)).await;
    assert_eq!(made.status, 201, "{}", made.text());
    for foreign in [
        [("host", "localhost:8080"), ("origin", "http://evil.example")],
        [("host", "localhost:8080"), ("sec-fetch-site", "cross-site")],
        [("host", "evil.example:8080"), ("origin", "http://evil.example:8080")],
        [("host", "evil.example:8080"), ("sec-fetch-site", "same-origin")],
    ] {
        let headers = [foreign[0], foreign[1], ("content-type", "application/json")];
        let body = Body::from(r#"{"name": "stolen", "scope": "admin"}"#);
        let problem =
            app.with_headers("POST", "/v1/tokens", &headers, body).await.problem(401, "unauthorized");
        assert!(
            problem["detail"].as_str().expect("text").contains("evil.example")
                || foreign[1].1 == "cross-site",
            "{problem}"
        );
    }
    let rebound = [("host", "evil.example:8080")];
    app.with_headers("GET", "/v1/caller", &rebound, Body::empty()).await.problem(401, "unauthorized");
    let tokens = app.get("/v1/tokens").await.ok(200);
    assert_eq!(tokens["items"].as_array().map(Vec::len), Some(1), "{tokens}");
    // What is everybody's is so for them, too.
    assert_eq!(app.with_headers("GET", "/healthz", &rebound, Body::empty()).await.status, 200);
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
