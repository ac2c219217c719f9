//! Bringing over what an attempt writes: while it runs, and the rest at its end.

use tracing::{error, warn};

use super::{Driver, Stop};
use crate::{
    backend::{Attempt, Backend},
    storage::{StorageError, leases::Lease},
    worker::{
        Context,
        collect::{CollectError, Progress, collect_outputs},
        staging::{self, StagingError},
    },
};

/// How often collecting logs and outputs is tried before the run ends without them.
const COLLECT_TRIES: u32 = 20;

/// What was brought over of logs and outputs.
pub(super) enum Gathered {
    All,
    Some,
}

impl<B: Backend> Driver<'_, B> {
    /// Sends what the script wrote for datastores. A store that fails is asked again for a while; the answer is why not
    /// everything is there.
    pub(super) async fn send_data(&self) -> Result<Option<String>, Stop> {
        let mut tries = 0;
        loop {
            match staging::send(self.context, &self.run.project, &self.attempt).await {
                Ok(()) => return Ok(None),
                Err(StagingError::Storage(error)) => self.wait_out(&error).await?,
                Err(StagingError::Data(error)) => {
                    tries += 1;
                    if error.is_permanent() || tries >= COLLECT_TRIES {
                        self.note("data", &format!("not everything could be sent: {error}")).await?;
                        return Ok(Some(error.to_string()));
                    }
                    warn!("run {}: {error}; trying again", self.run.id);
                    self.wait_a_little().await?;
                }
            }
        }
    }

    /// What the script said when it called its run failed; known once its records were gathered.
    pub(super) async fn reported_failure(&self) -> Result<Option<String>, Stop> {
        if self.progress.as_ref().is_some_and(|progress| !progress.has_records()) {
            return Ok(None);
        }
        loop {
            match self.context.storage.reported_failure(self.attempt.run_id, self.attempt.number).await {
                Ok(said) => return Ok(said),
                Err(error) => self.wait_out(&error).await?,
            }
        }
    }

    /// Brings over the rest of the logs, and the outputs. A store that fails is asked again for a while; after that the
    /// run ends without what could not be had, and its history says so.
    pub(super) async fn gather(&self, progress: &mut Option<Progress>) -> Result<Gathered, Stop> {
        let mut tries = 0;
        loop {
            let Err(error) = self.try_to_gather(progress).await else { return Ok(Gathered::All) };
            tries += 1;
            match error {
                CollectError::LeaseLost => return Err(Stop::LeaseLost),
                CollectError::Storage(error) => self.wait_out(&error).await?,
                CollectError::Read { .. } | CollectError::Store { .. } if tries < COLLECT_TRIES => {
                    warn!("run {}: {error}", self.run.id);
                    self.wait_a_little().await?;
                }
                CollectError::Read { .. } | CollectError::Store { .. } => {
                    error!("run {}: ends without all of its files: {error}", self.run.id);
                    self.note("collection", &format!("not everything could be collected: {error}")).await?;
                    return Ok(Gathered::Some);
                }
            }
        }
    }

    async fn try_to_gather(&self, progress: &mut Option<Progress>) -> Result<(), CollectError> {
        let progress = resumed(self.context, &self.attempt, progress).await?;
        progress.advance(self.context, &self.lease, &self.attempt, true).await?;
        collect_outputs(self.context, &self.lease, &self.attempt).await
    }
}

async fn resumed<'p, B>(
    context: &Context<B>,
    attempt: &Attempt,
    progress: &'p mut Option<Progress>,
) -> Result<&'p mut Progress, StorageError> {
    if progress.is_none() {
        *progress = Some(Progress::resume(context, attempt).await?);
    }
    Ok(progress.get_or_insert_default())
}

/// Brings over what logs and records have grown by. What fails now is tried again at the next look, and in earnest at the end.
pub(super) async fn ship<B: Backend>(
    context: &Context<B>,
    lease: &Lease,
    attempt: &Attempt,
    progress: &mut Option<Progress>,
) -> Result<(), Stop> {
    let shipped = match resumed(context, attempt, progress).await {
        Ok(progress) => progress.advance(context, lease, attempt, false).await,
        Err(error) => Err(error.into()),
    };
    match shipped {
        Ok(()) => Ok(()),
        Err(CollectError::LeaseLost) => Err(Stop::LeaseLost),
        Err(error) => {
            warn!("run {}: {error}", attempt.run_id);
            Ok(())
        }
    }
}
