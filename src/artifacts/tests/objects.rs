//! Logs and outputs.

use std::{fs, path::Path};

use futures_util::TryStreamExt as _;
use sha2::{Digest as _, Sha256};

use super::*;
use crate::{artifacts::ArtifactsError, domain::ids::RunId};

fn open(path: &Path) -> fs::File {
    fs::File::open(path).expect("opened")
}

fn a_run(number: u128) -> RunId {
    RunId::from_uuid(uuid::Uuid::from_u128(number))
}

async fn output(
    bench: &Bench,
    run: RunId,
    name: &str,
    range: Option<std::ops::Range<u64>>,
) -> Result<(u64, Vec<u8>), ArtifactsError> {
    let (total, stream) = bench.artifacts.read_output(run, 1, name, range).await?;
    let pieces: Vec<Bytes> = stream.try_collect().await?;
    Ok((total, pieces.concat()))
}

#[tokio::test]
async fn a_growing_segment_is_put_again_and_read_in_parts() {
    let bench = Bench::new();
    let (run, name) = (a_run(1), "user_logs/std_log.txt");
    let put = async |start, text: &'static str| {
        bench
            .artifacts
            .put_log_segment(run, 1, name, start, Bytes::from_static(text.as_bytes()))
            .await
            .expect("stored");
    };
    let read = async |start, range| bench.artifacts.read_log_segment(run, 1, name, start, range).await;
    put(0, "one").await;
    put(0, "one two").await;
    put(7, "three").await;
    assert_eq!(read(0, 0..100).await.expect("read"), "one two");
    assert_eq!(read(0, 4..6).await.expect("read"), "tw");
    assert_eq!(read(0, 7..9).await.expect("read"), "");
    assert_eq!(read(7, 0..5).await.expect("read"), "three");
    assert!(matches!(read(3, 0..5).await, Err(ArtifactsError::NotFound { .. })));
    let other = bench.artifacts.read_log_segment(run, 2, name, 0, 0..1).await;
    assert!(matches!(other, Err(ArtifactsError::NotFound { .. })));
}

#[tokio::test]
async fn outputs_come_back_whole_and_in_parts() {
    let bench = Bench::new();
    let run = a_run(1);
    // More than two parts of a multipart upload, and nothing at all.
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let names = ["model.npz", "größe/数据#1", "../../etc/passwd", ".", &"n".repeat(255)];
    for (number, name) in names.iter().enumerate() {
        let content: &[u8] = if number == 0 { &large } else { name.as_bytes() };
        let file = bench.directory.path().join("file");
        fs::write(&file, content).expect("written");
        let stored = bench.artifacts.put_output(run, 1, name, open(&file), u64::MAX).await.expect("stored");
        assert_eq!(
            (stored.bytes, stored.sha256),
            (content.len() as u64, super::super::keys::hex(&Sha256::digest(content)))
        );
        assert_eq!(
            output(&bench, run, name, None).await.expect("read"),
            (content.len() as u64, content.to_vec())
        );
    }
    fs::write(bench.directory.path().join("file"), "").expect("written");
    let file = open(&bench.directory.path().join("file"));
    bench.artifacts.put_output(run, 1, "empty", file, u64::MAX).await.expect("stored");
    assert_eq!(output(&bench, run, "empty", None).await.expect("read"), (0, Vec::new()));

    let total = large.len() as u64;
    assert_eq!(
        output(&bench, run, "model.npz", Some(5..9)).await.expect("read"),
        (total, large[5..9].to_vec())
    );
    let tail = output(&bench, run, "model.npz", Some(total - 3..total + 50)).await.expect("read");
    assert_eq!(tail, (total, large[large.len() - 3..].to_vec()));
    let behind = output(&bench, run, "model.npz", Some(total..total + 1)).await;
    assert!(matches!(behind, Err(ArtifactsError::OutOfRange { total: 20_000_000, .. })));
    assert!(matches!(output(&bench, run, "other", None).await, Err(ArtifactsError::NotFound { .. })));
}

#[tokio::test]
async fn no_more_of_an_output_is_stored_than_was_asked_for() {
    let bench = Bench::new();
    let file = bench.directory.path().join("file");
    fs::write(&file, "0123456789").expect("written");
    let stored = bench.artifacts.put_output(a_run(1), 1, "o", open(&file), 4).await.expect("stored");
    assert_eq!(stored.bytes, 4);
    assert_eq!(output(&bench, a_run(1), "o", None).await.expect("read"), (4, b"0123".to_vec()));
}

#[tokio::test]
async fn a_deleted_run_leaves_nothing_and_takes_nothing_else() {
    let bench = Bench::new();
    for run in [a_run(1), a_run(2)] {
        bench.artifacts.put_log_segment(run, 1, "a/b", 0, Bytes::from_static(b"x")).await.expect("stored");
    }
    let store = bench.directory.path().join("store");
    fs::write(store.join(format!("runs/{}/1/left#1", a_run(1))), "half").expect("written");
    bench.artifacts.delete_run(a_run(1)).await.expect("deleted");
    bench.artifacts.delete_run(a_run(1)).await.expect("deleted again");
    let left = files_below(&store);
    assert!(left.len() == 1 && left[0].contains(&a_run(2).to_string()), "{left:?}");
}
