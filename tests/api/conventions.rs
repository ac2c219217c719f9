//! What holds for every operation: request ids, headers, probes, tokens, documentation, figures.

use std::num::NonZeroU32;

use axum::body::Body;
use estimatord::{api::ApiSettings, artifacts::Limits, storage::MIGRATOR};
use serde_json::json;
use sqlx::PgPool;

use crate::app::{TestApp, callers};

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_sane_request_id_is_echoed_and_any_other_is_replaced(pool: PgPool) {
    let app = TestApp::new(pool);
    let answer = app.with_headers("GET", "/nowhere", &[("x-request-id", "abc-1")], Body::empty()).await;
    assert_eq!(answer.header("x-request-id"), "abc-1");
    assert_eq!(answer.problem(404, "unknown-route")["instance"], "abc-1");

    let long = "x".repeat(129);
    for unfit in ["", "a b", long.as_str()] {
        let answer = app.with_headers("GET", "/healthz", &[("x-request-id", unfit)], Body::empty()).await;
        let id = uuid::Uuid::parse_str(answer.header("x-request-id")).expect("a UUID of ours");
        assert_eq!(id.get_version_num(), 7);
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn answers_carry_security_headers(pool: PgPool) {
    let app = TestApp::new(pool);
    let list = app.get("/v1/runs").await;
    assert_eq!(list.header("x-content-type-options"), "nosniff");
    assert_eq!(list.header("referrer-policy"), "no-referrer");
    assert_eq!(list.header("cache-control"), "no-store");
    assert!(list.header("content-security-policy").contains("default-src 'none'"));
    let one = app.get("/v1/compute-targets/local").await;
    assert_eq!(one.header("cache-control"), "no-cache");
    let docs = app.get("/docs/").await;
    assert!(docs.header("content-security-policy").contains("default-src 'self'"));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_documentation_is_served(pool: PgPool) {
    let app = TestApp::new(pool);
    for path in ["/", "/docs"] {
        let answer = app.get(path).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (303, "docs/"), "{path}");
    }
    let page = app.get("/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let start = app.get("/docs/swagger-initializer.js").await;
    assert!(start.text().contains("../openapi.json"));
    app.get("/docs/nothing.js").await.problem(404, "unknown-route");
    assert_eq!(app.get("/openapi.json").await.ok(200)["openapi"], "3.1.0");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_kind_of_problem_is_explained(pool: PgPool) {
    let app = TestApp::new(pool);
    let answer = app.get("/problems/invalid-json").await.ok(200);
    assert_eq!(answer["status"], json!(400));
    let accept = [("accept", "text/html")];
    let page = app.with_headers("GET", "/problems/invalid-json", &accept, Body::empty()).await;
    assert!(page.text().contains("<h1>"));
    app.get("/problems/nonsense").await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn probes_tell_life_from_readiness(pool: PgPool) {
    let app = TestApp::new(pool);
    app.get("/healthz").await.ok(200);
    app.get("/readyz").await.ok(200);
    app.shutdown.cancel();
    app.get("/healthz").await.ok(200);
    let answer = app.get("/readyz").await;
    answer.problem(503, "shutting-down");
    assert!(!answer.header("retry-after").is_empty());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_database_that_is_away_is_a_503(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("mnist").await;
    app.pool.close().await;
    app.get("/healthz").await.ok(200);
    let path = format!("/v1/runs/{}", run["id"].as_str().expect("an id"));
    for path in ["/readyz", "/v1/runs", path.as_str()] {
        let answer = app.get(path).await;
        answer.problem(503, "database-unavailable");
        assert!(!answer.header("retry-after").is_empty(), "{path}");
    }
    // Then above all somebody wants to see figures.
    let answer = app.get("/metrics").await;
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(text.contains("\nestimatord_database_up 0\n"), "{text}");
    assert!(
        text.contains("\nestimatord_http_requests_total") && !text.contains("\nestimatord_runs{"),
        "{text}"
    );
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_token_is_wanted_where_one_is_set(pool: PgPool) {
    let app = TestApp::with(pool, Some("s3cret-of-16-or-more"), Limits::default());
    for path in ["/v1/runs", "/metrics", "/v1/nowhere"] {
        let answer = app.get(path).await;
        answer.problem(401, "unauthorized");
        assert_eq!(answer.header("www-authenticate"), "Bearer");
    }
    for wrong in ["Bearer other", "Basic s3cret-of-16-or-more", "s3cret-of-16-or-more", "Bearer"] {
        let answer = app.with_headers("GET", "/v1/runs", &[("authorization", wrong)], Body::empty()).await;
        answer.problem(401, "unauthorized");
    }
    let right = [("authorization", "Bearer s3cret-of-16-or-more")];
    app.with_headers("GET", "/v1/runs", &right, Body::empty()).await.ok(200);
    for open in ["/healthz", "/readyz", "/openapi.json"] {
        app.get(open).await.ok(200);
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn figures_count_requests_by_template_and_runs_by_status(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("mnist").await;
    app.get(&format!("/v1/runs/{}", run["id"].as_str().expect("an id"))).await.ok(200);
    let answer = app.get("/metrics").await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    let text = answer.text();
    let line = "estimatord_http_requests_total{method=\"GET\",route=\"/v1/runs/{id}\",status=\"200\"} 1";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("estimatord_runs{status=\"Queued\"} 1"), "{text}");
    assert!(text.contains("estimatord_runs{status=\"Failed\"} 0"), "{text}");
    assert!(text.contains("estimatord_oldest_queued_run_age_seconds"), "{text}");
    assert!(text.contains("estimatord_live_runs{target=\"local\",status=\"Queued\"} 1"), "{text}");
    let age = "estimatord_oldest_live_run_age_seconds{target=\"local\",status=\"Queued\"}";
    assert!(text.contains(age), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn probes_and_figures_can_be_had_without_a_token_and_nothing_else(pool: PgPool) {
    let app = TestApp::with(pool, Some("a-token-of-some-length"), Limits::default());
    app.get("/metrics").await.problem(401, "unauthorized");
    for path in ["/healthz", "/readyz"] {
        app.probe(path).await.ok(200);
    }
    app.figures.dispatched("cluster", false, std::time::Duration::from_secs(2));
    app.figures.ended("one-off-0123abcd", true, "Failed", "script_failed");
    let text = app.probe("/metrics").await.text();
    let bucket = "estimatord_run_dispatch_latency_seconds_bucket{le=\"2.5\",target=\"cluster\"} 1";
    assert!(text.contains(bucket), "{text}");
    let ended = "estimatord_runs_ended_total{target=\"one-off\",status=\"Failed\",cause=\"script_failed\"} 1";
    assert!(text.contains(ended), "{text}");
    for path in ["/v1/runs", "/docs/", "/openapi.json"] {
        app.probe(path).await.problem(404, "unknown-route");
    }
    app.shutdown.cancel();
    app.probe("/readyz").await.problem(503, "shutting-down");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn frameworks_are_shown(pool: PgPool) {
    let app = TestApp::new(pool);
    let list = app.get("/v1/frameworks").await.ok(200);
    assert_eq!(list["items"][0]["name"], "Chainer");
    let one = app.get("/v1/frameworks/chainer").await.ok(200);
    assert_eq!(one["default_version"], "5.1.0");
    app.get("/v1/frameworks/Chainer").await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn rules_are_shown(pool: PgPool) {
    let app = TestApp::new(pool);
    let list = app.get("/v1/rules").await.ok(200);
    let rules = list["items"].as_array().expect("items");
    assert!(rules.iter().any(|rule| rule["rule"] == "distributed-requires-mpi"));
    assert!(!list["disagreements"].as_array().expect("a list").is_empty());
    for rule in rules {
        let path = format!("/v1/rules/{}", rule["rule"].as_str().expect("a name"));
        assert_eq!(app.get(&path).await.ok(200), *rule);
    }
    app.get("/v1/rules/nonsense").await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_caller_who_asks_too_often_is_told_when_to_come_back(pool: PgPool) {
    let access = callers("one 0123456789abcdef\ntwo fedcba9876543210");
    let app = TestApp::changed(pool, |settings| ApiSettings {
        access,
        max_requests_per_minute: NonZeroU32::new(2).expect("not 0"),
        ..settings
    });
    let ask = |token: &'static str, path: &'static str| {
        let headers = [("authorization", token)];
        let app = &app;
        async move { app.with_headers("GET", path, &headers, Body::empty()).await }
    };
    let one = "Bearer 0123456789abcdef";
    let first = ask(one, "/v1/runs").await;
    assert_eq!(first.header("ratelimit-policy"), "\"caller\";q=2;w=60");
    assert_eq!(first.header("ratelimit"), "\"caller\";r=1;t=30");
    let second = ask(one, "/v1/nowhere").await;
    second.problem(404, "unknown-route");
    assert_eq!(second.header("ratelimit"), "\"caller\";r=0;t=60");
    let third = ask(one, "/v1/runs").await;
    third.problem(429, "rate-limited");
    let wait: u64 = third.header("retry-after").parse().expect("seconds");
    assert!((1..=30).contains(&wait), "{wait}");
    assert_eq!(third.header("ratelimit"), format!("\"caller\";r=0;t={wait}"));
    // Others, and probes, are not held up by it.
    assert_eq!(ask("Bearer fedcba9876543210", "/v1/runs").await.status, 200);
    assert_eq!(ask(one, "/readyz").await.status, 200);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_head_that_is_too_large_is_a_problem(pool: PgPool) {
    let app = TestApp::new(pool);
    let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let headers: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    app.with_headers("GET", "/v1/runs", &headers, Body::empty()).await.problem(431, "too-many-headers");
    app.with_headers("GET", "/v1/runs", &headers[..100], Body::empty()).await.ok(200);
    let long = format!("/v1/runs?experiment_name={}", "x".repeat(8192));
    app.get(&long).await.problem(414, "uri-too-long");
}
