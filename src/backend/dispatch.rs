//! The backends that a worker has: each attempt goes to that of its target.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::{
    ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, Observation,
    PrepareError, ProvisionError, SourceTree, StagingArea,
    kubernetes::KubernetesBackend,
    process::{self, ProcessBackend},
    slurm::SlurmBackend,
};
use crate::{
    artifacts::Artifacts,
    domain::{
        compute_target::{self, Engine, SlurmSettings},
        ids::RunId,
        kubernetes::KubernetesSettings,
        staging::Place,
    },
    vault::Vault,
};

/// Every backend, made when a target first needs it.
#[derive(Debug)]
pub struct Backends {
    settings: process::Settings,
    process: ProcessBackend,
    slurm: Mutex<HashMap<SlurmSettings, Arc<SlurmBackend>>>,
    kubernetes: Mutex<HashMap<KubernetesSettings, Arc<KubernetesBackend>>>,
    look_interval: Duration,
    artifacts: Artifacts,
    vault: Option<Vault>,
}

/// The backend of one attempt.
enum One<'a> {
    Process(&'a ProcessBackend),
    Slurm(Arc<SlurmBackend>),
    Kubernetes(Arc<KubernetesBackend>),
}

/// The same call, whichever backend it is.
macro_rules! each {
    ($one:expr, $backend:ident => $call:expr) => {
        match $one {
            One::Process($backend) => $call,
            One::Slurm($backend) => $call,
            One::Kubernetes($backend) => $call,
        }
    };
}

impl Backends {
    /// Backends with the worker's settings; `look_interval` is how often a cluster is asked about all of its jobs. What pods fetch
    /// and send goes through `artifacts`, and `vault` makes the tokens by which they are let in.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub fn new(
        settings: process::Settings,
        look_interval: Duration,
        artifacts: Artifacts,
        vault: Option<Vault>,
    ) -> io::Result<Self> {
        let process = ProcessBackend::new(settings.clone())?;
        let (slurm, kubernetes) = (Mutex::default(), Mutex::default());
        Ok(Self { settings, process, slurm, kubernetes, look_interval, artifacts, vault })
    }

    fn kubernetes(&self, target: &KubernetesSettings) -> io::Result<Arc<KubernetesBackend>> {
        let mut known = self.kubernetes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backend) = known.get(target) {
            return Ok(Arc::clone(backend));
        }
        let (artifacts, vault) = (self.artifacts.clone(), self.vault.clone());
        let backend = Arc::new(KubernetesBackend::new(target, &self.settings, artifacts, vault)?);
        known.insert(target.clone(), Arc::clone(&backend));
        Ok(backend)
    }

    fn slurm(&self, target: &SlurmSettings) -> io::Result<Arc<SlurmBackend>> {
        // Nobody panics while holding it; and if: the map is whole.
        let mut known = self.slurm.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(backend) = known.get(target) {
            return Ok(Arc::clone(backend));
        }
        let backend = Arc::new(SlurmBackend::new(target, &self.settings, self.look_interval)?);
        known.insert(target.clone(), Arc::clone(&backend));
        Ok(backend)
    }

    fn of(&self, target: &compute_target::Backend) -> io::Result<One<'_>> {
        match &target.engine {
            Engine::Process => Ok(One::Process(&self.process)),
            Engine::Slurm(settings) => self.slurm(settings).map(One::Slurm),
            Engine::Kubernetes(settings) => self.kubernetes(settings).map(One::Kubernetes),
        }
    }

    fn asked(&self, attempt: &Attempt) -> Result<One<'_>, BackendError> {
        let action = "use the compute target".to_owned();
        self.of(&attempt.backend).map_err(|source| BackendError::Io { action, source })
    }

    /// One backend for each directory that they keep things in.
    fn by_directory(&self) -> Vec<Arc<SlurmBackend>> {
        let known = self.slurm.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = BTreeSet::new();
        known
            .iter()
            .filter(|(settings, _)| seen.insert(settings.shared_dir.clone()))
            .map(|(_, backend)| Arc::clone(backend))
            .collect()
    }

    fn namespaces(&self) -> Vec<Arc<KubernetesBackend>> {
        let known = self.kubernetes.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().map(Arc::clone).collect()
    }
}

impl Backend for Backends {
    async fn provision(&self, attempt: &Attempt) -> Result<String, ProvisionError> {
        each!(self.asked(attempt)?, backend => backend.provision(attempt).await)
    }

    async fn prepare(
        &self,
        attempt: &Attempt,
        source: &impl SourceTree,
    ) -> Result<ActualEnvironment, PrepareError> {
        let one = self.of(&attempt.backend);
        let one = one.map_err(|source| PrepareError::Io { path: self.settings.data_dir.clone(), source })?;
        each!(one, backend => backend.prepare(attempt, source).await)
    }

    async fn ship(&self, attempt: &Attempt) -> Result<(), PrepareError> {
        let path = || self.settings.data_dir.clone();
        let one = self.of(&attempt.backend).map_err(|source| PrepareError::Io { path: path(), source })?;
        each!(one, backend => backend.ship(attempt).await)
    }

    async fn ensure_submitted(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
    ) -> Result<(), BackendError> {
        each!(self.asked(attempt)?, backend => backend.ensure_submitted(attempt, environment).await)
    }

    async fn observe(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        each!(self.asked(attempt)?, backend => backend.observe(attempt).await)
    }

    async fn cancel(&self, attempt: &Attempt) -> Result<(), BackendError> {
        each!(self.asked(attempt)?, backend => backend.cancel(attempt).await)
    }

    async fn log_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        each!(self.of(&attempt.backend)?, backend => backend.log_files(attempt).await)
    }

    async fn record_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        each!(self.of(&attempt.backend)?, backend => backend.record_files(attempt).await)
    }

    async fn output_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        each!(self.of(&attempt.backend)?, backend => backend.output_files(attempt).await)
    }

    async fn missing_files(&self, attempt: &Attempt) -> io::Result<Option<String>> {
        each!(self.of(&attempt.backend)?, backend => backend.missing_files(attempt).await)
    }

    fn staging(&self, attempt: &Attempt) -> StagingArea {
        match self.of(&attempt.backend) {
            Ok(one) => each!(one, backend => backend.staging(attempt)),
            // Whatever is then done there fails, and says so.
            Err(_) => self.process.staging(attempt),
        }
    }

    async fn staged_files(&self, attempt: &Attempt, place: &Place) -> io::Result<Vec<AttemptFile>> {
        each!(self.of(&attempt.backend)?, backend => backend.staged_files(attempt, place).await)
    }

    async fn remove(&self, attempt: &Attempt) -> io::Result<()> {
        each!(self.of(&attempt.backend)?, backend => backend.remove(attempt).await)
    }

    async fn tidy_environments(&self) -> io::Result<Vec<BuiltEnvironment>> {
        let mut kept = self.process.tidy_environments().await?;
        for backend in self.by_directory() {
            for environment in backend.tidy_environments().await? {
                // The same content, built on both file systems, is one environment.
                if kept.iter().all(|known| known.key != environment.key) {
                    kept.push(environment);
                }
            }
        }
        Ok(kept)
    }

    async fn reach(&self, target: &compute_target::Backend) -> Result<String, String> {
        let one = self.of(target).map_err(|error| error.to_string())?;
        each!(one, backend => backend.reach(target).await)
    }

    async fn remaining_runs(&self) -> io::Result<Vec<RunId>> {
        let mut runs: BTreeSet<RunId> = self.process.remaining_runs().await?.into_iter().collect();
        for backend in self.by_directory() {
            runs.extend(backend.remaining_runs().await?);
        }
        for backend in self.namespaces() {
            runs.extend(backend.remaining_runs().await?);
        }
        Ok(runs.into_iter().collect())
    }

    async fn remove_run(&self, run: RunId) -> io::Result<()> {
        self.process.remove_run(run).await?;
        for backend in self.by_directory() {
            backend.remove_run(run).await?;
        }
        for backend in self.namespaces() {
            backend.remove_run(run).await?;
        }
        Ok(())
    }
}
