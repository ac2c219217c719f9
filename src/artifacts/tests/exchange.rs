//! What workers and pods hand each other.

use std::io::{Read as _, Seek as _, Write as _};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use super::Bench;
use crate::{artifacts::ReturnedError, domain::ids::RunId};

fn run(number: u128) -> RunId {
    RunId::from_uuid(uuid::Uuid::from_u128(number))
}

fn body(text: &'static str) -> impl futures_util::Stream<Item = Result<Bytes, String>> + Send + Unpin {
    stream::iter([Ok(Bytes::from_static(text.as_bytes()))])
}

#[tokio::test]
async fn a_note_is_made_once_or_replaced() {
    let store = Bench::new().artifacts;
    assert_eq!(store.get_note::<u32>(run(1), 1, "stop").await.unwrap(), None);
    assert!(store.create_note(run(1), 1, "stop", &5).await.unwrap());
    assert!(!store.create_note(run(1), 1, "stop", &6).await.unwrap());
    assert_eq!(store.get_note(run(1), 1, "stop").await.unwrap(), Some(5));
    store.put_note(run(1), 1, "stop", &7).await.unwrap();
    assert_eq!(store.get_note(run(1), 1, "stop").await.unwrap(), Some(7));
    assert_eq!(store.get_note::<u32>(run(1), 2, "stop").await.unwrap(), None, "another attempt's is another");
}

#[tokio::test]
async fn what_is_final_stays_and_what_is_too_large_leaves_nothing() {
    let store = Bench::new().artifacts;
    let part = "pod-0".parse().unwrap();
    let put =
        async |is_final, text, limit| store.put_returned(run(1), 1, &part, is_final, body(text), limit).await;
    put(false, "so far", 10).await.unwrap();
    let first = store.list_returned(run(1), 1).await.unwrap();
    assert_eq!((first.len(), first[0].is_final, first[0].bytes), (1, false, 6));
    put(false, "so far, and more", 20).await.unwrap();
    assert_ne!(store.list_returned(run(1), 1).await.unwrap()[0].version, first[0].version);
    put(true, "all", 10).await.unwrap();
    put(false, "late", 10).await.unwrap();
    assert!(matches!(put(true, "too large", 5).await, Err(ReturnedError::TooLarge { limit: 5 })));
    let last = store.list_returned(run(1), 1).await.unwrap();
    assert_eq!((last.len(), last[0].is_final, last[0].bytes), (1, true, 3));
    let mut text = String::new();
    store.open_returned(run(1), 1, &part, true).await.unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "all");
}

#[tokio::test]
async fn a_bundle_is_read_as_it_was_put_and_all_of_it_goes() {
    let store = Bench::new().artifacts;
    for (number, attempt) in [(1, 1), (1, 2), (2, 1)] {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"bundle").unwrap();
        file.rewind().unwrap();
        store.put_bundle(run(number), attempt, file).await.unwrap();
    }
    store.put_log_segment(run(1), 1, "user_logs/std_log.txt", 0, Bytes::from_static(b"log")).await.unwrap();
    let (bytes, stream) = store.read_bundle(run(1), 2).await.unwrap();
    let pieces: Vec<_> = stream.map(Result::unwrap).collect().await;
    assert_eq!((bytes, pieces.concat()), (6, b"bundle".to_vec()));
    store.delete_exchanges(run(1)).await.unwrap();
    store.delete_exchanges(run(1)).await.unwrap();
    assert!(!store.has_bundle(run(1), 1).await.unwrap() && !store.has_bundle(run(1), 2).await.unwrap());
    assert!(store.has_bundle(run(2), 1).await.unwrap());
    let kept = store.read_log_segment(run(1), 1, "user_logs/std_log.txt", 0, 0..3).await.unwrap();
    assert_eq!(kept, Bytes::from_static(b"log"), "what the run keeps is something else");
}
