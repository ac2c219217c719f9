//! Moves that are written at once: of several runs, and several of one.

use chrono::TimeDelta;
use estimatord::{
    clock::Clock as _,
    domain::run::{Cause, Ending, Move, Status},
    storage::{
        Storage,
        admission::Order,
        leases::{Claimed, Lease},
        moves::Transition,
        transitions::Written,
    },
};
use sqlx::PgPool;

use crate::{
    accept, claimant,
    support::{self, FixedClock},
};

async fn admit(storage: &Storage, clock: &FixedClock, runs: usize) -> Vec<Claimed> {
    for _ in 0..runs {
        accept(storage, clock, |_| {}).await;
    }
    let claimed =
        storage.admit_runs(&claimant("a"), Order::Priority, 10, clock.now()).await.expect("claimed");
    assert_eq!(claimed.len(), runs);
    claimed
}

fn write(lease: Lease, from: Status, steps: Vec<Move>, clock: &FixedClock) -> Transition {
    Transition { lease, from, steps, now: clock.now() }
}

fn completed() -> Move {
    let ending = Ending { exit_code: Some(0), ..Ending::default() };
    Move::End { status: Status::Completed, ending }
}

#[sqlx::test]
async fn moves_of_one_run_that_are_written_at_once_are_each_in_its_history(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let claimed = admit(&storage, &clock, 1).await.remove(0);
    let (run, lease) = (claimed.run.id, claimed.lease);
    storage
        .move_run(&lease, Status::Preparing, &Move::to(Status::Starting), clock.now())
        .await
        .expect("written");
    let started_at = clock.now() + TimeDelta::seconds(1);
    let steps = vec![Move::running(started_at), Move::to(Status::Finalizing), completed()];
    let at_once = write(lease, Status::Starting, steps, &clock);
    assert_eq!(storage.move_runs(std::slice::from_ref(&at_once)).await.expect("written"), [Written::Done]);

    let events = storage.list_run_events(run, 0, 100).await.expect("read");
    let history: Vec<(u64, Status)> = events.iter().map(|event| (event.sequence, event.status)).collect();
    let statuses = [
        Status::Queued,
        Status::Preparing,
        Status::Starting,
        Status::Running,
        Status::Finalizing,
        Status::Completed,
    ];
    assert_eq!(history, (1..).zip(statuses).collect::<Vec<_>>());
    let ended = storage.get_run(run).await.expect("read").expect("there");
    assert_eq!(
        (ended.status, ended.exit_code, ended.started_at),
        (Status::Completed, Some(0), Some(started_at))
    );
    let attempt = support::shown(&storage, run).await.attempts.remove(0);
    assert_eq!((attempt.started_at, attempt.finished_at), (Some(started_at), ended.finished_at));

    // Written again, since the answer did not come: it is known to be there.
    let again = storage.move_runs(&[at_once]).await.expect("asked");
    assert_eq!(again, [Written::StatusIs(Status::Completed)]);
    assert_eq!(storage.list_run_events(run, 0, 100).await.expect("read").len(), 6);
}

#[sqlx::test]
async fn of_moves_of_several_runs_each_counts_for_itself(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let claimed = admit(&storage, &clock, 4).await;
    let [moved, canceled, lost, failed] = [0, 1, 2, 3].map(|place: usize| claimed[place].lease);
    storage.of(&Default::default()).cancel_run(canceled.run_id, clock.now()).await.expect("asked");
    sqlx::query("UPDATE runs SET lease_token = gen_random_uuid() WHERE id = $1")
        .bind(lost.run_id.as_uuid())
        .execute(&pool)
        .await
        .expect("taken over");
    let to_starting = |lease| write(lease, Status::Preparing, vec![Move::to(Status::Starting)], &clock);
    let ending = Ending { cause: Some(Cause::DispatchFailed), ..Ending::default() };
    let end = Move::End { status: Status::Failed, ending };
    let written = storage
        .move_runs(&[
            to_starting(moved),
            to_starting(canceled),
            to_starting(lost),
            write(failed, Status::Preparing, vec![end], &clock),
        ])
        .await
        .expect("written");
    let expected =
        [Written::Done, Written::StatusIs(Status::CancelRequested), Written::LeaseLost, Written::Done];
    assert_eq!(written, expected);
    let mut statuses = Vec::new();
    for claimed in &claimed {
        statuses.push(storage.get_run_status(claimed.run.id).await.expect("read").expect("there"));
    }
    assert_eq!(statuses, [Status::Starting, Status::CancelRequested, Status::Preparing, Status::Failed]);
}

#[sqlx::test]
async fn webhooks_hear_of_every_move_that_is_written_at_once(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let claimed = admit(&storage, &clock, 2).await;
    sqlx::query(
        "INSERT INTO webhooks (name, url, statuses, secret, enabled, created_at, updated_at)
         VALUES ('all', 'https://example.org', '{}', '', true, now(), now()),
                ('ends', 'https://example.org', '{Completed,Failed}', '', true, now(), now()),
                ('off', 'https://example.org', '{}', '', false, now(), now())",
    )
    .execute(&pool)
    .await
    .expect("stored");
    let steps = || vec![Move::to(Status::Starting), Move::running(clock.now())];
    let moves: Vec<Transition> =
        claimed.iter().map(|claimed| write(claimed.lease, Status::Preparing, steps(), &clock)).collect();
    // What leads there in one step is refused, and a note is not told.
    storage.note_run_event(&claimed[0].lease, "environment", "x", clock.now()).await.expect("noted");
    storage.move_runs(&moves).await.expect_err("Preparing does not lead to Running, in the database");
    for claimed in &claimed {
        storage
            .move_run(&claimed.lease, Status::Preparing, &Move::to(Status::Starting), clock.now())
            .await
            .expect("written");
    }
    let short = || vec![Move::running(clock.now()), Move::to(Status::Finalizing), completed()];
    let ends: Vec<Transition> =
        claimed.iter().map(|claimed| write(claimed.lease, Status::Starting, short(), &clock)).collect();
    storage.move_runs(&ends).await.expect("written");
    let told: Vec<(String, i64)> =
        sqlx::query_as("SELECT webhook, count(*) FROM webhook_deliveries GROUP BY webhook ORDER BY webhook")
            .fetch_all(&pool)
            .await
            .expect("read");
    assert_eq!(told, [("all".to_owned(), 8), ("ends".to_owned(), 2)]);
}
