//! Snapshots from upload to unpacked tree.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _};

use proptest::prelude::*;

use super::*;

const TREE: [TestFile<'_>; 4] = [
    ("train.py", b"print('hello')\n", false),
    ("bin/run.sh", b"#!/bin/sh\n", true),
    ("data/empty", b"", false),
    ("data-2/x.bin", &[0, 1, 2, 255], false),
];

#[tokio::test]
async fn a_tree_has_one_id_in_every_archive() {
    let bench = Bench::new();
    let mut shuffled = TREE;
    shuffled.reverse();
    let first = bench.receive(ArchiveFormat::Tar, &tar_of(&TREE)).await.expect("fine");
    assert!(!first.existed);
    assert_eq!(first.bytes, 29);
    let paths: Vec<_> = first.files.iter().map(|file| (file.path.as_str(), file.executable)).collect();
    assert_eq!(
        paths,
        [("bin/run.sh", true), ("data-2/x.bin", false), ("data/empty", false), ("train.py", false)]
    );
    for (format, archive) in [
        (ArchiveFormat::Tar, tar_of(&shuffled)),
        (ArchiveFormat::TarGz, gzip(&tar_of(&TREE))),
        (ArchiveFormat::Zip, zip_of(&shuffled)),
    ] {
        let again = bench.receive(format, &archive).await.expect("fine");
        assert_eq!((again.id, again.existed), (first.id.clone(), true), "{format:?}");
    }
    let mut other = TREE;
    other[0].2 = true;
    assert_ne!(bench.receive(ArchiveFormat::Tar, &tar_of(&other)).await.expect("fine").id, first.id);
    assert_eq!(files_below(bench.directory.path()).len(), 2, "one object per snapshot, and nothing else");
}

#[tokio::test]
async fn an_unpacked_tree_is_the_uploaded_one() {
    let bench = Bench::new();
    let id = bench.receive(ArchiveFormat::Zip, &zip_of(&TREE)).await.expect("fine").id;
    let place = tempfile::tempdir().expect("a directory");
    bench.artifacts.unpack_snapshot(&id, place.path()).await.expect("unpacked");
    for (path, content, executable) in TREE {
        let path = place.path().join(path);
        assert_eq!(fs::read(&path).expect("a file"), content);
        let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o7777;
        assert_eq!(mode, if executable { 0o755 } else { 0o644 });
    }
    assert_eq!(files_below(place.path()).len(), TREE.len());
    let again = bench.artifacts.unpack_snapshot(&id, place.path()).await.expect_err("not empty");
    assert_eq!(again.kind(), std::io::ErrorKind::DirectoryNotEmpty);
}

#[tokio::test]
async fn an_empty_tree_is_a_snapshot() {
    let bench = Bench::new();
    let received = bench.receive(ArchiveFormat::TarGz, &gzip(&RawTar::default().end())).await.expect("fine");
    assert_eq!((received.files.len(), received.bytes), (0, 0));
    let zipped = bench.receive(ArchiveFormat::Zip, &zip_of(&[])).await.expect("fine");
    assert_eq!(zipped.id, received.id);
    let place = tempfile::tempdir().expect("a directory");
    bench.artifacts.unpack_snapshot(&received.id, place.path()).await.expect("unpacked");
}

#[tokio::test]
async fn single_contents_are_read_up_to_a_size() {
    let bench = Bench::new();
    let id = bench.receive(ArchiveFormat::Tar, &tar_of(&TREE)).await.expect("fine").id;
    let paths = BTreeSet::from(["train.py", "bin/run.sh", "missing"].map(str::to_owned));
    let found = bench.artifacts.snapshot_contents(&id, &paths, 12).await.expect("read");
    assert_eq!(found.into_iter().collect::<Vec<_>>(), [("bin/run.sh".to_owned(), b"#!/bin/sh\n".to_vec())]);
    assert_eq!(bench.artifacts.snapshot_contents(&id, &paths, 100).await.expect("read").len(), 2);
}

#[tokio::test]
async fn a_damaged_or_missing_object_is_never_run() {
    let bench = Bench::new();
    let id = bench.receive(ArchiveFormat::Tar, &tar_of(&TREE)).await.expect("fine").id;
    let object = files_below(bench.directory.path()).pop().expect("one object");
    let mut bytes = fs::read(&object).expect("an object");
    let at = bytes.windows(5).position(|window| window == b"hello").expect("the content");
    bytes[at] = b'j';
    fs::write(&object, bytes).expect("written");
    let unpack = async || {
        let place = tempfile::tempdir().expect("a directory");
        bench.artifacts.unpack_snapshot(&id, place.path()).await.expect_err("refused").kind()
    };
    assert_eq!(unpack().await, std::io::ErrorKind::InvalidData);
    bench.artifacts.delete_snapshot(&id).await.expect("deleted");
    bench.artifacts.delete_snapshot(&id).await.expect("deleted again");
    assert_eq!(unpack().await, std::io::ErrorKind::NotFound);
    assert!(!bench.artifacts.has_snapshot(&id).await.expect("asked"));
}

#[tokio::test]
async fn an_upload_that_is_too_large_or_breaks_off_leaves_nothing() {
    let bench = Bench::new();
    let error = bench.refusal(ArchiveFormat::Tar, &vec![0; 300_001]).await;
    assert!(matches!(error, SnapshotError::UploadTooLarge { limit: 300_000 }), "{error:?}");
    let pieces = vec![Ok(Bytes::from(tar_of(&TREE))), Err("connection reset")];
    let received =
        bench.artifacts.receive_snapshot(ArchiveFormat::Tar, stream::iter(pieces), &bench.limits).await;
    assert!(matches!(received, Err(SnapshotError::Body { .. })), "{received:?}");
    assert_eq!(files_below(bench.directory.path()), Vec::<String>::new());
}

#[tokio::test]
async fn left_overs_of_a_crash_are_removed_once_they_are_old() {
    let bench = Bench::new();
    let id = bench.receive(ArchiveFormat::Tar, &tar_of(&TREE)).await.expect("fine").id;
    let store = bench.directory.path().join("store");
    let scratch = bench.directory.path().join("scratch");
    let old = [scratch.join(".tmpOld"), store.join("snapshots/00.tar#1")];
    let young = [scratch.join(".tmpYoung"), store.join("snapshots/11.tar#1")];
    for path in old.iter().chain(&young) {
        fs::write(path, "half").expect("written");
    }
    for path in &old {
        let file = fs::File::options().write(true).open(path).expect("opened");
        file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(4000)).expect("aged");
    }
    let reopened = Artifacts::open(&store, &scratch).expect("a store");
    assert!(old.iter().all(|path| !path.exists()) && young.iter().all(|path| path.exists()));
    assert!(reopened.has_snapshot(&id).await.expect("asked"));
}

#[tokio::test]
async fn everything_can_be_awaited_from_any_thread() {
    fn is_send<T: Send>(value: T) -> T {
        value
    }
    let bench = Bench::new();
    let (artifacts, place) = (&bench.artifacts, tempfile::tempdir().expect("a directory"));
    let body = stream::iter(vec![Ok::<_, Infallible>(Bytes::from(tar_of(&TREE)))]);
    let received =
        is_send(artifacts.receive_snapshot(ArchiveFormat::Tar, body, &bench.limits)).await.expect("fine");
    is_send(artifacts.unpack_snapshot(&received.id, place.path())).await.expect("unpacked");
    is_send(artifacts.snapshot_contents(&received.id, &BTreeSet::new(), 1)).await.expect("read");
    let run = crate::domain::ids::RunId::from_uuid(uuid::Uuid::nil());
    let file = std::fs::File::open(place.path().join("train.py")).expect("opened");
    is_send(artifacts.put_output(run, 1, "o", file, u64::MAX)).await.expect("stored");
    drop(is_send(is_send(artifacts.read_output(run, 1, "o", None)).await.expect("read")));
    is_send(artifacts.delete_run(run)).await.expect("deleted");
}

#[test]
fn media_types_are_read_leniently() {
    assert_eq!(
        ArchiveFormat::from_media_type("Application/GZIP; charset=binary"),
        Some(ArchiveFormat::TarGz)
    );
    assert_eq!(ArchiveFormat::from_media_type("text/plain"), None);
    for format in ArchiveFormat::ALL {
        assert_eq!(ArchiveFormat::from_media_type(format.media_type()), Some(format));
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

fn trees() -> impl Strategy<Value = Vec<(String, Vec<u8>, bool)>> {
    let file =
        ("[a-c]{1,2}(/[a-c]{1,2}){0,2}\\.py", prop::collection::vec(any::<u8>(), 0..700), any::<bool>());
    prop::collection::vec(file, 0..12).prop_map(|mut files| {
        files.sort();
        files.dedup_by(|one, other| one.0 == other.0);
        files
    })
}

fn borrowed(files: &[(String, Vec<u8>, bool)]) -> Vec<TestFile<'_>> {
    files.iter().map(|(path, content, executable)| (path.as_str(), content.as_slice(), *executable)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn format_and_order_never_change_the_id(
        (sorted, shuffled) in trees().prop_flat_map(|tree| (Just(tree.clone()), Just(tree).prop_shuffle())),
    ) {
        let bench = Bench::new();
        let id = |format, archive: Vec<u8>| run(bench.receive(format, &archive)).expect("fine").id;
        let expected = id(ArchiveFormat::Tar, tar_of(&borrowed(&sorted)));
        prop_assert_eq!(&expected, &id(ArchiveFormat::Tar, tar_of(&borrowed(&shuffled))));
        prop_assert_eq!(&expected, &id(ArchiveFormat::TarGz, gzip(&tar_of(&borrowed(&shuffled)))));
        prop_assert_eq!(&expected, &id(ArchiveFormat::Zip, zip_of(&borrowed(&shuffled))));
        let place = tempfile::tempdir().expect("a directory");
        run(bench.artifacts.unpack_snapshot(&expected, place.path())).expect("unpacked");
        for (path, content, _) in &sorted {
            prop_assert_eq!(content, &fs::read(place.path().join(path)).expect("a file"));
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        let bench = Bench::new();
        for format in ArchiveFormat::ALL {
            prop_assert!(run(bench.receive(format, &bytes)).is_err() || bytes.iter().take(512).all(|b| *b == 0));
        }
    }

    #[test]
    fn bent_archives_never_panic(
        tree in trees(),
        bends in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let bench = Bench::new();
        for (format, archive) in [
            (ArchiveFormat::Tar, tar_of(&borrowed(&tree))),
            (ArchiveFormat::Zip, zip_of(&borrowed(&tree))),
        ] {
            let mut bent = archive;
            for (at, byte) in &bends {
                let at = at.index(bent.len());
                bent[at] = *byte;
            }
            let _ = run(bench.receive(format, &bent));
            let _ = run(bench.receive(format, &bent[..cut.index(bent.len())]));
        }
    }
}
