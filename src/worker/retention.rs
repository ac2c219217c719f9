//! Deletes what is older than it is kept, in small steps. Every worker takes part: what one has in hand the others leave alone.

use std::{sync::Arc, time::Duration};

use tracing::{info, warn};

use super::{Context, jittered};
use crate::{
    domain::retention::KeepRuns,
    figures::Deleted,
    storage::{
        StorageError,
        retention::{ArtifactDeletion, SNAPSHOT_GRACE, Swept},
    },
};

/// How many runs, or rows to look at, a step has.
const STEP: u32 = 50;

/// Between two steps: the database and the disk have something better to do.
const PAUSE: Duration = Duration::from_millis(100);

/// How often files are looked for that should be gone.
const FILES_INTERVAL: Duration = Duration::from_secs(60);

/// How long files are left alone that could not be deleted.
const RETRY: Duration = Duration::from_secs(300);

/// How often the whole store is searched for bytes that nobody knows of.
const SEARCH_INTERVAL: Duration = Duration::from_secs(24 * 3600);

/// What a pass has deleted.
#[derive(Debug, Default)]
struct Counts {
    runs: u64,
    estimators: u64,
    snapshots: u64,
}

/// Why the rest of a pass is left for the next.
enum Stop {
    Shutdown,
    Storage(StorageError),
}

impl From<StorageError> for Stop {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// What is done again and again.
#[derive(Clone, Copy)]
enum Chore {
    Rows(KeepRuns),
    Files,
    Search,
}

/// Deletes what is old until shutdown.
pub(super) async fn keep<B>(context: Arc<Context<B>>) {
    let Some(keep) = context.settings.keep_runs else {
        // What was begun is brought to its end, also when nothing is to be deleted any more.
        return every(&context, FILES_INTERVAL, Chore::Files).await;
    };
    info!("runs are deleted {keep} after their end");
    tokio::join!(
        every(&context, keep.interval(), Chore::Rows(keep)),
        every(&context, keep.interval(), Chore::Files),
        every(&context, SEARCH_INTERVAL, Chore::Search),
    );
}

/// Does it until shutdown. What fails now is done the next time.
async fn every<B>(context: &Context<B>, interval: Duration, chore: Chore) {
    loop {
        let done = match chore {
            Chore::Rows(keep) => rows(context, keep).await,
            Chore::Files => files(context).await,
            Chore::Search => search(context).await,
        };
        match done {
            Ok(()) => {}
            Err(Stop::Shutdown) => return,
            Err(Stop::Storage(error)) => warn!("could not delete all that is old: {error}"),
        }
        if pause(context, jittered(interval)).await.is_err() {
            return;
        }
    }
}

async fn pause<B>(context: &Context<B>, pause: Duration) -> Result<(), Stop> {
    tokio::select! {
        () = tokio::time::sleep(pause) => Ok(()),
        () = context.shutdown.cancelled() => Err(Stop::Shutdown),
    }
}

/// Deletes the rows of runs that are old, then of what is used no more: in this order, because each keeps the next.
async fn rows<B>(context: &Context<B>, keep: KeepRuns) -> Result<(), Stop> {
    let (storage, figures) = (&context.storage, &context.settings.figures);
    let mut deleted = Counts::default();
    let mut is_done = false;
    while !is_done {
        for _ in 0..STEP {
            let Some(run) = storage.delete_old_run(keep.period()).await? else {
                is_done = true;
                break;
            };
            info!(run.id = %run, "deleted run {run}, which ended more than {keep} ago");
            deleted.runs += 1;
            figures.deleted(Deleted::Runs, 1);
        }
        pause(context, PAUSE).await?;
    }
    let mut after = None;
    loop {
        let Swept { last, deleted: some } = storage.delete_unused_estimators(after, STEP).await?;
        deleted.estimators += some;
        figures.deleted(Deleted::Estimators, some);
        pause(context, PAUSE).await?;
        after = last;
        if after.is_none() {
            break;
        }
    }
    let mut after: Option<String> = None;
    loop {
        let Swept { last, deleted: some } = storage.delete_unused_snapshots(after.as_deref(), STEP).await?;
        deleted.snapshots += some;
        figures.deleted(Deleted::Snapshots, some);
        pause(context, PAUSE).await?;
        after = last;
        if after.is_none() {
            break;
        }
    }
    let Counts { runs, estimators, snapshots } = deleted;
    if runs + estimators + snapshots > 0 {
        info!(
            deleted.runs = runs,
            deleted.estimators = estimators,
            deleted.snapshots = snapshots,
            "deleted {runs} runs, {estimators} estimators and {snapshots} snapshots that were old"
        );
    }
    Ok(())
}

/// Deletes the files whose rows are gone.
async fn files<B>(context: &Context<B>) -> Result<(), Stop> {
    while let Some(taken) = context.storage.take_artifacts().await? {
        let gone = match &taken.deletion {
            _ if taken.is_in_use => Ok(()),
            ArtifactDeletion::Run(run) => context.artifacts.delete_run(*run).await,
            ArtifactDeletion::Snapshot(snapshot) => context.artifacts.delete_snapshot(snapshot).await,
        };
        match gone {
            Ok(()) => {
                taken.are_gone().await?;
                context.settings.figures.deleted(Deleted::Files, 1);
            }
            Err(error) => {
                let what = match &taken.deletion {
                    ArtifactDeletion::Run(run) => format!("run {run}"),
                    ArtifactDeletion::Snapshot(snapshot) => format!("snapshot {}", snapshot.as_str()),
                };
                warn!("could not delete the files of {what}, trying again later: {error}");
                taken.put_off(RETRY).await?;
            }
        }
        pause(context, Duration::ZERO).await?;
    }
    Ok(())
}

/// Looks for bytes of snapshots that no row knows: what an upload leaves that is cut off just before its row was written.
async fn search<B>(context: &Context<B>) -> Result<(), Stop> {
    let stored = match context.artifacts.list_snapshots(context.clock.now() - SNAPSHOT_GRACE).await {
        Ok(stored) => stored,
        Err(error) => {
            warn!("could not look for snapshots that nobody knows of: {error}");
            return Ok(());
        }
    };
    for some in stored.chunks(1000) {
        let found = context.storage.note_unknown_snapshots(some).await?;
        if found > 0 {
            info!(
                snapshots = found,
                "{found} snapshots are stored that nobody knows of; they are deleted in a day"
            );
        }
        pause(context, PAUSE).await?;
    }
    Ok(())
}
