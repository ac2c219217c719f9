//! The service's worker, as `estimatord serve` sets it up, with compute that takes no time.

use std::{path::Path, sync::Arc, time::Duration};

use estimatord::{
    artifacts::Artifacts,
    clock::SystemClock,
    domain::collection::Limits,
    figures::RunFigures,
    storage::Storage,
    vault::Vault,
    worker::{Settings, Worker},
};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::null_backend::NullBackend;

/// As many runs as `--worker-slots`, and `max_concurrent_runs` of a target, can be set to.
pub const MOST_RUNS: u32 = 10_000;

/// A worker at work.
pub struct NullWorker {
    task: JoinHandle<()>,
    shutdown: CancellationToken,
}

impl NullWorker {
    /// Starts one with a directory for the artifacts that it will never have.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn start(storage: Storage, backend: NullBackend, directory: &Path) -> anyhow::Result<Self> {
        let artifacts = Artifacts::open(&directory.join("artifacts"), &directory.join("uploads"))?;
        let shutdown = CancellationToken::new();
        let worker = Worker::new(
            storage,
            artifacts,
            backend,
            Arc::new(SystemClock),
            settings(),
            Arc::new(Notify::new()),
            shutdown.clone(),
        );
        Ok(Self { task: tokio::spawn(worker.run()), shutdown })
    }

    /// Has it let go of what it holds, and waits for that.
    ///
    /// # Errors
    /// When it has panicked.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.shutdown.cancel();
        Ok(self.task.await?)
    }
}

/// What the service has by default, but for the number of runs.
fn settings() -> Settings {
    Settings {
        node: "bench".to_owned(),
        host: "localhost".to_owned(),
        lease_ttl: Duration::from_secs(15),
        poll_interval: Duration::from_secs(2),
        observe_interval: Duration::from_millis(200),
        cluster_interval: Duration::from_secs(2),
        slots: MOST_RUNS,
        default_target_limit: MOST_RUNS,
        caller_limit: None,
        listens: true,
        limits: Limits {
            log_bytes: 1 << 30,
            log_files: 10_000,
            output_bytes: 20 << 30,
            output_files: 10_000,
        },
        max_data_cache_bytes: 20 << 30,
        keep_runs: None,
        datastore_places: Default::default(),
        service_addresses: Default::default(),
        vault: Some(Vault::new([7; 32])),
        figures: RunFigures::default(),
    }
}
