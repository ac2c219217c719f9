//! The worker against a real PostgreSQL and a scripted backend: every way a run can go, without a process.

#[path = "../support/shown.rs"]
mod shown;
#[path = "../support/values.rs"]
mod support;

mod collecting;
mod data;
mod environments;
mod scripted;

use std::{sync::Arc, time::Duration};

use estimatord::{
    artifacts::Artifacts,
    clock::{Clock as _, SystemClock},
    domain::{
        collection::Limits,
        datastore_places::Places,
        ids::RunId,
        one_off_target::one_off_target,
        plan::OneOffTarget,
        run::{Cause, Exit, ExitReason, Observation, Status},
    },
    figures::RunFigures,
    storage::{Storage, cancel::Cancellation, idempotency::Recorded, runs::Run},
    vault::Vault,
    worker::{Settings, Worker},
};
use scripted::{Prepare, ScriptedBackend};
use serde_json::json;
use sqlx::PgPool;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A worker at work, and everything around it.
struct Stage {
    storage: Storage,
    backend: ScriptedBackend,
    artifacts: Artifacts,
    wakeup: Arc<Notify>,
    figures: RunFigures,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new(pool: PgPool) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let artifacts =
            Artifacts::open(&dir.path().join("artifacts"), &dir.path().join("scratch")).expect("opened");
        let backend = ScriptedBackend::new(dir.path().join("compute"));
        Self {
            storage: Storage::from_pool(pool),
            backend,
            artifacts,
            wakeup: Arc::new(Notify::new()),
            figures: RunFigures::default(),
            dir,
        }
    }

    fn start_worker(&self, node: &str) -> RunningWorker {
        let shutdown = CancellationToken::new();
        let settings = Settings {
            node: node.to_owned(),
            host: "a-box".to_owned(),
            lease_ttl: Duration::from_secs(3),
            poll_interval: Duration::from_millis(50),
            observe_interval: Duration::from_millis(10),
            cluster_interval: Duration::from_millis(10),
            slots: 8,
            default_target_limit: 8,
            caller_limit: None,
            listens: true,
            limits: Limits { log_bytes: 1000, log_files: 10, output_bytes: 1000, output_files: 10 },
            max_data_cache_bytes: 1000,
            datastore_places: Places::default(),
            keep_runs: None,
            service_addresses: Default::default(),
            vault: Some(Vault::new([7; 32])),
            figures: self.figures.clone(),
        };
        let worker = Worker::new(
            self.storage.clone(),
            self.artifacts.clone(),
            self.backend.clone(),
            Arc::new(SystemClock),
            settings,
            Arc::clone(&self.wakeup),
            shutdown.clone(),
        );
        RunningWorker { task: tokio::spawn(worker.run()), shutdown }
    }

    async fn accept(&self, change: impl FnOnce(&mut Run)) -> RunId {
        support::store_snapshot(&self.storage).await;
        let now = SystemClock.now();
        let estimator = support::estimator(now);
        let mut run = support::run(&estimator, now);
        change(&mut run);
        let answer = || Recorded { status: 201, location: None, body: json!({}).to_string() };
        self.storage
            .insert_run(&run, Some(&estimator), support::terms(None), answer)
            .await
            .expect("accepted");
        self.wakeup.notify_one();
        run.id
    }

    /// Waits until the run is as wanted; a deadline keeps a failure from hanging.
    async fn until(&self, id: RunId, what: &str, wanted: impl Fn(&Run) -> bool) -> Run {
        let mut last = None;
        for _ in 0..3000 {
            let run = self.storage.of(&Default::default()).get_run(id).await.expect("read").expect("there");
            if wanted(&run) {
                return run;
            }
            last = Some(run);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not {what} in time: {last:?}");
    }

    async fn until_ended(&self, id: RunId) -> Run {
        self.until(id, "ended", |run| run.status.is_terminal()).await
    }

    async fn statuses(&self, id: RunId) -> Vec<Status> {
        let events = self.storage.list_run_events(id, 0, 100).await.expect("read");
        events.into_iter().filter(|e| e.kind == "status").map(|e| e.status).collect()
    }
}

struct RunningWorker {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl RunningWorker {
    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(20), self.task)
            .await
            .expect("stops in time")
            .expect("no panic");
    }

    /// What `kill -9` does: the task is gone at its next suspension, and gives nothing back.
    fn kill(self) {
        self.task.abort();
    }
}

fn exited(exit_code: i32) -> Observation {
    Observation::Exited(Exit {
        reason: ExitReason::Exited,
        exit_code: Some(exit_code),
        signal: None,
        started_at: Some(SystemClock.now()),
        finished_at: SystemClock.now(),
        cpu_seconds: Some(0.5),
        peak_memory_bytes: Some(1 << 20),
        start_error: None,
        build_error: None,
        remark: None,
    })
}

fn running() -> Observation {
    Observation::Running { started_at: SystemClock.now() }
}

#[sqlx::test]
async fn a_run_goes_all_the_way_and_its_files_are_kept(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "starting", |run| run.status == Status::Starting).await;
    stage.backend.set(id, running());
    stage.backend.write_log(id, "user_logs/std_log.txt", b"epoch 1\n");
    let run = stage.until(id, "running", |run| run.status == Status::Running).await;
    assert!(run.started_at.is_some());
    // The log can be read while the script runs.
    for _ in 0..2000 {
        if stage.storage.get_run_log(id, 1, "user_logs/std_log.txt").await.expect("read").is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let early =
        stage.storage.get_run_log(id, 1, "user_logs/std_log.txt").await.expect("read").expect("there");
    assert_eq!((early.bytes, early.complete), (8, false));
    stage.backend.write_log(id, "user_logs/std_log.txt", b"epoch 1\nepoch 2\n");
    stage.backend.write_output(id, "model.npz", b"weights");
    stage.backend.set(id, exited(0));
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause, run.exit_code), (Status::Completed, None, Some(0)));
    assert_eq!(
        stage.statuses(id).await,
        [
            Status::Queued,
            Status::Preparing,
            Status::Starting,
            Status::Running,
            Status::Finalizing,
            Status::Completed
        ]
    );
    let log = stage.storage.get_run_log(id, 1, "user_logs/std_log.txt").await.expect("read").expect("there");
    assert_eq!((log.bytes, log.complete), (16, true));
    let bytes =
        stage.artifacts.read_log_segment(id, 1, "user_logs/std_log.txt", 0, 0..16).await.expect("read");
    assert_eq!(&bytes[..], b"epoch 1\nepoch 2\n");
    let outputs = stage.storage.list_run_outputs(id, 1).await.expect("read");
    assert_eq!((outputs.len(), outputs[0].name.as_str(), outputs[0].bytes), (1, "model.npz", 7));
    let attempts = shown::shown(&stage.storage, id).await.attempts;
    assert_eq!((attempts.len(), attempts[0].cpu_seconds, attempts[0].exit_code), (1, Some(0.5), Some(0)));
    worker.stop().await;
    assert!(stage.backend.was_removed(id));
    assert_eq!(stage.backend.submissions(id), 1);
}

#[sqlx::test]
async fn a_failing_script_fails_the_run_and_is_not_tried_again(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|run| run.max_attempts = 3).await;
    stage.backend.set(id, exited(7));
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause, run.exit_code), (Status::Failed, Some(Cause::ScriptFailed), Some(7)));
    assert_eq!(run.attempt, 1);
    // Quick as it was, that it ran is in its history.
    assert!(stage.statuses(id).await.contains(&Status::Running));
    worker.stop().await;
}

#[sqlx::test]
async fn a_failed_build_says_so(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.backend.on_prepare(Prepare::Fail("no solution found for chainer==9".to_owned()));
    let worker = stage.start_worker("a");
    let id = stage.accept(|run| run.max_attempts = 3).await;
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause), (Status::Failed, Some(Cause::EnvironmentBuildFailed)));
    assert!(run.detail.expect("a reason").contains("no solution found"));
    assert_eq!(stage.backend.submissions(id), 0);
    worker.stop().await;
}

#[sqlx::test]
async fn a_cancel_waits_until_the_processes_are_gone(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.backend.set(id, running());
    stage.until(id, "running", |run| run.status == Status::Running).await;
    let canceled =
        stage.storage.of(&Default::default()).cancel_run(id, SystemClock.now()).await.expect("asked");
    assert!(matches!(canceled, Cancellation::Accepted(run) if run.status == Status::CancelRequested));
    stage.backend.until_canceled(id).await;
    // The backend still sees processes: nothing may say Canceled.
    for _ in 0..20 {
        let status = stage.storage.get_run_status(id).await.expect("read");
        assert_eq!(status, Some(Status::CancelRequested));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stage.backend.set(id, exited(0));
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause), (Status::Canceled, Some(Cause::CanceledByUser)));
    worker.stop().await;
}

#[sqlx::test]
async fn a_cancel_ends_a_build(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.backend.on_prepare(Prepare::Hang);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "preparing", |run| run.status == Status::Preparing).await;
    stage.storage.of(&Default::default()).cancel_run(id, SystemClock.now()).await.expect("asked");
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, stage.backend.submissions(id)), (Status::Canceled, 0));
    worker.stop().await;
}

#[sqlx::test]
async fn a_run_whose_worker_was_killed_is_finished_by_the_next_one(pool: PgPool) {
    let stage = Stage::new(pool);
    let first = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.backend.set(id, running());
    stage.until(id, "running", |run| run.status == Status::Running).await;
    first.kill();
    // It ended while nobody looked.
    stage.backend.set(id, exited(0));
    let second = stage.start_worker("a");
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.attempt), (Status::Completed, 1));
    assert_eq!(stage.backend.submissions(id), 1);
    second.stop().await;
}

#[sqlx::test]
async fn a_worker_that_stops_lets_go_and_counts_no_attempt(pool: PgPool) {
    let stage = Stage::new(pool);
    stage.backend.on_prepare(Prepare::Hang);
    let first = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.until(id, "preparing", |run| run.status == Status::Preparing).await;
    first.stop().await;
    stage.backend.on_prepare(Prepare::Succeed);
    stage.backend.set(id, exited(0));
    let second = stage.start_worker("a");
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.attempt), (Status::Completed, 1));
    second.stop().await;
}

#[sqlx::test]
async fn a_lost_attempt_is_followed_by_another_while_there_are_any(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|run| run.max_attempts = 2).await;
    stage.backend.set(id, Observation::Lost { detail: "the supervisor was killed".to_owned() });
    let run = stage.until(id, "in its second attempt", |run| run.attempt == 2).await;
    assert_eq!(run.cause, None);
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.cause), (Status::Failed, Some(Cause::ComputeLost)));
    let attempts = shown::shown(&stage.storage, id).await.attempts;
    assert_eq!(attempts.iter().map(|a| a.cause).collect::<Vec<_>>(), [Some(Cause::ComputeLost); 2]);
    worker.stop().await;
}

#[sqlx::test]
async fn a_backend_that_does_not_answer_is_waited_for(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.backend.set(id, running());
    stage.until(id, "running", |run| run.status == Status::Running).await;
    stage.backend.be_deaf(true);
    let run = stage.until(id, "without an answer", |run| run.status == Status::NotResponding).await;
    assert!(run.detail.expect("a reason").contains("deaf"));
    stage.backend.be_deaf(false);
    let run = stage.until(id, "running again", |run| run.status == Status::Running).await;
    assert_eq!(run.detail, None, "it answers again");
    stage.backend.set(id, exited(0));
    let run = stage.until_ended(id).await;
    assert_eq!((run.status, run.detail), (Status::Completed, None));
    worker.stop().await;
}

#[sqlx::test]
async fn what_differs_from_what_was_asked_is_in_the_history(pool: PgPool) {
    let stage = Stage::new(pool);
    let worker = stage.start_worker("a");
    let id = stage.accept(|_| {}).await;
    stage.backend.set(id, exited(0));
    let run = stage.until_ended(id).await;
    let events = stage.storage.list_run_events(id, 0, 100).await.expect("read");
    let notes: Vec<_> = events.iter().filter(|e| e.kind == "environment").collect();
    assert_eq!(notes.len(), 1);
    assert!(notes[0].detail.as_deref().expect("text").contains("python 3.6.2"));
    assert_eq!(run.actual_environment.expect("recorded")["python_version"], "3.11.2");
    worker.stop().await;
}

#[sqlx::test]
async fn two_workers_share_the_runs_and_start_each_once(pool: PgPool) {
    let stage = Stage::new(pool);
    let (first, second) = (stage.start_worker("a"), stage.start_worker("b"));
    stage.backend.set_for_all(exited(0));
    let mut ids = Vec::new();
    for _ in 0..30 {
        ids.push(stage.accept(|_| {}).await);
    }
    for id in &ids {
        assert_eq!(stage.until_ended(*id).await.status, Status::Completed);
        assert_eq!(stage.backend.submissions(*id), 1, "{id}");
    }
    first.stop().await;
    second.stop().await;
    assert!(stage.dir.path().exists());
}

#[sqlx::test]
async fn what_ended_runs_left_is_removed_at_the_next_start_and_nothing_else(pool: PgPool) {
    let stage = Stage::new(pool);
    let first = stage.start_worker("a");
    let ended = stage.accept(|_| {}).await;
    stage.backend.set(ended, exited(0));
    stage.until_ended(ended).await;
    first.stop().await;
    let live = stage.accept(|_| {}).await;
    let unknown = RunId::generate(SystemClock.now(), [0; 10]);
    for id in [ended, live, unknown] {
        stage.backend.leave_behind(id);
    }
    let second = stage.start_worker("a");
    for _ in 0..2000 {
        if !stage.backend.has_left_behind(ended) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!stage.backend.has_left_behind(ended));
    assert!(stage.backend.has_left_behind(live) && stage.backend.has_left_behind(unknown));
    second.stop().await;
}

#[sqlx::test]
async fn runs_with_a_target_of_their_own_share_one_limit(pool: PgPool) {
    let stage = Stage::new(pool);
    let sized = |run: &mut Run| {
        let asked = OneOffTarget { vm_size: "STANDARD_D2_V2".into(), vm_priority: "dedicated".into() };
        run.plan.one_off_target = Some(asked);
        let target = one_off_target(run.id, &run.plan, &run.backend).expect("asked for");
        run.compute_target = target.name.as_str().to_owned();
    };
    let mut runs = Vec::new();
    for _ in 0..10 {
        runs.push(stage.accept(sized).await);
    }
    for id in &runs {
        stage.backend.set(*id, running());
    }
    // The stage's worker admits eight on a target without a limit of its own.
    let worker = stage.start_worker("a");
    for id in &runs[..8] {
        stage.until(*id, "running", |run| run.status == Status::Running).await;
    }
    let waiting = stage.storage.of(&Default::default()).get_run(runs[8]).await.expect("read").expect("there");
    assert_eq!(waiting.status, Status::Queued);
    let queue = stage.storage.waiting(&[runs[8].as_uuid()], None).await.expect("read");
    let queue = queue.get(&runs[8]).expect("it waits");
    assert_eq!((queue.active, queue.ahead), (8, 0));
    assert!(stage.statuses(runs[0]).await.starts_with(&[
        Status::Queued,
        Status::Provisioning,
        Status::Preparing
    ]));
    for id in &runs {
        stage.backend.set(*id, exited(0));
    }
    for id in &runs {
        assert_eq!(stage.until_ended(*id).await.status, Status::Completed);
    }
    assert_eq!(stage.storage.list_compute_targets().await.expect("read").len(), 1, "only `local` is left");
    worker.stop().await;
}
