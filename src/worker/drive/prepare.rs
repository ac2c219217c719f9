//! Making everything ready that must be there before the start: data, source tree, environment.

use std::{io, path::Path, time::Instant};

use serde_json::Map;
use tracing::Instrument as _;

use super::{Driver, Stop, gather::ship, step::call};
use crate::{
    artifacts::Artifacts,
    backend::{ActualEnvironment, Backend, PrepareError, RegistryLogin, SourceTree},
    datastores::Store,
    domain::{
        environment::{EnvironmentKind, unheeded_version},
        ids::SnapshotId,
        run::{Cause, Failure, Prepared},
        staging::unheeded_places,
    },
    figures::Found,
    storage::StorageError,
    vault::purposes,
    worker::{
        environments,
        leases::Signal,
        staging::{self, StagingError},
    },
};

/// Why an attempt is not ready.
enum Unready {
    Staging(StagingError),
    Backend(PrepareError),
}

/// What was made ready, and what the history says of it.
struct Ready {
    environment: ActualEnvironment,
    staged: Vec<String>,
}

impl<B: Backend> Driver<'_, B> {
    /// Makes everything ready that must be there before the start.
    pub(super) async fn prepare(&mut self) -> Result<Prepared, Stop> {
        let failed =
            |cause, detail, is_permanent| Ok(Prepared::Failed(Failure { cause, detail, is_permanent }));
        match self.registry_login().await {
            Ok(Ok(login)) => self.attempt.registry = login,
            Ok(Err(detail)) => return failed(Cause::EnvironmentBuildFailed, detail, true),
            Err(error) => return self.ask_again(&error).await,
        }
        // Interrupted: the driver knows by what.
        let Some(prepared) = self.until_prepared().await? else { return Ok(Prepared::Again) };
        match prepared {
            Ok(ready) => self.record_readiness(ready).await,
            Err(Unready::Staging(StagingError::Storage(error))) => self.ask_again(&error).await,
            Err(Unready::Staging(StagingError::Data(error))) => {
                failed(Cause::DispatchFailed, error.to_string(), error.is_permanent())
            }
            Err(Unready::Backend(error @ PrepareError::EnvironmentBuild { .. })) => {
                failed(Cause::EnvironmentBuildFailed, error.to_string(), false)
            }
            Err(Unready::Backend(error @ PrepareError::Io { .. })) => {
                failed(Cause::Internal, error.to_string(), false)
            }
        }
    }

    /// Puts into the history what was made ready, and what of it differs from what was asked for.
    async fn record_readiness(&mut self, ready: Ready) -> Result<Prepared, Stop> {
        for note in &ready.staged {
            self.note("data", note).await?;
        }
        let in_container = ready.environment.is_in_container();
        for note in unheeded_places(&self.attempt.plan, in_container) {
            self.note("data", &note).await?;
        }
        self.note_differences(&ready.environment).await?;
        self.run.definition = Map::new();
        let actual = match serde_json::to_value(&ready.environment) {
            Ok(value) => value,
            Err(error) => {
                let detail = format!("the environment cannot be recorded: {error}");
                let failure = Failure { cause: Cause::Internal, detail, is_permanent: false };
                return Ok(Prepared::Failed(failure));
            }
        };
        self.run.actual_environment = Some(actual.clone());
        environments::count_use(self.context, &ready.environment).await;
        Ok(Prepared::Ready(actual))
    }

    /// The database did not answer: preparing begins again after a while. What was made ready is found.
    async fn ask_again(&self, error: &StorageError) -> Result<Prepared, Stop> {
        self.wait_out(error).await?;
        Ok(Prepared::Again)
    }

    /// By whom the image is pulled; the inner error says why nobody can.
    pub(super) async fn registry_login(&self) -> Result<Result<Option<RegistryLogin>, String>, StorageError> {
        let Some(username) = &self.attempt.plan.environment.container.registry_username else {
            return Ok(Ok(None));
        };
        let id = self.run.estimator_id;
        let Some(sealed) = self.context.storage.sealed_registry_password(id).await? else {
            let detail =
                "the password of the image's registry was not kept with the definition: store it again";
            return Ok(Err(detail.to_owned()));
        };
        let Some(vault) = &self.context.settings.vault else {
            let detail = "this worker has no secret key to decrypt the registry's password with";
            return Ok(Err(detail.to_owned()));
        };
        Ok(match vault.open(&purposes::registry_password(id), &sealed) {
            Ok(password) => Ok(Some(RegistryLogin { username: username.clone(), password })),
            Err(error) => Err(format!("the password of the image's registry cannot be used: {error}")),
        })
    }

    /// Makes everything ready. `None` when somebody asked for the run's end meanwhile.
    async fn until_prepared(&mut self) -> Result<Option<Result<Ready, Unready>>, Stop> {
        let (context, held, attempt) = (self.context, self.held, &self.attempt);
        let project = &self.run.project;
        let preparing = async {
            // Data that is not there is found out before an environment is built for nothing.
            let sources = staging::locate(context, project, &attempt.plan).await.map_err(Unready::Staging)?;
            let source = Snapshot {
                artifacts: &context.artifacts,
                id: &attempt.plan.snapshot_id,
                share: sources.share.as_ref(),
            };
            let began = Instant::now();
            let preparing = context.backend.prepare(attempt, &source).instrument(call("prepare", attempt));
            let environment = preparing.await.map_err(Unready::Backend)?;
            if environment.build_key.is_some() {
                let found = if environment.reused { Found::Hit } else { Found::Miss };
                context.settings.figures.environment(found, began.elapsed());
            }
            let staged = staging::stage(context, attempt, &sources).await;
            let staged = staged.map_err(|error| Unready::Staging(StagingError::Data(error)))?;
            context.backend.ship(attempt).await.map_err(Unready::Backend)?;
            Ok(Ready { environment, staged })
        };
        tokio::pin!(preparing);
        loop {
            // Leaving drops the future, and that ends the build.
            tokio::select! {
                prepared = &mut preparing => return Ok(Some(prepared)),
                signal = held.interrupted() => return match signal {
                    Signal::Lost => Err(Stop::LeaseLost),
                    Signal::Held | Signal::CancelRequested => Ok(None),
                },
                () = context.shutdown.cancelled() => return Err(Stop::Shutdown),
                () = tokio::time::sleep(context.settings.observe_interval) => {}
            }
            // The build log can be followed while the environment is built.
            ship(context, &self.lease, attempt, &mut self.progress).await?;
        }
    }

    /// Puts into the history what the run gets instead of what was asked for.
    async fn note_differences(&self, actual: &ActualEnvironment) -> Result<(), Stop> {
        let asked = &self.attempt.plan.environment;
        if asked.docker && asked.kind == EnvironmentKind::Managed && !actual.is_in_container() {
            let note = "a container was asked for; this target runs without containers, so the run gets a virtual environment";
            self.note("environment", note).await?;
        }
        if let Some(note) = unheeded_version(asked, &self.run.definition) {
            self.note("environment", &note).await?;
        }
        for difference in &actual.substitutions {
            let used = difference.used.as_deref().unwrap_or("nothing");
            let note = format!("asked: {}; used: {used}; {}", difference.asked, difference.reason);
            self.note("environment", &note).await?;
        }
        Ok(())
    }
}

/// The snapshot of a run as the backend wants it.
struct Snapshot<'a> {
    artifacts: &'a Artifacts,
    id: &'a SnapshotId,
    /// The datastore that holds it, when that is not the service's own store.
    share: Option<&'a Store>,
}

impl SourceTree for Snapshot<'_> {
    async fn unpack(&self, directory: &Path) -> io::Result<()> {
        let Some(share) = self.share else {
            return self.artifacts.unpack_snapshot(self.id, directory).await;
        };
        let tar = staging::fetch_snapshot(share, self.id, directory).await.map_err(io::Error::other)?;
        self.artifacts.unpack_tar(tar, self.id, directory).await
    }
}
