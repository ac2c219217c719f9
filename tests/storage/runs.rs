//! Runs: accepting, listing, cancelling.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use estimatord::{
    clock::Clock as _,
    domain::run::{Cause, Entrant, Status},
    storage::{
        Storage,
        cancel::Cancellation,
        idempotency::{Idempotency, Keyed},
        new_runs::Insertion,
        runs::RunFilter,
    },
};
use sqlx::PgPool;

use crate::{
    accept, answer,
    support::{self, FixedClock, terms},
};

#[sqlx::test]
async fn a_run_comes_back_as_it_was_accepted(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let tags = BTreeMap::from([("team".to_owned(), "vision".to_owned())]);
    let run = accept(&storage, &clock, |run| run.tags.clone_from(&tags)).await;
    assert_eq!(storage.of(&Default::default()).get_run(run.id).await.expect("read"), Some(run.clone()));
    let events = storage.list_run_events(run.id, 0, 10).await.expect("read");
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].sequence, events[0].status), (1, Status::Queued));
}

#[sqlx::test]
async fn a_run_on_a_target_that_is_gone_is_not_accepted_and_nothing_stays(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    support::store_snapshot(&storage).await;
    let clock = FixedClock::default();
    let estimator = support::estimator(clock.now());
    let mut run = support::run(&estimator, clock.now());
    run.compute_target = "gone".to_owned();
    let inserted =
        storage.insert_run(&run, Some(&estimator), terms(None), || answer(&run)).await.expect("asked");
    assert_eq!(inserted, Insertion::TargetGone);
    assert_eq!(storage.of(&Default::default()).get_estimator(estimator.id).await.expect("read"), None);
}

#[sqlx::test]
async fn one_key_makes_one_run(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    support::store_snapshot(&storage).await;
    let clock = FixedClock::default();
    let key =
        Idempotency { scope: "create_run", caller: String::new(), key: "k".to_owned(), body_hash: [1; 32] };
    let estimator = support::estimator(clock.now());
    let run = support::run(&estimator, clock.now());
    storage.insert_run(&run, Some(&estimator), terms(Some(&key)), || answer(&run)).await.expect("accepted");
    let second = support::run(&estimator, clock.now());
    let again =
        storage.insert_run(&second, None, terms(Some(&key)), || answer(&second)).await.expect("asked");
    assert_eq!(again, Insertion::Keyed(Keyed::Replayed(answer(&run))));
    assert_eq!(storage.of(&Default::default()).get_run(second.id).await.expect("read"), None);
}

#[sqlx::test]
async fn lists_are_filtered_and_paged_newest_first(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let mut runs = Vec::new();
    for n in 0..5 {
        let run = accept(&storage, &clock, |run| {
            run.experiment_name = if n % 2 == 0 { "even" } else { "odd" }.to_owned();
            run.tags.insert("n".to_owned(), n.to_string());
        });
        runs.push(run.await);
    }
    let all = storage.of(&Default::default()).list_runs(&RunFilter::default(), None, 2).await.expect("read");
    assert_eq!(all.iter().map(|r| r.id).collect::<Vec<_>>(), [runs[4].id, runs[3].id]);
    let next = Some((all[1].created_at, all[1].id.as_uuid()));
    let rest =
        storage.of(&Default::default()).list_runs(&RunFilter::default(), next, 10).await.expect("read");
    assert_eq!(rest.iter().map(|r| r.id).collect::<Vec<_>>(), [runs[2].id, runs[1].id, runs[0].id]);

    let even = RunFilter { experiment_name: Some("even".to_owned()), ..RunFilter::default() };
    assert_eq!(storage.of(&Default::default()).list_runs(&even, None, 10).await.expect("read").len(), 3);
    let tags = BTreeMap::from([("n".to_owned(), "3".to_owned())]);
    let tagged = RunFilter { tags, ..RunFilter::default() };
    assert_eq!(
        storage.of(&Default::default()).list_runs(&tagged, None, 10).await.expect("read")[0].id,
        runs[3].id
    );
    let running = RunFilter { status: Some(Status::Running), ..RunFilter::default() };
    assert!(storage.of(&Default::default()).list_runs(&running, None, 10).await.expect("read").is_empty());
    let late = RunFilter { created_after: Some(runs[3].created_at), ..RunFilter::default() };
    assert_eq!(storage.of(&Default::default()).list_runs(&late, None, 10).await.expect("read").len(), 1);
}

#[sqlx::test]
async fn cancelling_a_queued_run_ends_it_at_once(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let run = accept(&storage, &clock, |_| {}).await;
    let now = clock.now() + TimeDelta::seconds(1);
    let Cancellation::Accepted(canceled) =
        storage.of(&Default::default()).cancel_run(run.id, now).await.expect("asked")
    else {
        panic!("a queued run can be canceled");
    };
    assert_eq!((canceled.status, canceled.cause), (Status::Canceled, Some(Cause::CanceledByUser)));
    assert_eq!(canceled.finished_at, Some(now));
    assert_eq!(
        storage.of(&Default::default()).cancel_run(run.id, now).await.expect("asked"),
        Cancellation::AlreadyTerminal(Status::Canceled)
    );
}

#[sqlx::test]
async fn why_a_run_waits_is_counted(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    accept(&storage, &clock, |_| {}).await;
    let second = accept(&storage, &clock, |_| {}).await;
    let urgent = accept(&storage, &clock, |run| run.priority = 5).await;
    let ids = [second.id.as_uuid(), urgent.id.as_uuid()];
    let waiting = storage.waiting(&ids, None).await.expect("read");
    assert_eq!(
        (waiting[&second.id].ahead, waiting[&second.id].active, waiting[&second.id].limit),
        (2, 0, None)
    );
    assert_eq!(waiting[&urgent.id].ahead, 0);
    // A target without a limit of its own has the one that workers apply.
    storage.record_process_health(true, "here", 2, clock.now()).await.expect("recorded");
    assert_eq!(storage.waiting(&ids, None).await.expect("read")[&second.id].limit, Some(2));
    // And as a run finds it that is about to come.
    let mut view = storage.queue_view().await.expect("read");
    let entrant = Entrant { compute_target: "local", priority: 0, caller: "", created_at: clock.now() };
    let entered = view.enter(entrant, None);
    assert_eq!((entered.ahead, entered.active, entered.limit), (3, 0, Some(2)));
}
