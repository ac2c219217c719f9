//! Estimators and idempotency keys.

use chrono::{DateTime, TimeDelta, Utc};
use estimatord::storage::{
    Storage,
    idempotency::{Idempotency, Keyed, Recorded},
};
use serde_json::json;
use sqlx::PgPool;

use crate::support;

fn key(body: u8) -> Idempotency {
    Idempotency {
        scope: "create_estimator",
        caller: "c".to_owned(),
        key: "k1".to_owned(),
        body_hash: [body; 32],
    }
}

fn made(n: u32) -> Recorded {
    Recorded {
        status: 201,
        location: Some("/v1/estimators/x".to_owned()),
        body: json!({"n": n, "a": 1.50}).to_string(),
    }
}

#[sqlx::test]
async fn the_order_of_keys_and_the_spelling_of_numbers_survive(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    support::store_snapshot(&storage).await;
    let mut estimator = support::estimator(DateTime::<Utc>::UNIX_EPOCH);
    let source = support::snapshot_id(1);
    let text = r#"{"source_directory":"SOURCE","z":1,"a":{"y":2.50,"b":1e3,"c":1E-05,"x":4611686018427387904},"m":[3,1,2]}"#.replace("SOURCE", source.as_str());
    estimator.definition = estimatord::domain::json::parse_object(text.as_bytes()).expect("JSON");
    storage.of(&Default::default()).insert_estimator(&estimator, None, || made(1)).await.expect("stored");
    let read =
        storage.of(&Default::default()).get_estimator(estimator.id).await.expect("read").expect("there");
    assert_eq!(serde_json::to_string(&read.definition).expect("JSON"), text);
}

#[sqlx::test]
async fn a_key_answers_the_same_again_and_makes_one_estimator(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    support::store_snapshot(&storage).await;
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let first = storage
        .of(&Default::default())
        .insert_estimator(&support::estimator(now), Some(&key(1)), || made(1))
        .await
        .expect("stored");
    assert_eq!(first, Keyed::Done(made(1)));
    let again = storage
        .of(&Default::default())
        .insert_estimator(&support::estimator(now), Some(&key(1)), || made(2))
        .await
        .expect("asked");
    assert_eq!(again, Keyed::Replayed(made(1)));
    let other = storage
        .of(&Default::default())
        .insert_estimator(&support::estimator(now), Some(&key(2)), || made(3))
        .await
        .expect("asked");
    assert_eq!(other, Keyed::OtherBody);
    assert_eq!(storage.of(&Default::default()).list_estimators(None, 10).await.expect("read").len(), 1);
}

#[sqlx::test]
async fn keys_are_forgotten_after_a_day_and_not_before(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    support::store_snapshot(&storage).await;
    let now = DateTime::<Utc>::UNIX_EPOCH;
    storage
        .of(&Default::default())
        .insert_estimator(&support::estimator(now), Some(&key(1)), || made(1))
        .await
        .expect("stored");
    // The database's clock decides, whatever that of whoever asks says.
    for (age, forgotten) in [("23 hours", 0), ("25 hours", 1)] {
        sqlx::query("UPDATE idempotency_keys SET created_at = now() - $1::text::interval")
            .bind(age)
            .execute(&pool)
            .await
            .expect("aged");
        assert_eq!(storage.forget_old_answers().await.expect("asked"), forgotten, "{age}");
    }
}

#[sqlx::test]
async fn many_requests_with_one_key_make_one_estimator(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    support::store_snapshot(&storage).await;
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let storage = storage.clone();
            tokio::spawn(async move {
                storage
                    .of(&Default::default())
                    .insert_estimator(&support::estimator(now), Some(&key(1)), || made(1))
                    .await
            })
        })
        .collect();
    let mut done = 0;
    for task in tasks {
        match task.await.expect("no panic").expect("the database works") {
            Keyed::Done(_) => done += 1,
            Keyed::Replayed(_) | Keyed::InProgress => {}
            Keyed::OtherBody => panic!("the bodies are the same"),
        }
    }
    assert_eq!(
        (done, storage.of(&Default::default()).list_estimators(None, 50).await.expect("read").len()),
        (1, 1)
    );
}

#[sqlx::test]
async fn an_archived_estimator_is_in_no_list_and_can_still_be_read(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    support::store_snapshot(&storage).await;
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let estimator = support::estimator(now);
    storage.of(&Default::default()).insert_estimator(&estimator, None, || made(1)).await.expect("stored");
    assert!(storage.of(&Default::default()).archive_estimator(estimator.id, now).await.expect("archived"));
    assert!(
        storage
            .of(&Default::default())
            .archive_estimator(estimator.id, now + TimeDelta::seconds(9))
            .await
            .expect("again")
    );
    assert!(storage.of(&Default::default()).list_estimators(None, 10).await.expect("read").is_empty());
    let read =
        storage.of(&Default::default()).get_estimator(estimator.id).await.expect("read").expect("there");
    assert_eq!(read.archived_at, Some(now));
}
