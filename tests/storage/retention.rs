//! What is old goes, and nothing that somebody needs.

use std::time::Duration;

use chrono::TimeDelta;
use estimatord::{
    clock::Clock as _,
    domain::ids::{RunId, SnapshotId},
    storage::{
        Storage, StorageError, estimators::Estimator, idempotency::Recorded, new_runs::Insertion,
        retention::ArtifactDeletion, runs::Run,
    },
};
use serde_json::json;
use sqlx::{PgPool, Row as _};

use crate::{
    accept, answer,
    support::{self, FixedClock, snapshot_id},
};

/// The tests' clock is behind the database's by more than this.
const KEEP: Duration = Duration::from_secs(3600);

/// A run that has ended, by the tests' clock: long ago.
async fn ended(storage: &Storage, clock: &FixedClock, change: impl FnOnce(&mut Run)) -> Run {
    let run = accept(storage, clock, change).await;
    storage.of(&Default::default()).cancel_run(run.id, clock.now()).await.expect("canceled");
    run
}

async fn count(pool: &PgPool, table: &str, column: &str, id: RunId) -> i64 {
    let text = format!("SELECT count(*) FROM {table} WHERE {column} = $1");
    let found = sqlx::query(sqlx::AssertSqlSafe(text)).bind(id.as_uuid()).fetch_one(pool);
    found.await.expect("counted").get(0)
}

async fn execute(pool: &PgPool, text: &'static str) -> u64 {
    sqlx::query(text).execute(pool).await.expect(text).rows_affected()
}

/// Everything that is deleted in one go.
async fn delete_all(storage: &Storage) -> Vec<RunId> {
    let mut deleted = Vec::new();
    while let Some(run) = storage.delete_old_run(KEEP).await.expect("deleted") {
        deleted.push(run);
    }
    deleted
}

async fn taken(storage: &Storage) -> Option<ArtifactDeletion> {
    let taken = storage.take_artifacts().await.expect("asked")?;
    let deletion = taken.deletion.clone();
    assert!(!taken.is_in_use);
    taken.are_gone().await.expect("noted");
    Some(deletion)
}

#[sqlx::test]
async fn an_old_run_goes_with_all_of_its_rows_and_others_stay(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let first = ended(&storage, &clock, |_| {}).await;
    let second = ended(&storage, &clock, |_| {}).await;
    let live = accept(&storage, &clock, |_| {}).await;
    let young = accept(&storage, &clock, |_| {}).await;
    storage
        .of(&Default::default())
        .cancel_run(young.id, estimatord::clock::SystemClock.now())
        .await
        .expect("canceled");
    for text in [
        "INSERT INTO run_attempts (run_id, number, node, created_at) SELECT id, 1, 'n', now() FROM runs",
        "INSERT INTO run_logs (run_id, attempt, name, bytes) SELECT id, 1, 'l', 1 FROM runs",
        "INSERT INTO run_outputs (run_id, attempt, name, bytes, sha256) SELECT id, 1, 'o', 1, 'x' FROM runs",
        "INSERT INTO run_record_files (run_id, attempt, name, bytes) SELECT id, 1, 'r', 1 FROM runs",
        "INSERT INTO run_metrics (run_id, attempt, sequence, name, kind, value, rank, recorded_at)
         SELECT id, 1, 1, 'm', 'scalar', '1', 0, now() FROM runs",
    ] {
        execute(&pool, text).await;
    }
    assert_eq!(delete_all(&storage).await, [first.id, second.id], "the oldest first");
    for of in [first.id, second.id] {
        assert_eq!(storage.of(&Default::default()).get_run(of).await.expect("read"), None);
        let tables =
            ["run_attempts", "run_logs", "run_outputs", "run_record_files", "run_metrics", "run_events"];
        for table in tables {
            assert_eq!(count(&pool, table, "run_id", of).await, 0, "{table}");
        }
    }
    for of in [live.id, young.id] {
        assert!(storage.of(&Default::default()).get_run(of).await.expect("read").is_some());
        assert_eq!(count(&pool, "run_metrics", "run_id", of).await, 1);
    }
}

#[sqlx::test]
async fn a_run_that_was_repeated_can_go_and_its_repetition_names_it_still(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    let first = ended(&storage, &clock, |_| {}).await;
    let second = accept(&storage, &clock, |run| run.rerun_of = Some(first.id)).await;
    assert_eq!(delete_all(&storage).await, [first.id]);
    let second = storage.of(&Default::default()).get_run(second.id).await.expect("read").expect("there");
    assert_eq!(second.rerun_of, Some(first.id));
}

#[sqlx::test]
async fn a_run_of_which_somebody_is_still_to_be_told_waits(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    execute(
        &pool,
        "INSERT INTO webhooks (name, url, statuses, secret, enabled, created_at, updated_at)
         VALUES ('w', 'https://example.com', '{}', '', true, now(), now())",
    )
    .await;
    let run = ended(&storage, &clock, |_| {}).await;
    assert_eq!(delete_all(&storage).await, []);
    execute(
        &pool,
        "UPDATE webhook_deliveries SET status = 'delivered', next_attempt_at = NULL, finished_at = now()",
    )
    .await;
    assert_eq!(delete_all(&storage).await, [run.id]);
    assert_eq!(count(&pool, "webhook_deliveries", "run_id", run.id).await, 0);

    // Nobody is told while the webhook is disabled, perhaps never: that keeps nothing.
    let run = ended(&storage, &clock, |_| {}).await;
    execute(&pool, "UPDATE webhooks SET enabled = false").await;
    assert_eq!(delete_all(&storage).await, [run.id]);
}

#[sqlx::test]
async fn a_run_that_has_not_ended_is_deleted_by_nobody(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let run = accept(&storage, &FixedClock::default(), |_| {}).await;
    let error = sqlx::query("DELETE FROM runs").execute(&pool).await.expect_err("it is queued");
    let constraint = error.as_database_error().and_then(|error| error.constraint().map(str::to_owned));
    assert_eq!(constraint.as_deref(), Some("only_ended_runs_are_deleted"));
    assert!(storage.of(&Default::default()).get_run(run.id).await.expect("read").is_some());
}

#[sqlx::test]
async fn estimators_go_with_their_last_run_or_when_they_are_archived(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let inline = ended(&storage, &clock, |_| {}).await.estimator_id;
    let used = accept(&storage, &clock, |_| {}).await.estimator_id;
    let stored = support::estimator(clock.now());
    let recorded = || Recorded { status: 201, location: None, body: json!({}).to_string() };
    storage.of(&Default::default()).insert_estimator(&stored, None, recorded).await.expect("stored");
    let sweep = async || {
        // In pages of one: none is left out.
        let (mut after, mut deleted) = (None, 0);
        loop {
            let swept = storage.delete_unused_estimators(after, 1).await.expect("deleted");
            deleted += swept.deleted;
            after = swept.last;
            if after.is_none() {
                return deleted;
            }
        }
    };
    assert_eq!(sweep().await, 0, "its run is there");
    delete_all(&storage).await;
    assert_eq!(sweep().await, 1);
    assert_eq!(storage.of(&Default::default()).get_estimator(inline).await.expect("read"), None);
    storage
        .of(&Default::default())
        .archive_estimator(stored.id, estimatord::clock::SystemClock.now())
        .await
        .expect("archived");
    assert_eq!(sweep().await, 0, "it was archived a moment ago");
    execute(
        &pool,
        "UPDATE estimators SET archived_at = now() - interval '25 hours' WHERE archived_at IS NOT NULL",
    )
    .await;
    assert_eq!(sweep().await, 1);
    assert!(storage.of(&Default::default()).get_estimator(used).await.expect("read").is_some());
}

/// Makes every snapshot one that nobody has uploaded for days.
async fn age_snapshots(pool: &PgPool) {
    execute(pool, "UPDATE snapshots SET uploaded_at = now() - interval '2 days'").await;
}

async fn sweep_snapshots(storage: &Storage) -> u64 {
    let (mut after, mut deleted) = (None, 0);
    loop {
        let swept = storage.delete_unused_snapshots(after.as_deref(), 1).await.expect("deleted");
        deleted += swept.deleted;
        after = swept.last;
        if after.is_none() {
            return deleted;
        }
    }
}

async fn store(storage: &Storage, id: &SnapshotId) {
    let answer = |_, _| Recorded { status: 201, location: None, body: json!({}).to_string() };
    let now = FixedClock::default().now();
    storage.of(&Default::default()).insert_snapshot(id, &[], None, now, answer).await.expect("stored");
}

#[sqlx::test]
async fn a_snapshot_stays_while_anything_refers_to_it_and_a_day_after_its_upload(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let (used, unused) = (snapshot_id(1), snapshot_id(2));
    let run = ended(&storage, &clock, |_| {}).await;
    store(&storage, &unused).await;
    assert_eq!(sweep_snapshots(&storage).await, 0, "uploaded a moment ago");
    age_snapshots(&pool).await;
    assert_eq!(sweep_snapshots(&storage).await, 1);
    assert_eq!(storage.of(&Default::default()).get_snapshot(&unused).await.expect("read"), None);
    assert_eq!(taken(&storage).await, Some(ArtifactDeletion::Snapshot(unused)));

    delete_all(&storage).await;
    assert_eq!(sweep_snapshots(&storage).await, 0, "its estimator refers to it");
    storage.delete_unused_estimators(None, 10).await.expect("deleted");
    storage.expect_snapshot(&used).await.expect("noted");
    assert_eq!(sweep_snapshots(&storage).await, 0, "somebody uploads it again");
    age_snapshots(&pool).await;
    assert_eq!(sweep_snapshots(&storage).await, 1);
    let files = [taken(&storage).await, taken(&storage).await];
    assert!(files.contains(&Some(ArtifactDeletion::Snapshot(used))));
    assert!(files.contains(&Some(ArtifactDeletion::Run(run.id))));
}

#[sqlx::test]
async fn bytes_that_two_projects_share_go_with_the_last_of_them(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let other: estimatord::domain::project::Project = "other".parse().expect("a project");
    let id = snapshot_id(1);
    let now = clock.now();
    let answer = |_, _| Recorded { status: 201, location: None, body: json!({}).to_string() };
    storage.of(&other).insert_snapshot(&id, &[], None, now, answer).await.expect("stored");
    // The run of one project keeps nothing of another.
    let run = accept(&storage, &clock, |_| {}).await;
    age_snapshots(&pool).await;
    assert_eq!(sweep_snapshots(&storage).await, 1);
    assert_eq!(storage.of(&other).get_snapshot(&id).await.expect("read"), None);
    assert!(storage.of(&Default::default()).get_snapshot(&id).await.expect("read").is_some());
    let shared = storage.take_artifacts().await.expect("asked").expect("noted");
    assert!(shared.is_in_use, "the bytes are those of the run");
    shared.are_gone().await.expect("noted");
    storage.of(&Default::default()).cancel_run(run.id, now).await.expect("canceled");
    delete_all(&storage).await;
    storage.delete_unused_estimators(None, 10).await.expect("deleted");
    // Whoever uploads it, for whichever project, keeps it for all.
    storage.expect_snapshot(&id).await.expect("noted");
    assert_eq!(sweep_snapshots(&storage).await, 0);
    age_snapshots(&pool).await;
    assert_eq!(sweep_snapshots(&storage).await, 1);
    let files = [taken(&storage).await, taken(&storage).await];
    assert!(files.contains(&Some(ArtifactDeletion::Snapshot(id))), "{files:?}");
}

/// Waits until somebody waits for a lock.
async fn until_somebody_waits(pool: &PgPool) {
    loop {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .fetch_one(pool)
        .await
        .expect("asked");
        if waiting > 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn new_run(clock: &FixedClock) -> (Run, Estimator) {
    clock.advance(TimeDelta::milliseconds(1));
    let estimator = support::estimator(clock.now());
    (support::run(&estimator, clock.now()), estimator)
}

async fn insert(storage: &Storage, run: &Run, estimator: &Estimator) -> Result<Insertion, StorageError> {
    storage.insert_run(run, Some(estimator), support::terms(None), || answer(run)).await
}

#[sqlx::test]
async fn a_snapshot_that_is_being_used_is_left_alone_before_anybody_can_see_the_use(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    support::store_snapshot(&storage).await;
    age_snapshots(&pool).await;
    // Another replica, half-way through accepting a run.
    let mut other = pool.begin().await.expect("begun");
    let estimator = support::estimator(clock.now());
    sqlx::query(
        "INSERT INTO estimators (id, framework, definition, findings, environment, rule_set_version, created_at)
         VALUES ($1, 'Chainer', json_build_object('source_directory', $2::text), '[]', '{}', '1', now())",
    )
    .bind(estimator.id.as_uuid())
    .bind(snapshot_id(1).as_str())
    .execute(&mut *other)
    .await
    .expect("inserted");
    assert_eq!(sweep_snapshots(&storage).await, 0);
    other.commit().await.expect("committed");
    assert_eq!(sweep_snapshots(&storage).await, 0);
    assert!(storage.of(&Default::default()).get_snapshot(&snapshot_id(1)).await.expect("read").is_some());
}

#[sqlx::test]
async fn a_run_of_a_snapshot_that_is_being_deleted_waits_and_is_refused(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    support::store_snapshot(&storage).await;
    let mut other = pool.begin().await.expect("begun");
    sqlx::query("DELETE FROM snapshots").execute(&mut *other).await.expect("deleted");
    let (run, estimator) = new_run(&clock);
    let accepting = tokio::spawn({
        let (storage, run, estimator) = (storage.clone(), run.clone(), estimator);
        async move { insert(&storage, &run, &estimator).await }
    });
    until_somebody_waits(&pool).await;
    other.commit().await.expect("committed");
    let error = accepting.await.expect("no panic").expect_err("it is gone");
    assert!(error.is_about_what_is_gone(), "{error}");
    assert_eq!(storage.of(&Default::default()).get_run(run.id).await.expect("read"), None);
}

#[sqlx::test]
async fn no_run_is_accepted_of_what_is_deleted_at_the_same_time(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let clock = FixedClock::default();
    let (mut accepted, mut refused) = (0, 0);
    for round in 0..200 {
        support::store_snapshot(&storage).await;
        age_snapshots(&pool).await;
        let (run, estimator) = new_run(&clock);
        let accepting = tokio::spawn({
            let (storage, run, estimator) = (storage.clone(), run.clone(), estimator);
            async move { insert(&storage, &run, &estimator).await }
        });
        let deleting = tokio::spawn({
            let storage = storage.clone();
            async move {
                // Now a little earlier, now a little later: asking takes about as long as half of accepting.
                for _ in 0..round % 4 {
                    storage.ping().await.expect("asked");
                }
                storage.delete_unused_snapshots(None, 10).await.expect("deleted").deleted
            }
        });
        let (inserted, deleted) = (accepting.await.expect("no panic"), deleting.await.expect("no panic"));
        let is_there =
            storage.of(&Default::default()).get_snapshot(&snapshot_id(1)).await.expect("read").is_some();
        match inserted {
            Ok(_) => {
                accepted += 1;
                assert!(is_there && deleted == 0, "round {round}: a run without its source tree");
                storage.of(&Default::default()).cancel_run(run.id, clock.now()).await.expect("canceled");
                delete_all(&storage).await;
                storage.delete_unused_estimators(None, 10).await.expect("deleted");
            }
            Err(error) => {
                refused += 1;
                assert!(error.is_about_what_is_gone(), "{error}");
                assert!(!is_there && deleted == 1, "round {round}");
            }
        }
    }
    assert!(accepted > 0 && refused > 0, "no race at all: {accepted} accepted, {refused} refused");
}

#[sqlx::test]
async fn whoever_uploads_a_snapshot_waits_for_its_bytes_to_be_gone_or_keeps_them(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let id = snapshot_id(1);
    let delete_row = async || {
        store(&storage, &id).await;
        age_snapshots(&pool).await;
        assert_eq!(sweep_snapshots(&storage).await, 1);
    };
    // The bytes are being deleted: the upload waits, and then finds that they are not there.
    delete_row().await;
    let deleting = storage.take_artifacts().await.expect("asked").expect("due");
    let expecting = tokio::spawn({
        let (storage, id) = (storage.clone(), id.clone());
        async move { storage.expect_snapshot(&id).await }
    });
    until_somebody_waits(&pool).await;
    assert!(!expecting.is_finished());
    deleting.are_gone().await.expect("noted");
    expecting.await.expect("no panic").expect("expected");
    // They are to be deleted: not any more.
    delete_row().await;
    storage.expect_snapshot(&id).await.expect("expected");
    assert_eq!(taken(&storage).await, None);
    // A version that does not know of this has stored the row: its bytes stay.
    delete_row().await;
    store(&storage, &id).await;
    let in_use = storage.take_artifacts().await.expect("asked").expect("due");
    assert!(in_use.is_in_use);
}

#[sqlx::test]
async fn a_deletion_that_is_cut_off_is_done_by_the_next_and_once_more_an_hour_later(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let run = ended(&storage, &FixedClock::default(), |_| {}).await;
    delete_all(&storage).await;
    let deletion = ArtifactDeletion::Run(run.id);
    let cut_off = storage.take_artifacts().await.expect("asked").expect("due");
    assert_eq!(cut_off.deletion, deletion);
    assert!(storage.take_artifacts().await.expect("asked").is_none(), "one at a time");
    drop(cut_off);
    let refused = loop {
        // The database takes note of the end a moment later.
        match storage.take_artifacts().await.expect("asked") {
            Some(taken) => break taken,
            None => tokio::task::yield_now().await,
        }
    };
    assert_eq!(refused.deletion, deletion);
    refused.put_off(Duration::from_secs(60)).await.expect("noted");
    assert_eq!(taken(&storage).await, None);
    execute(&pool, "UPDATE artifact_deletions SET due_at = now()").await;
    assert_eq!(taken(&storage).await, Some(deletion.clone()));
    assert_eq!(taken(&storage).await, None);
    execute(&pool, "UPDATE artifact_deletions SET due_at = now()").await;
    assert_eq!(taken(&storage).await, Some(deletion));
    assert_eq!(execute(&pool, "DELETE FROM artifact_deletions").await, 0, "nothing is left to be done");
}

#[sqlx::test]
async fn bytes_that_nobody_knows_of_are_deleted_a_day_later(pool: PgPool) {
    let storage = Storage::from_pool(pool.clone());
    let (known, unknown) = (snapshot_id(1), snapshot_id(2));
    store(&storage, &known).await;
    let stored = [known, unknown.clone()];
    assert_eq!(storage.note_unknown_snapshots(&stored).await.expect("noted"), 1);
    assert_eq!(storage.note_unknown_snapshots(&stored).await.expect("noted"), 0);
    assert_eq!(taken(&storage).await, None);
    execute(&pool, "UPDATE artifact_deletions SET due_at = due_at - interval '24 hours'").await;
    assert_eq!(taken(&storage).await, Some(ArtifactDeletion::Snapshot(unknown)));
}
