//! What scripts record: taken over once, in order, and only by whoever holds the run.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use estimatord::{
    clock::Clock as _,
    domain::record::{Metric, MetricKind, Record},
    storage::{
        Storage,
        admission::Order,
        leases::{Claimed, Lease},
        run_metrics::{MetricFilter, RecordFile, RecordPart},
        transitions::Written,
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    accept, claimant,
    support::{self, FixedClock},
};

fn metric(name: &str, value: Value) -> Record {
    Record::Metric(Metric {
        name: name.to_owned(),
        kind: MetricKind::Scalar,
        value,
        step: Some(3),
        recorded_at: DateTime::UNIX_EPOCH,
        description: None,
        child: None,
    })
}

const ALL: MetricFilter<'_> =
    MetricFilter { attempt: 1, name: None, rank: None, after: 0, limit: 100, bytes: 1 << 20 };

struct Stage {
    storage: Storage,
    lease: Lease,
    now: DateTime<Utc>,
}

impl Stage {
    async fn new(pool: PgPool) -> Self {
        let storage = Storage::from_pool(pool);
        let clock = FixedClock::default();
        accept(&storage, &clock, |_| {}).await;
        let claimed =
            storage.admit_runs(&claimant("a"), Order::Priority, 1, clock.now()).await.expect("admitted");
        let [Claimed { lease, .. }] = claimed[..] else { panic!("{claimed:?}") };
        Self { storage, lease, now: clock.now() }
    }

    async fn take(&self, lease: &Lease, rank: i32, file: &RecordFile, records: &[Record]) -> Written {
        let part = RecordPart { attempt: 1, file, rank, records };
        self.storage.take_records(lease, &part, self.now).await.expect("asked")
    }

    async fn names(&self, filter: &MetricFilter<'_>) -> (Vec<(u64, String)>, bool) {
        let (found, more) = self.storage.list_run_metrics(self.lease.run_id, filter).await.expect("read");
        (found.into_iter().map(|m| (m.sequence, m.metric.name)).collect(), more)
    }
}

fn file(name: &str, bytes: u64) -> RecordFile {
    RecordFile { name: name.to_owned(), bytes, fault: None }
}

#[sqlx::test]
async fn values_come_back_in_order_with_their_rank_and_spelling(pool: PgPool) {
    let stage = Stage::new(pool).await;
    let big: Value = serde_json::from_str("123456789012345678901234567890").expect("a number");
    let values = [metric("a", json!(0.5)), metric("b", big.clone()), metric("a", json!("NaN"))];
    assert_eq!(stage.take(&stage.lease, 0, &file("0-1-a.jsonl", 90), &values).await, Written::Done);
    assert_eq!(stage.take(&stage.lease, 2, &file("2-9-a.jsonl", 30), &values[..1]).await, Written::Done);
    let (found, more) = stage.storage.list_run_metrics(stage.lease.run_id, &ALL).await.expect("read");
    assert!(!more);
    let seen: Vec<_> = found.iter().map(|m| (m.sequence, m.metric.name.as_str(), m.rank)).collect();
    assert_eq!(seen, [(1, "a", 0), (2, "b", 0), (3, "a", 0), (4, "a", 2)]);
    assert_eq!((&found[1].metric.value, found[1].metric.step), (&big, Some(3)));
    let files = stage.storage.list_record_files(stage.lease.run_id, 1).await.expect("read");
    assert_eq!(files.len(), 2);
    assert!(files.contains(&file("0-1-a.jsonl", 90)));
}

#[sqlx::test]
async fn pages_end_by_number_and_by_size(pool: PgPool) {
    let stage = Stage::new(pool).await;
    let values: Vec<Record> = (0..5).map(|n| metric("m", json!("x".repeat(n * 10)))).collect();
    stage.take(&stage.lease, 0, &file("0-1-a.jsonl", 1), &values).await;
    let sequences = async |filter: MetricFilter<'_>| {
        let (names, more) = stage.names(&filter).await;
        (names.into_iter().map(|(sequence, _)| sequence).collect::<Vec<_>>(), more)
    };
    assert_eq!(sequences(MetricFilter { limit: 2, ..ALL }).await, (vec![1, 2], true));
    assert_eq!(sequences(MetricFilter { limit: 5, ..ALL }).await, (vec![1, 2, 3, 4, 5], false));
    assert_eq!(sequences(MetricFilter { after: 4, ..ALL }).await, (vec![5], false));
    // With their quotes the values have 2, 12, 22, 32 and 42 bytes.
    assert_eq!(sequences(MetricFilter { bytes: 36, ..ALL }).await, (vec![1, 2, 3], true));
    assert_eq!(sequences(MetricFilter { bytes: 37, ..ALL }).await, (vec![1, 2, 3, 4], true));
    assert_eq!(sequences(MetricFilter { bytes: 1, after: 4, ..ALL }).await, (vec![5], true));
    assert_eq!(sequences(MetricFilter { name: Some("other"), ..ALL }).await, (vec![], false));
    assert_eq!(sequences(MetricFilter { rank: Some(1), ..ALL }).await, (vec![], false));
}

#[sqlx::test]
async fn tags_properties_and_a_failure_reach_the_run(pool: PgPool) {
    let stage = Stage::new(pool).await;
    let records = [
        Record::Tag("stage".into(), "one".into()),
        Record::Tag("gone".into(), "x".into()),
        Record::TagRemoved("gone".into()),
        Record::Property("data".into(), "v3".into()),
        Record::Failed("diverged".into()),
    ];
    stage.take(&stage.lease, 0, &file("0-1-a.jsonl", 9), &records).await;
    let id = stage.lease.run_id;
    let run = stage.storage.of(&Default::default()).get_run(id).await.expect("read").expect("there");
    assert_eq!(run.tags.get("stage").map(String::as_str), Some("one"));
    assert!(!run.tags.contains_key("gone"));
    let properties = support::shown(&stage.storage, id).await.properties;
    assert_eq!(properties, BTreeMap::from([("data".to_owned(), "v3".to_owned())]));
    let said = stage.storage.reported_failure(id, 1).await.expect("read");
    assert_eq!(said.as_deref(), Some("diverged"));
}

#[sqlx::test]
async fn a_fault_is_told_in_the_history(pool: PgPool) {
    let stage = Stage::new(pool).await;
    let faulty = RecordFile { fault: Some("the line at byte 9 is none".into()), ..file("3-1-a.jsonl", 9) };
    stage.take(&stage.lease, 3, &faulty, &[]).await;
    let events = stage.storage.list_run_events(stage.lease.run_id, 0, 10).await.expect("read");
    let told = events.last().expect("an event");
    assert_eq!(told.kind, "metrics");
    assert_eq!(told.detail.as_deref(), Some("records of rank 3 were left out: the line at byte 9 is none"));
}

#[sqlx::test]
async fn whoever_lost_the_lease_writes_nothing(pool: PgPool) {
    let stage = Stage::new(pool).await;
    let other = Lease { token: Uuid::nil(), ..stage.lease };
    let written = stage.take(&other, 0, &file("0-1-a.jsonl", 9), &[metric("a", json!(1))]).await;
    assert_eq!(written, Written::LeaseLost);
    assert_eq!(stage.names(&ALL).await, (vec![], false));
    assert!(stage.storage.list_record_files(stage.lease.run_id, 1).await.expect("read").is_empty());
}
