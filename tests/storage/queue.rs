//! Who of the queue goes first, how long it may be, and how long anybody may wait in it.

use chrono::TimeDelta;
use estimatord::{
    clock::Clock as _,
    domain::{
        ids::RunId,
        run::{Cause, Ending, Move, Status},
    },
    storage::{
        Storage, StorageError, admission::Order, leases::Claimant, new_runs::Insertion, runs::Terms,
        transitions::Written,
    },
};
use sqlx::PgPool;

use crate::{
    accept, answer, claimant,
    support::{self, FixedClock},
};

/// Who gets a place when there is one.
async fn next(storage: &Storage, clock: &FixedClock, claimant: &Claimant, order: Order) -> Vec<RunId> {
    let claimed = storage.admit_runs(claimant, order, 1, clock.now()).await.expect("asked");
    claimed.into_iter().map(|one| one.run.id).collect()
}

#[sqlx::test]
async fn the_highest_priority_goes_first_and_now_and_then_the_oldest(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let modest = accept(&storage, &clock, |run| run.priority = -5).await;
    let usual = accept(&storage, &clock, |_| {}).await;
    let urgent = accept(&storage, &clock, |run| run.priority = 5).await;
    let all = claimant("a");
    assert_eq!(next(&storage, &clock, &all, Order::Priority).await, [urgent.id]);
    assert_eq!(next(&storage, &clock, &all, Order::Age).await, [modest.id]);
    assert_eq!(next(&storage, &clock, &all, Order::Priority).await, [usual.id]);
}

#[sqlx::test]
async fn one_caller_takes_no_more_than_its_places_and_stands_in_nobody_s_way(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let of = |caller: &str| {
        let caller = caller.to_owned();
        move |run: &mut estimatord::storage::runs::Run| run.caller = caller
    };
    let mut greedy = Vec::new();
    for _ in 0..3 {
        greedy.push(accept(&storage, &clock, of("greedy")).await.id);
    }
    let other = accept(&storage, &clock, of("other")).await.id;
    let limited = Claimant { caller_limit: Some(2), default_target_limit: 3, ..claimant("a") };
    let claimed = storage.admit_runs(&limited, Order::Priority, 10, clock.now()).await.expect("admitted");
    let mut ids: Vec<RunId> = claimed.iter().map(|one| one.run.id).collect();
    ids.sort();
    let mut expected = vec![greedy[0], greedy[1], other];
    expected.sort();
    assert_eq!(ids, expected, "the third place is for whoever may have it");
    let waiting = storage.waiting(&[greedy[2].as_uuid()], Some(2)).await.expect("read");
    assert_eq!(waiting[&greedy[2]].caller, ("greedy".to_owned(), 2));
}

#[sqlx::test]
async fn a_full_queue_takes_no_more_and_keeps_nothing_of_what_it_refused(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    accept(&storage, &clock, |_| {}).await;
    let estimator = support::estimator(clock.now());
    let run = support::run(&estimator, clock.now());
    let terms = |max_queued| Terms { max_queued, ..support::terms(None) };
    let refused = storage.insert_run(&run, Some(&estimator), terms(1), || answer(&run)).await.expect("asked");
    assert_eq!(refused, Insertion::QueueFull);
    assert_eq!(storage.of(&Default::default()).get_run(run.id).await.expect("read"), None);
    assert_eq!(storage.of(&Default::default()).get_estimator(estimator.id).await.expect("read"), None);
    let taken = storage.insert_run(&run, Some(&estimator), terms(2), || answer(&run)).await.expect("asked");
    assert!(matches!(taken, Insertion::Keyed(_)), "{taken:?}");
    let twice = storage.insert_run(&run, None, terms(10), || answer(&run)).await.expect("asked");
    assert_eq!(twice, Insertion::Exists);
}

#[sqlx::test]
async fn who_waited_too_long_ends_and_gets_no_place_any_more(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let patient = accept(&storage, &clock, |_| {}).await;
    let run = accept(&storage, &clock, |run| run.max_queue_duration_seconds = Some(60)).await;
    assert_eq!(storage.expire_queued_runs(10, clock.now()).await.expect("asked"), 0);
    sqlx::query("UPDATE runs SET queue_deadline = queue_deadline - interval '61 seconds'")
        .execute(&pool)
        .await
        .expect("changed");
    let claimed =
        storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("admitted");
    assert_eq!(claimed.iter().map(|one| one.run.id).collect::<Vec<_>>(), [patient.id]);
    let now = clock.now() + TimeDelta::seconds(61);
    assert_eq!(storage.expire_queued_runs(10, now).await.expect("asked"), 1);
    let ended = storage.of(&Default::default()).get_run(run.id).await.expect("read").expect("there");
    assert_eq!((ended.status, ended.cause), (Status::Canceled, Some(Cause::MaxQueueDurationExceeded)));
    assert_eq!((ended.attempt, ended.finished_at, ended.cancel_requested_at), (0, Some(now), None));
    let events = storage.list_run_events(run.id, 0, 10).await.expect("read");
    assert_eq!(events.last().map(|event| event.cause), Some(Some(Cause::MaxQueueDurationExceeded)));
}

#[sqlx::test]
async fn a_run_whose_node_is_away_says_where_it_is(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let run = accept(&storage, &clock, |_| {}).await;
    storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("admitted");
    let away = async || {
        let waiting = storage.all_waiting(None).await.expect("read");
        waiting[&run.id].node_away.as_ref().map(|(node, _)| node.clone())
    };
    assert_eq!(away().await, None);
    sqlx::query("UPDATE runs SET lease_expires_at = now()").execute(&pool).await.expect("expired");
    assert_eq!(away().await.as_deref(), Some("a"));
}

/// What waits for its next attempt waits because the service says so: that time is not the queue's.
#[sqlx::test]
async fn the_delay_before_an_attempt_does_not_count_as_waiting(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let run = accept(&storage, &clock, |run| {
        run.max_queue_duration_seconds = Some(1);
        run.max_attempts = 2;
    })
    .await;
    let claimed =
        storage.admit_runs(&claimant("a"), Order::Priority, 1, clock.now()).await.expect("admitted");
    let ending = Ending { cause: Some(Cause::ComputeLost), ..Ending::default() };
    let again = Move::Requeue { ending, delay: TimeDelta::seconds(300) };
    let written = storage.move_run(&claimed[0].lease, Status::Preparing, &again, clock.now()).await;
    assert_eq!(written.expect("asked"), Written::Done);
    let left: f64 = sqlx::query_scalar(
        "SELECT extract(epoch FROM queue_deadline - now())::float8 FROM runs WHERE id = $1",
    )
    .bind(run.id.as_uuid())
    .fetch_one(&pool)
    .await
    .expect("read");
    assert!((299.0..=301.0).contains(&left), "{left}");
    // And nobody is told that it goes first.
    let other = accept(&storage, &clock, |_| {}).await;
    assert_eq!(storage.all_waiting(None).await.expect("read")[&other.id].ahead, 0);
}

/// A server that gives statements and locks only so long is one that may have time later.
#[sqlx::test]
async fn what_took_the_server_too_long_is_asked_again(pool: PgPool) {
    let mut connection = pool.acquire().await.expect("a connection");
    sqlx::raw_sql("SET statement_timeout = '20ms'").execute(&mut *connection).await.expect("set");
    let slow = sqlx::raw_sql("SELECT pg_sleep(20)").execute(&mut *connection).await.expect_err("too slow");
    assert!(matches!(StorageError::from(slow), StorageError::Unavailable(_)));
    let mut holder = pool.begin().await.expect("begun");
    sqlx::raw_sql("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.expect("locked");
    sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = '20ms'")
        .execute(&mut *connection)
        .await
        .expect("set");
    let locked = sqlx::raw_sql("SELECT FROM runs").execute(&mut *connection).await.expect_err("locked");
    assert!(matches!(StorageError::from(locked), StorageError::Unavailable(_)));
}
