//! Snapshots.

use axum::body::Body;
use estimatord::{artifacts::Limits, storage::MIGRATOR};
use sqlx::PgPool;

use crate::app::{TestApp, tar};

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_tree_is_stored_once(pool: PgPool) {
    let app = TestApp::new(pool);
    let files = [("train.py", "print(1)\n"), ("data/a.txt", "a"), ("data/b.txt", "bb")];
    let upload = || async {
        let headers = [("content-type", "application/x-tar")];
        app.with_headers("POST", "/v1/snapshots", &headers, Body::from(tar(&files))).await
    };
    let first = upload().await;
    let location = first.header("location").to_owned();
    let first = first.ok(201);
    assert_eq!((first["files"].to_string(), first["bytes"].to_string()), ("3".to_owned(), "12".to_owned()));
    assert_eq!(upload().await.ok(200)["id"], first["id"]);
    assert_eq!(app.get(&location).await.ok(200), first);

    let page = app.get(&format!("{location}/files?limit=2")).await.ok(200);
    assert_eq!(page["items"][0]["path"], "data/a.txt");
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let rest = app.get(&format!("{location}/files?limit=2&cursor={cursor}")).await.ok(200);
    assert_eq!((&rest["items"][0]["path"], rest["next_cursor"].is_null()), (&"train.py".into(), true));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn bad_uploads_are_told_apart(pool: PgPool) {
    let limits = Limits { max_unpacked_bytes: 100, max_files: 2, max_upload_bytes: 20_000 };
    let app = TestApp::with(pool, None, limits);
    let send = |body: Vec<u8>| {
        let app = &app;
        async move {
            app.with_headers(
                "POST",
                "/v1/snapshots",
                &[("content-type", "application/x-tar")],
                Body::from(body),
            )
            .await
        }
    };
    let text = send(b"this is no archive".repeat(100)).await.problem(400, "invalid-archive");
    assert!(text["detail"].as_str().expect("a text").starts_with("the body is no tar archive"), "{text}");
    let empty = send(Vec::new()).await.problem(400, "invalid-archive");
    assert!(empty["detail"].as_str().expect("a text").starts_with("the body is empty"), "{empty}");
    send(tar(&[("a", "1"), ("b", "2"), ("c", "3")])).await.problem(413, "body-too-large");
    send(tar(&[("a", &"x".repeat(200))])).await.problem(413, "body-too-large");
    send(tar(&[("a", "1"), ("a", "2")])).await.problem(422, "refused-archive");
}
