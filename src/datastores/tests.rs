use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::*;
use crate::domain::{
    datastore::{Datastore, DatastoreUrl},
    datastore_access::{Credentials, DatastoreOptions},
    datastore_places::Places,
};

struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let bench = Self { directory: tempfile::tempdir().unwrap() };
        for (path, content) in files {
            let path = bench.root().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        fs::create_dir_all(bench.root()).unwrap();
        bench
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("my store")
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn store(&self) -> Store {
        let url = url::Url::from_file_path(self.root()).unwrap();
        open(&datastore(url.as_str()), &DatastoreOptions::default(), None, &Places::default()).unwrap()
    }
}

fn datastore(url: &str) -> Datastore {
    Datastore { name: "mystore".parse().unwrap(), url: DatastoreUrl::parse(url).unwrap() }
}

fn paths(found: &Found) -> Vec<&str> {
    found.files.iter().map(|file| file.path.as_str()).collect()
}

fn local(path: &str, content: &str) -> LocalFile {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, content.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    LocalFile { path: path.to_owned(), bytes: content.len() as u64, open: Box::new(move || Ok(file)) }
}

const FILES: [(&str, &str); 4] =
    [("sets/a.csv", "1"), ("sets/deep/b c.csv", "22"), ("sets/x.txt", ""), ("one.npz", "weights")];

#[tokio::test]
async fn files_folders_patterns_and_the_root_are_found() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let one = find(&store, "one.npz", None).await.unwrap();
    assert_eq!((one.is_file, paths(&one), one.bytes()), (true, vec!["one.npz"], 7));
    let folder = find(&store, "sets", None).await.unwrap();
    assert_eq!((folder.is_file, paths(&folder)), (false, vec!["a.csv", "deep/b c.csv", "x.txt"]));
    let all = find(&store, "", None).await.unwrap();
    assert_eq!(paths(&all), ["one.npz", "sets/a.csv", "sets/deep/b c.csv", "sets/x.txt"]);
    let direct = find(&store, "sets", Some("sets/*.csv")).await.unwrap();
    assert_eq!(paths(&direct), ["a.csv"]);
    let deep = find(&store, "sets", Some("sets/**/*.csv")).await.unwrap();
    assert_eq!(paths(&deep), ["a.csv", "deep/b c.csv"]);
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let error = find(&store, "sets/2026", None).await.unwrap_err();
    assert_eq!(error.to_string(), "the datastore `mystore` has nothing at `sets/2026`");
    assert!(error.is_permanent());
    let error = find(&store, "sets", Some("sets/*.json")).await.unwrap_err();
    assert_eq!(error.to_string(), "the datastore `mystore` has nothing at `sets/*.json`");
    assert!(matches!(find(&store, "set", None).await, Err(DataError::Missing { .. })), "no prefix of a name");
    let gone =
        open(&datastore("file:///gone/for/good"), &DatastoreOptions::default(), None, &Places::default())
            .unwrap_err();
    assert!(gone.to_string().contains("there is no folder /gone/for/good"), "{gone}");
}

#[tokio::test]
async fn a_copy_is_whole_and_has_a_digest() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let target = bench.place("run/inputs/sets");
    let found = find(&store, "sets", None).await.unwrap();
    let copied = download(&store, &found, &target).await.unwrap();
    assert_eq!((copied.files, copied.bytes), (3, 3));
    assert_eq!(fs::read_to_string(target.join("deep/b c.csv")).unwrap(), "22");
    // What `sha256sum * | sha256sum` says of the three.
    let digest = |text: &str| download::hex(&<sha2::Sha256 as sha2::Digest>::digest(text));
    let lines = format!("{}  a.csv\n{}  deep/b c.csv\n{}  x.txt\n", digest("1"), digest("22"), digest(""));
    assert_eq!(copied.sha256, digest(&lines));
    let file = bench.place("run/inputs/one.npz");
    let found = find(&store, "one.npz", None).await.unwrap();
    download(&store, &found, &file).await.unwrap();
    assert_eq!(fs::read_to_string(file).unwrap(), "weights");
    let left: Vec<_> = fs::read_dir(bench.place("run/inputs")).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing partial is left: {left:?}");
}

#[tokio::test]
async fn a_file_that_changes_meanwhile_fails_the_copy_and_leaves_nothing() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let found = find(&store, "sets", None).await.unwrap();
    fs::write(bench.root().join("sets/a.csv"), "longer than before").unwrap();
    let error = download(&store, &found, &bench.place("in/sets")).await.unwrap_err();
    assert!(error.to_string().contains("changed while it was copied"), "{error}");
    assert!(!error.is_permanent());
    assert_eq!(fs::read_dir(bench.place("in")).unwrap().count(), 0);
}

#[tokio::test]
async fn what_is_sent_replaces_only_when_it_may() {
    let bench = Bench::new(&[]);
    let store = bench.store();
    let large = "x".repeat(9 << 20);
    let both = || vec![local("a/model.npz", "v1"), local("large", &large)];
    upload(&store, "out", both(), false).await.unwrap();
    assert_eq!(fs::read_to_string(bench.root().join("out/a/model.npz")).unwrap(), "v1");
    // A worker that died before it could say so sends the same again.
    upload(&store, "out", both(), false).await.unwrap();
    let error = upload(&store, "out", vec![local("a/model.npz", "v2")], false).await.unwrap_err();
    assert!(matches!(&error, DataError::Exists { path, .. } if path == "out/a/model.npz"), "{error}");
    let error = upload(&store, "out", vec![local("large", &"y".repeat(9 << 20))], false).await.unwrap_err();
    assert!(matches!(error, DataError::Exists { .. }));
    upload(&store, "out", vec![local("a/model.npz", "v2")], true).await.unwrap();
    upload(&store, "", vec![local("top", "1")], false).await.unwrap();
    assert_eq!(fs::read_to_string(bench.root().join("out/a/model.npz")).unwrap(), "v2");
    assert_eq!(fs::read_to_string(bench.root().join("top")).unwrap(), "1");
}

fn entries(path: &Path) -> usize {
    fs::read_dir(path).unwrap().count()
}

#[tokio::test]
async fn a_copy_is_shared_until_its_origin_changes() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let cache = Cache::new(bench.place("cache"), 100);
    let found = find(&store, "sets", None).await.unwrap();
    assert!(cache.place(&store, &found, &bench.place("1/sets")).await.unwrap().is_some());
    assert!(cache.place(&store, &found, &bench.place("2/sets")).await.unwrap().is_none(), "copied before");
    assert_eq!(fs::read_to_string(bench.place("2/sets/deep/b c.csv")).unwrap(), "22");
    assert!(fs::metadata(bench.place("2/sets/a.csv")).unwrap().permissions().readonly());
    fs::write(bench.root().join("sets/a.csv"), "new").unwrap();
    let found = find(&store, "sets", None).await.unwrap();
    assert!(cache.place(&store, &found, &bench.place("3/sets")).await.unwrap().is_some());
    assert_eq!(fs::read_to_string(bench.place("3/sets/a.csv")).unwrap(), "new");
    assert_eq!(fs::read_to_string(bench.place("1/sets/a.csv")).unwrap(), "1");
    assert_eq!(entries(&bench.place("cache")), 2);
}

#[tokio::test]
async fn the_least_recently_used_copy_goes_and_what_was_made_of_it_stays() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let cache = Cache::new(bench.place("cache"), 8);
    let sets = find(&store, "sets", None).await.unwrap();
    let one = find(&store, "one.npz", None).await.unwrap();
    cache.place(&store, &sets, &bench.place("1/sets")).await.unwrap();
    cache.place(&store, &one, &bench.place("1/one.npz")).await.unwrap();
    assert_eq!(entries(&bench.place("cache")), 1, "3 and 7 bytes are more than 8");
    assert_eq!(fs::read_to_string(bench.place("1/sets/a.csv")).unwrap(), "1");
    assert!(cache.place(&store, &one, &bench.place("2/one.npz")).await.unwrap().is_none());
    assert!(cache.place(&store, &sets, &bench.place("2/sets")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_copy_that_a_script_wrote_into_is_made_anew() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let cache = Cache::new(bench.place("cache"), 100);
    for (path, file) in [("sets", "sets/deep/b c.csv"), ("one.npz", "one.npz")] {
        let found = find(&store, path, None).await.unwrap();
        let original = fs::read_to_string(bench.root().join(file)).unwrap();
        cache.place(&store, &found, &bench.place("1").join(path)).await.unwrap();
        // As root may, whatever the permissions; of the same size.
        let damaged = bench.place("1").join(file);
        fs::set_permissions(&damaged, fs::Permissions::from_mode(0o644)).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&damaged, "x".repeat(original.len())).unwrap();
        assert!(cache.place(&store, &found, &bench.place("2").join(path)).await.unwrap().is_some());
        assert_eq!(fs::read_to_string(bench.place("2").join(file)).unwrap(), original);
        assert!(cache.place(&store, &found, &bench.place("3").join(path)).await.unwrap().is_none());
        assert_eq!(fs::read_to_string(bench.place("3").join(file)).unwrap(), original);
    }
    assert_eq!(entries(&bench.place("cache")), 2, "the damaged ones are gone");
}

#[tokio::test]
async fn what_a_killed_service_left_in_the_cache_is_removed_and_what_is_being_made_is_not() {
    let bench = Bench::new(&FILES);
    let store = bench.store();
    let cache = Cache::new(bench.place("cache"), 100);
    let earlier = std::time::SystemTime::now() - std::time::Duration::from_secs(120);
    let partial = |name: &str| {
        let path = bench.place("cache").join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("half"), "1").unwrap();
        let directory = fs::File::open(&path).unwrap();
        directory.set_modified(earlier).unwrap();
        (path, directory)
    };
    let (left, _) = partial("partial-left");
    let (held, lock) = partial("partial-held");
    lock.lock().unwrap();
    let found = find(&store, "sets", None).await.unwrap();
    cache.place(&store, &found, &bench.place("1/sets")).await.unwrap();
    assert!(!left.exists() && held.exists());
}

#[tokio::test]
async fn everything_is_sent_that_can_be_and_the_rest_is_named() {
    let bench = Bench::new(&[
        ("out/a", "old"),
        ("out/c", "old"),
        ("out/e", "old"),
        ("out/f", "old"),
        ("out/g", "old"),
    ]);
    let store = bench.store();
    let files = ["a", "b", "c", "d", "e", "f", "g"].map(|name| local(name, "new")).into();
    let error = upload(&store, "out", files, false).await.unwrap_err();
    assert!(error.is_permanent());
    let said = error.to_string();
    assert!(said.starts_with("5 files could not be sent: ") && said.ends_with("; and 2 more"), "{said}");
    assert!(said.contains("`out/a`") && said.contains("`out/c`") && said.contains("`out/e`"), "{said}");
    for name in ["b", "d"] {
        assert_eq!(fs::read_to_string(bench.root().join("out").join(name)).unwrap(), "new");
    }
}

#[tokio::test]
async fn names_that_no_store_takes_are_written_otherwise() {
    let bench = Bench::new(&[]);
    let store = bench.store();
    let files = vec![local("a\nb/c%FF", "1"), local("x\ty", "2"), local("x%09y", "3")];
    upload(&store, "out", files, true).await.unwrap();
    assert_eq!(fs::read_to_string(bench.root().join("out/a%0Ab/c%FF")).unwrap(), "1");
    assert_eq!(fs::read_to_string(bench.root().join("out/x%09y")).unwrap(), "3");
    assert_eq!(fs::read_to_string(bench.root().join("out/x%2509y")).unwrap(), "2");
}

#[tokio::test]
async fn a_file_whose_name_cannot_be_read_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    for (name, shown) in [(&b"b\xff.csv"[..], "b%FF.csv"), (b"b\n.csv", "b\\n.csv")] {
        let bench = Bench::new(&FILES);
        fs::write(bench.root().join("sets/deep").join(std::ffi::OsStr::from_bytes(name)), "1").unwrap();
        let error = find(&bench.store(), "sets", None).await.unwrap_err();
        let expected =
            format!("the datastore `mystore` has a file whose name cannot be read: `sets/deep/{shown}`");
        assert_eq!(error.to_string(), expected);
        assert!(error.is_permanent());
    }
}

#[test]
fn every_kind_opens_without_asking_anybody() {
    let read = |kind: &str, options: serde_json::Value, credentials: serde_json::Value| {
        let datastore = datastore(&format!("{kind}://bucket/folder"));
        let serde_json::Value::Object(options) = options else { unreachable!() };
        let serde_json::Value::Object(credentials) = credentials else { unreachable!() };
        let options = DatastoreOptions::read(datastore.url.kind(), &options).unwrap();
        let credentials = Credentials::read(datastore.url.kind(), &credentials).unwrap();
        open(&datastore, &options, credentials.as_ref(), &Places::default())
    };
    read("s3", json!({}), json!({"access_key_id": "a", "secret_access_key": "b"})).unwrap();
    read("s3", json!({"endpoint": "http://127.0.0.1:1"}), json!({})).unwrap();
    read("az", json!({"account_name": "acc"}), json!({"account_key": "YWJj"})).unwrap();
    read("az", json!({"account_name": "acc"}), json!({"sas_token": "?sv=2020&sig=x"})).unwrap();
    read("gs", json!({}), json!({})).unwrap();
    let error = read("gs", json!({}), json!({"service_account_key": "s3cret"})).unwrap_err();
    assert!(matches!(error, DataError::Open { .. }) && !error.to_string().contains("s3cret"), "{error}");
}
