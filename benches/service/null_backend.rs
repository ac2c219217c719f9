//! A backend on which nothing takes time: what is left of a run's life is the service's own.

use std::{io, path::PathBuf, sync::Arc};

use estimatord::{
    backend::{
        ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, PrepareError,
        ProvisionError, SourceTree, StagingArea,
    },
    clock::{Clock as _, SystemClock},
    domain::{
        compute_target,
        ids::RunId,
        run::{Exit, ExitReason, Observation},
        staging::Place,
    },
};
use tokio::sync::Semaphore;

/// What becomes of what is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Script {
    /// It has ended with 0 before anybody looks.
    EndsAtOnce,
    /// It runs on for as long as anybody looks.
    RunsOn,
}

/// Compute that is always there, keeps nothing, and leaves no files.
#[derive(Clone, Debug)]
pub struct NullBackend {
    script: Script,
    /// A permit for each attempt of which everything was collected.
    collected: Arc<Semaphore>,
}

impl NullBackend {
    /// One on which every script does this.
    pub fn new(script: Script) -> Self {
        Self { script, collected: Arc::new(Semaphore::new(0)) }
    }

    /// Waits until of so many attempts everything was collected: all that is left is to write their ends.
    ///
    /// # Errors
    /// Never in practice.
    pub async fn until_collected(&self, attempts: u32) -> anyhow::Result<()> {
        self.collected.acquire_many(attempts).await?.forget();
        Ok(())
    }
}

impl Backend for NullBackend {
    async fn provision(&self, _: &Attempt) -> Result<String, ProvisionError> {
        Ok("nothing had to be made".to_owned())
    }

    async fn prepare(&self, _: &Attempt, _: &impl SourceTree) -> Result<ActualEnvironment, PrepareError> {
        Ok(ActualEnvironment {
            kind: "user_managed".to_owned(),
            interpreter: "/usr/bin/python3".to_owned(),
            python_version: "3.11.2".to_owned(),
            packages: Vec::new(),
            substitutions: Vec::new(),
            build_key: None,
            reused: false,
            container: None,
            image: None,
        })
    }

    async fn ship(&self, _: &Attempt) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn ensure_submitted(&self, _: &Attempt, _: &ActualEnvironment) -> Result<(), BackendError> {
        Ok(())
    }

    async fn observe(&self, _: &Attempt) -> Result<Observation, BackendError> {
        let now = SystemClock.now();
        Ok(match self.script {
            Script::EndsAtOnce => Observation::Exited(Exit {
                exit_code: Some(0),
                ..Exit::new(ExitReason::Exited, Some(now), now)
            }),
            Script::RunsOn => Observation::Running { started_at: now },
        })
    }

    async fn cancel(&self, _: &Attempt) -> Result<(), BackendError> {
        Ok(())
    }

    async fn log_files(&self, _: &Attempt) -> io::Result<Vec<AttemptFile>> {
        Ok(Vec::new())
    }

    async fn record_files(&self, _: &Attempt) -> io::Result<Vec<AttemptFile>> {
        Ok(Vec::new())
    }

    async fn output_files(&self, _: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.collected.add_permits(1);
        Ok(Vec::new())
    }

    fn staging(&self, _: &Attempt) -> StagingArea {
        let nowhere = || PathBuf::from("/nonexistent");
        StagingArea { data: nowhere(), work: nowhere(), cache: nowhere() }
    }

    async fn staged_files(&self, _: &Attempt, _: &Place) -> io::Result<Vec<AttemptFile>> {
        Ok(Vec::new())
    }

    async fn remove(&self, _: &Attempt) -> io::Result<()> {
        Ok(())
    }

    async fn tidy_environments(&self) -> io::Result<Vec<BuiltEnvironment>> {
        Ok(Vec::new())
    }

    async fn reach(&self, _: &compute_target::Backend) -> Result<String, String> {
        Ok("always there".to_owned())
    }

    async fn remaining_runs(&self) -> io::Result<Vec<RunId>> {
        Ok(Vec::new())
    }

    async fn remove_run(&self, _: RunId) -> io::Result<()> {
        Ok(())
    }
}
