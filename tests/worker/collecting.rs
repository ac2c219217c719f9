//! What a worker brings over while a run runs and at its end: records, and no more files than are kept.

use std::time::Duration;

use estimatord::{
    domain::{
        ids::RunId,
        run::{Cause, Status},
    },
    storage::run_metrics::MetricFilter,
};
use sqlx::PgPool;

use crate::{Stage, exited, running};

const ALL: MetricFilter<'_> =
    MetricFilter { attempt: 1, name: None, rank: None, after: 0, limit: 1000, bytes: 1 << 20 };

fn line(name: &str) -> String {
    format!("{{\"type\":\"metric\",\"time\":1.0,\"name\":\"{name}\",\"kind\":\"scalar\",\"value\":1}}\n")
}

impl Stage {
    async fn metrics(&self, id: RunId) -> Vec<(String, u32)> {
        let (mut found, _) = self.storage.list_run_metrics(id, &ALL).await.expect("read");
        // Ranks may arrive in any order.
        found.sort_by_key(|found| found.rank);
        found.into_iter().map(|found| (found.metric.name, found.rank)).collect()
    }

    async fn until_metrics(&self, id: RunId, count: usize) -> Vec<(String, u32)> {
        for _ in 0..2000 {
            let found = self.metrics(id).await;
            if found.len() >= count {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{id} never had {count} metrics");
    }

    pub(crate) async fn details(&self, id: RunId, kind: &str) -> Vec<String> {
        let events = self.storage.list_run_events(id, 0, 100).await.expect("read");
        events.into_iter().filter(|event| event.kind == kind).filter_map(|event| event.detail).collect()
    }
}

fn named(pairs: &[(&str, u32)]) -> Vec<(String, u32)> {
    pairs.iter().map(|(name, rank)| ((*name).to_owned(), *rank)).collect()
}

#[sqlx::test]
async fn metrics_appear_while_the_script_runs_and_none_is_lost_at_its_end(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    stage.backend.set(id, running());
    let (first, half) = (line("a"), line("b"));
    stage.backend.write_records(id, "0-10-aa.jsonl", format!("{first}{}", &half[..20]).as_bytes());
    assert_eq!(stage.until_metrics(id, 1).await, named(&[("a", 0)]));
    // The last line of a process that was killed may have no end.
    stage.backend.write_records(id, "0-10-aa.jsonl", format!("{first}{}", half.trim_end()).as_bytes());
    stage.backend.write_records(id, "1-10-aa.jsonl", line("c").as_bytes());
    stage.backend.write_records(id, "note.txt", b"the script's own");
    stage.backend.set(id, exited(0));
    assert_eq!(stage.until_ended(id).await.status, Status::Completed);
    assert_eq!(stage.metrics(id).await, named(&[("a", 0), ("b", 0), ("c", 1)]));
    assert!(stage.details(id, "metrics").await.is_empty());
    worker.stop().await;
}

#[sqlx::test]
async fn a_worker_that_takes_over_has_no_value_twice(pool: PgPool) {
    let stage = Stage::new(pool);
    let first = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    stage.backend.set(id, running());
    stage.backend.write_records(id, "0-1-a.jsonl", line("a").as_bytes());
    stage.until_metrics(id, 1).await;
    first.kill();
    stage.backend.write_records(id, "0-1-a.jsonl", format!("{}{}", line("a"), line("b")).as_bytes());
    let second = stage.start_worker("a");
    stage.backend.set(id, exited(0));
    stage.until_ended(id).await;
    assert_eq!(stage.metrics(id).await, named(&[("a", 0), ("b", 0)]));
    second.stop().await;
}

#[sqlx::test]
async fn a_script_that_calls_its_run_failed_ends_failed(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    let said = b"{\"type\":\"status\",\"time\":1,\"status\":\"failed\",\"message\":\"diverged\"}\n";
    stage.backend.write_records(id, "0-1-a.jsonl", said);
    stage.backend.set(id, exited(0));
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause), (Status::Failed, Some(Cause::ScriptFailed)));
    assert_eq!(run.detail.as_deref(), Some("the script called its run failed: diverged"));
    worker.stop().await;
}

#[sqlx::test]
async fn damaged_records_are_told_and_the_rest_is_taken(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    stage.backend.write_records(id, "0-1-a.jsonl", format!("{}junk\n{}", line("a"), line("b")).as_bytes());
    stage.backend.write_records(id, "1-1-a.jsonl", line("c").as_bytes());
    stage.backend.set(id, exited(0));
    assert_eq!(stage.until_ended(id).await.status, Status::Completed);
    assert_eq!(stage.metrics(id).await, named(&[("a", 0), ("c", 1)]));
    let told = stage.details(id, "metrics").await;
    assert_eq!(told.len(), 1, "{told:?}");
    let start = format!("records of rank 0 were left out: the line at byte {} ", line("a").len());
    assert!(told[0].starts_with(&start), "{told:?}");
    worker.stop().await;
}

#[sqlx::test]
async fn no_more_is_kept_than_the_limits_allow_and_the_history_says_what_is_not(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    stage.backend.write_log(id, "user_logs/std_log.txt", &[b'x'; 1500]);
    stage.backend.write_output(id, "large.npz", &[0; 1001]);
    stage.backend.write_output(id, "small.npz", &[0; 1000]);
    stage.backend.set(id, exited(0));
    assert_eq!(stage.until_ended(id).await.status, Status::Completed);
    let outputs = stage.storage.list_run_outputs(id, 1).await.expect("read");
    assert_eq!(outputs.iter().map(|o| (o.name.as_str(), o.bytes)).collect::<Vec<_>>(), [("small.npz", 1000)]);
    let logs = stage.storage.list_run_logs(id, 1).await.expect("read");
    assert_eq!(logs.iter().map(|l| (l.bytes, l.complete)).collect::<Vec<_>>(), [(1000, true)]);
    let told = stage.details(id, "collection").await;
    assert!(told.iter().any(|t| t.contains("`large.npz` with 1001 bytes")), "{told:?}");
    assert!(told.iter().any(|t| t.contains("`user_logs/std_log.txt` has 1500 bytes")), "{told:?}");
    worker.stop().await;
}
