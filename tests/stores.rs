//! Datastores that speak the protocols of S3 and Azure Blob Storage (`make check-datastores`).

use std::{fs, io::Write as _};

use estimatord::{
    datastores::{Cache, DataError, LocalFile, Store, download, find, open, upload},
    domain::{
        datastore::{Datastore, DatastoreUrl},
        datastore_access::{Credentials, DatastoreOptions},
        datastore_places::Places,
    },
};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

fn map(value: Value) -> Map<String, Value> {
    let Value::Object(map) = value else { panic!("{value} is no object") };
    map
}

fn store(url: &str, options: Value, credentials: Value) -> Store {
    let datastore = Datastore { name: "remote".parse().unwrap(), url: DatastoreUrl::parse(url).unwrap() };
    let kind = datastore.url.kind();
    let options = DatastoreOptions::read(kind, &map(options)).unwrap();
    let credentials = Credentials::read(kind, &map(credentials)).unwrap();
    open(&datastore, &options, credentials.as_ref(), &Places::default()).unwrap()
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is set by scripts/with-stores.sh"))
}

fn s3(credentials: Value) -> Store {
    store("s3://bucket/a folder", json!({"endpoint": variable("ESTIMATORD_TEST_S3")}), credentials)
}

fn az(key: &str) -> Store {
    let account = variable("ESTIMATORD_TEST_AZ_ACCOUNT");
    let endpoint = format!("{}/{account}", variable("ESTIMATORD_TEST_AZ"));
    let options = json!({"account_name": account, "endpoint": endpoint});
    store("az://bucket/folder", options, json!({"account_key": key}))
}

fn local(path: &str, content: &str) -> LocalFile {
    let content = content.to_owned();
    LocalFile {
        path: path.to_owned(),
        bytes: content.len() as u64,
        open: Box::new(move || {
            let mut file = tempfile::tempfile()?;
            file.write_all(content.as_bytes())?;
            std::io::Seek::rewind(&mut file)?;
            Ok(file)
        }),
    }
}

/// Everything that a run does with a datastore.
async fn a_store_is_written_found_and_read(store: &Store) {
    let large = "x".repeat(20 << 20);
    let files = || vec![local("a.csv", "1,2"), local("deep/b c+d%.csv", "3"), local("large", &large)];
    upload(store, "sets/2026", files(), false).await.unwrap();
    upload(store, "sets/2026", files(), false).await.expect("the same again");
    let other = upload(store, "sets/2026", vec![local("a.csv", "other")], false).await;
    assert!(matches!(other, Err(DataError::Exists { .. })), "{other:?}");
    upload(store, "sets/2026", vec![local("a.csv", "1,2,3")], true).await.unwrap();

    let found = find(store, "sets/2026", None).await.unwrap();
    let paths: Vec<_> = found.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["a.csv", "deep/b c+d%.csv", "large"]);
    let matching = find(store, "sets", Some("sets/*/*.csv")).await.unwrap();
    assert_eq!(matching.files.len(), 1);
    let missing = find(store, "sets/2027", None).await.unwrap_err();
    assert_eq!(missing.to_string(), "the datastore `remote` has nothing at `sets/2027`");

    let directory = tempfile::tempdir().unwrap();
    let target = directory.path().join("copy");
    let copied = download(store, &found, &target).await.unwrap();
    assert_eq!((copied.files, copied.bytes), (3, 6 + (20 << 20)));
    assert_eq!(fs::read_to_string(target.join("deep/b c+d%.csv")).unwrap(), "3");
    assert_eq!(fs::read_to_string(target.join("large")).unwrap(), large);
    let file = find(store, "sets/2026/a.csv", None).await.unwrap();
    assert!(file.is_file);
    let cache = Cache::new(directory.path().join("cache"), 1 << 30);
    for (run, is_new) in [("1/a.csv", true), ("2/a.csv", false)] {
        let place = directory.path().join(run);
        assert_eq!(cache.place(store, &file, &place).await.unwrap().is_some(), is_new);
        assert_eq!(fs::read_to_string(place).unwrap(), "1,2,3");
    }
    upload(store, "sets/2026", vec![local("a.csv", "changed")], true).await.unwrap();
    let stale = download(store, &file, &directory.path().join("stale")).await.unwrap_err();
    assert!(stale.to_string().contains("changed while it was copied"), "{stale}");
}

/// A store that sends everybody on to another; what the other was asked.
async fn sends_on() -> (String, tokio::sync::mpsc::UnboundedReceiver<()>) {
    let inside = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = inside.local_addr().unwrap();
    let (asked, was_asked) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = inside.accept().await {
            asked.send(()).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\netag: \"a\"\r\nlast-modified: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\nsecret").await;
        }
    });
    let store = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", store.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = store.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let answer = format!(
                "HTTP/1.1 302 Found\r\nlocation: http://{target}/latest/meta-data\r\ncontent-length: 0\r\n\r\n"
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (endpoint, was_asked)
}

#[tokio::test]
async fn nobody_is_followed_to_another_place() {
    let (endpoint, mut was_asked) = sends_on().await;
    for (url, options) in [
        ("s3://bucket", json!({"endpoint": endpoint})),
        ("az://container", json!({"account_name": "acc", "endpoint": endpoint})),
        ("gs://bucket", json!({"endpoint": endpoint})),
    ] {
        let store = store(url, options, json!({}));
        let file = find(&store, "latest", None).await.unwrap_err();
        assert!(file.to_string().contains("redirect"), "{url}: {file}");
        let listed = find(&store, "", None).await.unwrap_err();
        assert!(listed.to_string().contains("redirect"), "{url}: {listed}");
        let sent = upload(&store, "", vec![local("a", "1")], true).await.unwrap_err();
        assert!(sent.to_string().contains("redirect"), "{url}: {sent}");
    }
    assert!(was_asked.try_recv().is_err(), "nobody came to the other place");
}

#[tokio::test]
#[ignore = "needs a store: make check-datastores"]
async fn s3_is_written_found_and_read() {
    let store = s3(json!({"access_key_id": "AKIA1", "secret_access_key": "secret"}));
    a_store_is_written_found_and_read(&store).await;
}

#[tokio::test]
#[ignore = "needs a store: make check-datastores"]
async fn azure_is_written_found_and_read() {
    a_store_is_written_found_and_read(&az(&variable("ESTIMATORD_TEST_AZ_KEY"))).await;
}

#[tokio::test]
#[ignore = "needs a store: make check-datastores"]
async fn a_wrong_key_is_refused_for_good_and_not_repeated() {
    let error = find(&az("d3JvbmctY2FuYXJ5"), "sets", None).await.unwrap_err();
    assert!(matches!(error, DataError::Denied { .. }) && error.is_permanent(), "{error}");
    assert!(!error.to_string().contains("d3JvbmctY2FuYXJ5"), "{error}");
}

#[tokio::test]
#[ignore = "needs a store: make check-datastores"]
async fn a_store_that_is_gone_may_come_back() {
    let options = json!({"endpoint": "http://127.0.0.1:9"});
    let error = find(&store("s3://bucket", options, json!({})), "sets", None).await.unwrap_err();
    assert!(!error.is_permanent(), "{error}");
}
