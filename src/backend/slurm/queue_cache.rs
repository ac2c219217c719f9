//! One look at the queue for all runs of a target.

use std::{collections::HashMap, sync::Arc};

use chrono::{DateTime, Utc};
use tokio::{sync::Mutex, time::Instant};
use tracing::warn;

use super::{super::BackendError, commands::Commands};
use crate::{
    clock::{Clock as _, SystemClock},
    domain::slurm::Job,
};

/// The jobs of one look, by their names.
#[derive(Debug)]
pub(super) struct Look {
    /// By the clock that times in directories are of.
    began_at: DateTime<Utc>,
    jobs: HashMap<String, Vec<Job>>,
}

impl Look {
    /// The jobs of a name.
    pub(super) fn of(&self, name: &str) -> &[Job] {
        self.jobs.get(name).map_or(&[], Vec::as_slice)
    }

    /// When it began: what was handed in later is not in it.
    pub(super) const fn began_at(&self) -> DateTime<Utc> {
        self.began_at
    }

    /// How many jobs there are.
    pub(super) fn count(&self) -> usize {
        self.jobs.values().map(Vec::len).sum()
    }
}

/// When a look began, and what came of it.
type Looked = (Instant, Result<Arc<Look>, String>);

/// The last look.
#[derive(Debug, Default)]
pub(super) struct QueueCache(Mutex<Option<Looked>>);

impl QueueCache {
    /// A look that began at `not_before` or later. Those who ask while one is made wait for it, and share it where it is new
    /// enough for them; a failure too, so that a controller that is down is not asked by every run.
    pub(super) async fn look(
        &self,
        commands: &Commands,
        not_before: Instant,
    ) -> Result<Arc<Look>, BackendError> {
        let mut last = self.0.lock().await;
        if let Some((began, result)) = &*last
            && *began >= not_before
        {
            return result.clone().map_err(BackendError::Unavailable);
        }
        let (began, began_at) = (Instant::now(), SystemClock.now());
        let result = commands.queue().await.map(|queue| {
            for line in &queue.odd {
                warn!("squeue has a line that cannot be read, the others count: {line:?}");
            }
            let mut jobs: HashMap<String, Vec<Job>> = HashMap::new();
            for job in queue.jobs {
                jobs.entry(job.name.clone()).or_default().push(job);
            }
            Arc::new(Look { began_at, jobs })
        });
        let shared = result.map_err(|error| error.to_string());
        *last = Some((began, shared.clone()));
        drop(last);
        shared.map_err(BackendError::Unavailable)
    }
}
