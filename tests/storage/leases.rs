//! Leases, fencing, and the guards in the database.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::TimeDelta;
use estimatord::{
    clock::Clock as _,
    domain::{
        compute_target::Backend,
        run::{Cause, Ending, Move, Status},
    },
    storage::{
        Storage, StorageError,
        admission::Order,
        cancel::Cancellation,
        leases::{Claimant, Claimed, Lease},
        runs::{Run, RunFilter},
        transitions::Written,
    },
};
use sqlx::PgPool;

use crate::{
    accept, claimant,
    support::{self, FixedClock},
};

async fn admit_one(storage: &Storage, clock: &FixedClock) -> Claimed {
    admit_with(storage, clock, |_| {}).await
}

async fn admit_with(storage: &Storage, clock: &FixedClock, change: impl FnOnce(&mut Run)) -> Claimed {
    accept(storage, clock, change).await;
    let mut claimed =
        storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("claimed");
    assert_eq!(claimed.len(), 1);
    claimed.remove(0)
}

/// What the end of a lease's life does, without waiting for it.
async fn expire(pool: &PgPool, lease: &Lease) {
    sqlx::query("UPDATE runs SET lease_expires_at = now() - interval '1 second' WHERE id = $1")
        .bind(lease.run_id.as_uuid())
        .execute(pool)
        .await
        .expect("expired");
}

#[sqlx::test]
async fn admission_gives_a_place_an_attempt_and_a_lease(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let claimed = admit_one(&storage, &clock).await;
    assert_eq!((claimed.run.status, claimed.run.attempt), (Status::Preparing, 1));
    let attempts = support::shown(&storage, claimed.run.id).await.attempts;
    assert_eq!((attempts.len(), attempts[0].node.as_str()), (1, "a"));
    let remaining = storage.lease_remaining(&claimed.lease).await.expect("read").expect("held");
    assert!((50.0..=60.0).contains(&remaining), "{remaining}");
    assert!(
        storage.admit_runs(&claimant("b"), Order::Priority, 10, clock.now()).await.expect("asked").is_empty()
    );
    assert!(storage.adopt_runs(&claimant("b"), 10).await.expect("asked").is_empty());
}

#[sqlx::test]
async fn a_target_takes_as_many_as_it_may_urgent_ones_first(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let local = storage.get_compute_target("local").await.expect("read").expect("there").target;
    let limited = estimatord::domain::compute_target::ComputeTarget {
        backend: Backend { max_concurrent_runs: Some(2), ..Backend::process() },
        ..local
    };
    storage.put_compute_target(&limited, clock.now()).await.expect("changed");
    let old = accept(&storage, &clock, |_| {}).await;
    accept(&storage, &clock, |_| {}).await;
    let urgent = accept(&storage, &clock, |run| run.priority = 1).await;
    let claimed =
        storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("claimed");
    let ids: HashSet<_> = claimed.iter().map(|c| c.run.id).collect();
    assert_eq!(ids, HashSet::from([urgent.id, old.id]));
    assert!(
        storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("asked").is_empty()
    );
}

#[sqlx::test]
async fn many_workers_claim_each_run_once_and_never_over_the_limit(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    for _ in 0..40 {
        accept(&storage, &clock, |_| {}).await;
    }
    let now = clock.now();
    let admitted = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..8)
        .map(|n| {
            let (storage, admitted) = (storage.clone(), Arc::clone(&admitted));
            tokio::spawn(async move {
                let claimant = Claimant { default_target_limit: 30, ..claimant(&format!("node-{n}")) };
                let mut mine = Vec::new();
                // One at a time admits, so how often a worker comes too late is a matter of chance.
                for _ in 0..5000 {
                    let more = storage.admit_runs(&claimant, Order::Priority, 3, now).await.expect("claimed");
                    admitted.fetch_add(more.len(), Ordering::SeqCst);
                    mine.extend(more);
                    if admitted.load(Ordering::SeqCst) >= 30 {
                        break;
                    }
                }
                mine
            })
        })
        .collect();
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.expect("no panic"));
    }
    let one_more = Claimant { default_target_limit: 30, ..claimant("late") };
    all.extend(storage.admit_runs(&one_more, Order::Priority, 10, now).await.expect("asked"));
    let distinct: HashSet<_> = all.iter().map(|c| c.run.id).collect();
    assert_eq!((all.len(), distinct.len()), (30, 30));
}

#[sqlx::test]
async fn a_lost_lease_writes_nothing(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let first = admit_one(&storage, &clock).await;
    expire(&pool, &first.lease).await;
    let adopted = storage.adopt_runs(&claimant("a"), 10).await.expect("adopted");
    assert_eq!(adopted.len(), 1);
    let stale = storage
        .move_run(&first.lease, Status::Preparing, &Move::to(Status::Starting), clock.now())
        .await
        .expect("asked");
    assert_eq!(stale, Written::LeaseLost);
    assert_eq!(
        storage.record_log(&first.lease, 1, "user_logs/std_log.txt", 5, false).await.expect("asked"),
        Written::LeaseLost
    );
    assert_eq!(
        storage.note_run_event(&first.lease, "environment", "x", clock.now()).await.expect("asked"),
        Written::LeaseLost
    );
    assert!(storage.renew_leases(&[first.lease], Duration::from_secs(60)).await.expect("asked").is_empty());
    let current = storage
        .move_run(&adopted[0].lease, Status::Preparing, &Move::to(Status::Starting), clock.now())
        .await
        .expect("written");
    assert_eq!(current, Written::Done);
}

#[sqlx::test]
async fn what_a_run_waits_for_is_news_once_whoever_finds_it(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let first = admit_one(&storage, &clock).await;
    let handed_in = Move::to(Status::Starting);
    storage.move_run(&first.lease, Status::Preparing, &handed_in, clock.now()).await.expect("written");
    let wait = async |lease: &Lease, reason: Option<&str>| {
        storage.record_wait(lease, reason, clock.now()).await.expect("asked")
    };
    assert_eq!(wait(&first.lease, Some("Resources")).await, Written::Done);
    expire(&pool, &first.lease).await;
    let adopted = storage.adopt_runs(&claimant("a"), 10).await.expect("adopted").remove(0);
    assert_eq!(wait(&first.lease, Some("Priority")).await, Written::LeaseLost);
    assert_eq!(wait(&adopted.lease, Some("Resources")).await, Written::StatusIs(Status::Starting));
    assert_eq!(wait(&adopted.lease, Some("Priority")).await, Written::Done);
    assert_eq!(wait(&adopted.lease, None).await, Written::Done);
    let events = storage.list_run_events(first.run.id, 0, 10).await.expect("read");
    let waited: Vec<_> =
        events.iter().filter(|event| event.kind == "waiting").map(|event| event.detail.as_deref()).collect();
    assert_eq!(waited, [Some("Resources"), Some("Priority")]);
    assert!(events.iter().map(|event| event.sequence).eq(1..=u64::try_from(events.len()).expect("few")));
}

#[sqlx::test]
async fn a_run_of_another_node_is_not_adopted(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let held = admit_one(&storage, &clock).await;
    expire(&pool, &held.lease).await;
    assert!(storage.adopt_runs(&claimant("b"), 10).await.expect("asked").is_empty());
    assert_eq!(storage.adopt_runs(&claimant("a"), 10).await.expect("asked").len(), 1);
}

#[sqlx::test]
async fn a_restarted_node_gets_its_runs_back_at_once(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    admit_one(&storage, &clock).await;
    assert_eq!(storage.release_leases_of("b").await.expect("asked"), 0);
    assert_eq!(storage.release_leases_of("a").await.expect("asked"), 1);
    assert_eq!(storage.adopt_runs(&claimant("a"), 10).await.expect("asked").len(), 1);
}

#[sqlx::test]
async fn a_cancel_meets_the_worker_at_its_next_write_and_at_its_next_renewal(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let held = admit_one(&storage, &clock).await;
    let canceled = storage.of(&Default::default()).cancel_run(held.run.id, clock.now()).await.expect("asked");
    let Cancellation::Accepted(run) = canceled else { panic!("{canceled:?}") };
    assert_eq!(run.status, Status::CancelRequested);
    let written = storage
        .move_run(&held.lease, Status::Preparing, &Move::to(Status::Starting), clock.now())
        .await
        .expect("asked");
    assert_eq!(written, Written::StatusIs(Status::CancelRequested));
    let renewed = storage.renew_leases(&[held.lease], Duration::from_secs(60)).await.expect("renewed");
    assert!(renewed[0].cancel_requested);
    // Asking again is no error and adds nothing to the history.
    storage.of(&Default::default()).cancel_run(held.run.id, clock.now()).await.expect("asked");
    assert_eq!(storage.list_run_events(held.run.id, 0, 10).await.expect("read").len(), 3);
}

#[sqlx::test]
async fn an_end_is_written_once(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let held = admit_one(&storage, &clock).await;
    let ending = Ending {
        cause: Some(Cause::EnvironmentBuildFailed),
        detail: Some("no such package".to_owned()),
        ..Ending::default()
    };
    let end = Move::End { status: Status::Failed, ending };
    let written = storage.move_run(&held.lease, Status::Preparing, &end, clock.now()).await.expect("written");
    assert_eq!(written, Written::Done);
    let run = storage.of(&Default::default()).get_run(held.run.id).await.expect("read").expect("there");
    assert_eq!((run.status, run.cause), (Status::Failed, Some(Cause::EnvironmentBuildFailed)));
    assert_eq!(run.finished_at, Some(clock.now()));
    // Whose answer was lost writes it again, and finds it done. Nobody makes another end of it.
    let again = storage.move_run(&held.lease, Status::Preparing, &end, clock.now()).await.expect("asked");
    assert_eq!(again, Written::StatusIs(Status::Failed));
    let other = Move::End { status: Status::Canceled, ending: Ending::default() };
    assert_eq!(
        storage.move_run(&held.lease, Status::Preparing, &other, clock.now()).await.expect("asked"),
        Written::LeaseLost
    );
    // Not even by hand.
    for statement in [
        "UPDATE runs SET status = 'Running', cause = NULL, finished_at = NULL",
        "UPDATE runs SET exit_code = 0",
        "UPDATE runs SET cause = 'internal'",
        "UPDATE runs SET attempt = 0",
    ] {
        let refused = sqlx::query(statement).execute(&pool).await;
        assert!(refused.is_err(), "{statement}");
    }
    sqlx::query("UPDATE runs SET tags = '{\"k\": \"v\"}'")
        .execute(&pool)
        .await
        .expect("labels are no part of the end");
}

#[sqlx::test]
async fn a_lost_attempt_goes_back_to_the_queue_and_keeps_its_row(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let held = admit_with(&storage, &clock, |run| run.max_attempts = 2).await;
    let ending =
        Ending { cause: Some(Cause::ComputeLost), detail: Some("gone".to_owned()), ..Ending::default() };
    let requeue = Move::Requeue { ending, delay: TimeDelta::seconds(10) };
    storage.move_run(&held.lease, Status::Preparing, &requeue, clock.now()).await.expect("written");
    assert!(
        storage.admit_runs(&claimant("b"), Order::Priority, 10, clock.now()).await.expect("asked").is_empty(),
        "not yet due"
    );
    // Whatever a worker's clock says: the database's decides.
    clock.advance(TimeDelta::hours(11));
    assert!(
        storage.admit_runs(&claimant("b"), Order::Priority, 10, clock.now()).await.expect("asked").is_empty()
    );
    sqlx::query("UPDATE runs SET next_step_at = next_step_at - interval '11 seconds'")
        .execute(&pool)
        .await
        .expect("changed");
    let again = storage.admit_runs(&claimant("b"), Order::Priority, 10, clock.now()).await.expect("claimed");
    assert_eq!((again.len(), again[0].run.attempt, again[0].run.cause), (1, 2, None));
    let attempts = support::shown(&storage, held.run.id).await.attempts;
    assert_eq!(attempts.len(), 2);
    assert_eq!(attempts[0].cause, Some(Cause::ComputeLost));
    assert_eq!((attempts[1].node.as_str(), attempts[1].cause), ("b", None));
    let project = storage.of(&Default::default());
    let listed = project.list_runs(&RunFilter::default(), None, 10).await.expect("read");
    assert_eq!((listed.len(), &listed[0].attempts), (1, &attempts), "one entry, with all attempts");
}

#[sqlx::test]
async fn an_impossible_move_is_refused_by_the_database(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let held = admit_one(&storage, &clock).await;
    let jump = Move::End { status: Status::Completed, ending: Ending::default() };
    let refused = storage.move_run(&held.lease, Status::Preparing, &jump, clock.now()).await;
    assert!(matches!(refused, Err(StorageError::Refused(_))), "{refused:?}");
}

#[sqlx::test]
async fn who_finds_nothing_to_admit_keeps_nobody_from_admitting(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    for _ in 0..20 {
        // Nothing is there: the lock must be gone when this has been answered, whichever connection asks next.
        let none = storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("asked");
        assert!(none.is_empty());
        let admitted = admit_one(&storage, &clock).await;
        let end = Ending { cause: Some(Cause::DispatchFailed), ..Ending::default() };
        let end = Move::End { status: Status::Failed, ending: end };
        storage.move_run(&admitted.lease, Status::Preparing, &end, clock.now()).await.expect("written");
    }
}
