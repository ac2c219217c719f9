//! Requests that mean something else than they say: paths that lead out, bodies that grow, heads that hide a second request, keys of
//! somebody else.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use axum::body::Body;
use estimatord::{api::ApiSettings, artifacts::Limits, storage::MIGRATOR};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sqlx::PgPool;

use crate::{
    app::{TestApp, callers, tar},
    service::{Service, data_dir, until},
};

#[sqlx::test(migrator = "MIGRATOR")]
async fn no_path_leads_out_of_where_it_begins(pool: PgPool) {
    let app = TestApp::new(pool);
    let run = app.run("e").await;
    let claimed = app.admit().await;
    app.start(&claimed).await;
    app.write_log(&claimed, "user_logs/std_log.txt", b"a log\n", true).await;
    let run = run["id"].as_str().expect("an id");
    let ways_out = [
        "..%2f..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "../../../../etc/passwd",
        "..%5c..%5cetc%5cpasswd",
        "%2fetc%2fpasswd",
        "//etc/passwd",
        "user_logs/../../../../../etc/passwd",
        "user_logs/std_log.txt/../../../secret.key",
        "..%252f..%252fetc%252fpasswd",
        "user_logs%00/etc/passwd",
        "%c0%ae%c0%ae/%c0%ae%c0%ae/etc/passwd",
    ];
    for way in ways_out {
        for begin in [
            format!("/v1/runs/{run}/logs/"),
            format!("/v1/runs/{run}/outputs/"),
            "/docs/".to_owned(),
            "/problems/".to_owned(),
            "/v1/rules/".to_owned(),
            "/v1/frameworks/".to_owned(),
            "/v1/snapshots/".to_owned(),
            "/v1/datastores/".to_owned(),
        ] {
            let answer = app.get(&format!("{begin}{way}")).await;
            let status = answer.status.as_u16();
            assert!([400, 404].contains(&status), "{begin}{way}: {status} {}", answer.text());
            assert_eq!(answer.header("content-type"), "application/problem+json", "{begin}{way}");
            assert!(!answer.text().contains("root:"), "{begin}{way}: {}", answer.text());
        }
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_grows_when_it_is_opened_is_refused_while_it_is_small(pool: PgPool) {
    let limits = Limits { max_unpacked_bytes: 1 << 20, max_files: 100, max_upload_bytes: 1 << 20 };
    let app = TestApp::changed(pool, |settings| ApiSettings { limits, ..settings });
    let upload = |content_type: &'static str, body: Vec<u8>| {
        let app = &app;
        async move {
            let headers = [("content-type", content_type)];
            app.with_headers("POST", "/v1/snapshots", &headers, Body::from(body)).await
        }
    };
    // 64 MiB of zeros in 64 KiB; and nothing but the heads of a great many files.
    let zeros = "\0".repeat(64 << 20);
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&tar(&[("train.py", &zeros)])).expect("packed");
    let packed = packed.finish().expect("packed");
    assert!(packed.len() < 100 << 10, "{}", packed.len());
    upload("application/gzip", packed).await.problem(413, "body-too-large");
    let names: Vec<String> = (0..101).map(|number| format!("f{number}")).collect();
    let many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "")).collect();
    upload("application/x-tar", tar(&many)).await.problem(413, "body-too-large");
    // Brackets without end, deep and wide.
    let headers = [("content-type", "application/json")];
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = format!("{{\"x\": {}1{}}}", open.repeat(100_000), close.repeat(100_000));
        let answer = app.with_headers("POST", "/v1/estimators/validate", &headers, Body::from(deep)).await;
        answer.problem(400, "invalid-json");
    }
    let long = format!("/v1/runs?experiment_name={}", "x".repeat(9000));
    app.get(&long).await.problem(414, "uri-too-long");
    let names: Vec<String> = (0..200).map(|number| format!("x-{number}")).collect();
    let heads: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "y")).collect();
    app.with_headers("GET", "/v1/runs", &heads, Body::empty()).await.problem(431, "too-many-headers");
    app.get("/v1/runs").await.ok(200);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_key_of_somebody_else_brings_nothing_of_theirs(pool: PgPool) {
    let access = callers("ann alpha-submit-00000 submit alpha\nbob beta-submit-000000 submit beta");
    let app = TestApp::changed(pool, |settings| ApiSettings { access, ..settings });
    let send = |token: &'static str, path: &'static str, kind: &'static str, body: Vec<u8>| {
        let app = &app;
        async move {
            let authorization = format!("Bearer {token}");
            let headers =
                [("authorization", authorization.as_str()), ("content-type", kind), ("idempotency-key", "k")];
            app.with_headers("POST", path, &headers, Body::from(body)).await
        }
    };
    let archive = tar(&[("train.py", "print()\n")]);
    let (ann, bob) = ("alpha-submit-00000", "beta-submit-000000");
    let first = send(ann, "/v1/snapshots", "application/x-tar", archive.clone()).await;
    // The same tree is new to the other: nothing tells that somebody had it.
    let second = send(bob, "/v1/snapshots", "application/x-tar", archive).await;
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 201));
    assert_eq!(second.header("idempotency-replayed"), "");
    let snapshot = first.json()["id"].clone();
    let definition = json!({
        "source_directory": snapshot, "compute_target": "local", "entry_script": "train.py",
        "framework_version": "7.0.0", "use_docker": false
    });
    let body = json!({"experiment_name": "e", "estimator": definition}).to_string().into_bytes();
    let first = send(ann, "/v1/runs", "application/json", body.clone()).await.ok(201);
    let again = send(ann, "/v1/runs", "application/json", body.clone()).await.ok(201);
    let other = send(bob, "/v1/runs", "application/json", body).await.ok(201);
    assert_eq!(first["id"], again["id"]);
    assert_ne!(first["id"], other["id"]);
}

/// Everything that comes back on a connection after these bytes.
fn told(service: &Service, bytes: &[u8]) -> String {
    let address = service.base.trim_start_matches("http://");
    let mut connection = TcpStream::connect(address).expect("connected");
    connection.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    // It may be closed before all of it is written.
    let _ = connection.write_all(bytes);
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = connection.read(&mut piece) {
        answer.extend_from_slice(&piece[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn no_request_hides_in_another() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let hidden =
        "GET /v1/caller HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: smuggled\r\nConnection: close\r\n\r\n";
    let length = hidden.len();
    let post =
        "POST /v1/estimators/validate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
    let attacks = [
        (
            "two lengths",
            format!("{post}Content-Length: 2\r\nContent-Length: {}\r\n\r\n{{}}{hidden}", length + 2),
        ),
        ("a list of lengths", format!("{post}Content-Length: 2, {length}\r\n\r\n{{}}{hidden}")),
        (
            "length and chunks",
            format!("{post}Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        (
            "chunks and length",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n{hidden}"),
        ),
        ("another coding", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{hidden}")),
        ("a coding that is none", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("a blank before the colon", format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("a folded line", format!("{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n{hidden}")),
        ("a length with a sign", format!("{post}Content-Length: +2\r\n\r\n{{}}{hidden}")),
        ("a length that is none", format!("{post}Content-Length: 2x\r\n\r\n{{}}{hidden}")),
        (
            "a chunk of any size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n{hidden}"),
        ),
        (
            "a zero byte in a header",
            format!("GET /v1/runs HTTP/1.1\r\nHost: localhost\r\nX-A: b\0c\r\n\r\n{hidden}"),
        ),
        (
            "a line in a header",
            format!(
                "GET /v1/runs HTTP/1.1\r\nHost: localhost\r\nX-A: b\rX-Request-Id: smuggled\r\n\r\n{hidden}"
            ),
        ),
        (
            "a line in the path",
            format!("GET /v1/runs\r\nX-Request-Id: smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n{hidden}"),
        ),
        ("no version", format!("GET /v1/runs\r\n\r\n{hidden}")),
    ];
    for (what, attack) in attacks {
        let answer = told(&service, attack.as_bytes());
        assert!(!answer.contains("smuggled"), "{what}: {answer}");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{what}: {answer}");
    }
    // What is honest goes on: two requests on one connection are two answers.
    let honest = format!("GET /v1/caller HTTP/1.1\r\nHost: localhost\r\n\r\n{hidden}");
    let answer = told(&service, honest.as_bytes());
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{answer}");
    // Header names and values that come back in answers are the caller's own request id at most, and that is a plain word.
    let split = "GET /v1/caller HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: a b%0d%0aSet-Cookie: x\r\nConnection: close\r\n\r\n";
    assert!(!told(&service, split.as_bytes()).contains("Set-Cookie"));
    assert_eq!(service.call("GET", "/readyz", None).status, 200);
}

#[test]
fn who_sends_too_much_is_told_so_while_it_sends() {
    let dir = data_dir();
    let service = Service::start_with(dir.path(), &["--max-snapshot-bytes", "1048576"]);
    let large = tar(&[("train.py", &"x".repeat(24 << 20))]);
    for _ in 0..8 {
        let answer = service.send("POST", "/v1/snapshots", Some(("application/x-tar", large.clone())));
        assert_eq!(answer.status, 413, "{}", answer.text());
    }
}

/// Whoever goes away without waiting for the answer has done what the trail says, and nothing that it does not say.
#[test]
fn a_change_is_in_the_trail_although_its_caller_went_away() {
    let dir = data_dir();
    let service = Service::start(dir.path());
    let address = service.base.trim_start_matches("http://").to_owned();
    let body = json!({"url": "file:///usr/share"}).to_string();
    for number in 0..200 {
        let mut stream = TcpStream::connect(&address).expect("connected");
        let head = format!(
            "PUT /v1/datastores/gone{number} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).expect("sent");
        // And closed, whatever the service is at.
    }
    let names = |path: &str, of: &dyn Fn(&serde_json::Value) -> String| {
        let (mut found, mut cursor) = (std::collections::BTreeSet::new(), String::new());
        loop {
            let page = service.call("GET", &format!("{path}?limit=200{cursor}"), None).json();
            found.extend(page["items"].as_array().expect("a list").iter().map(of));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    };
    let made = until("something was made", || {
        let made = names("/v1/datastores", &|one| {
            format!("/v1/datastores/{}", one["name"].as_str().expect("a name"))
        });
        (!made.is_empty()).then_some(made)
    });
    until("the trail has all of it", || {
        let told = names("/v1/audit-events", &|one| one["path"].as_str().expect("a path").to_owned());
        made.is_subset(&told).then_some(())
    });
}
