//! Attempts as Jobs and MPIJobs of a Kubernetes cluster.
//!
//! The object of an attempt is found by its name. What the cluster says of it comes by one watch for all attempts of a target; what
//! this service decided, and how it ended, lies in the artifact store, where every worker finds it. Pods share no disk with the
//! service: a bundle of source tree and data is fetched by each, and what the script writes is sent back (`pod`). What
//! is made of it all is decided in `domain::kubernetes`.

mod cluster;
mod files;
mod logs;
mod look;
mod notes;
mod pod;
mod submit;
mod watch;

pub use self::pod::{HandOver, Stage, hand_over, stage};

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
};

use tokio::sync::OnceCell;
use tracing::warn;

use self::{
    cluster::Cluster,
    logs::Logs,
    notes::Notes,
    submit::{no_key, variables},
    watch::Watch,
};
use super::{
    ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, Observation,
    PrepareError, ProvisionError, SourceTree, StagingArea, Substitution,
    process::{self, ProcessBackend},
};
use crate::{
    artifacts::Artifacts,
    clock::{Clock as _, SystemClock},
    domain::{
        compute_target,
        environment::EnvironmentKind,
        ids::RunId,
        kubernetes::{Kind, KubernetesSettings, Stop, StopReason, attempt_of, made_for_one_run, object_name},
        plan::Launcher,
        render::{Subject, kubernetes as rendering},
        staging::Place,
    },
    vault::Vault,
};

/// Runs attempts in one namespace of a Kubernetes cluster.
#[derive(Debug)]
pub struct KubernetesBackend {
    target: KubernetesSettings,
    /// Unpacks source trees and stages data on this worker's disk, before they are packed for the pods.
    files: ProcessBackend,
    artifacts: Artifacts,
    /// Makes the tokens by which pods are let in; none without a secret key.
    vault: Option<Vault>,
    reached: OnceCell<Reached>,
    logs: Logs,
    /// What was last unpacked of what the pods sent, by attempt.
    unpacked: Mutex<HashMap<(RunId, u32), String>>,
}

/// A cluster that was found, and the view of it.
#[derive(Debug)]
struct Reached {
    cluster: Cluster,
    watch: Watch,
}

impl KubernetesBackend {
    /// A backend for a target. `settings` are those of the process backend, but for the directory.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub fn new(
        target: &KubernetesSettings,
        settings: &process::Settings,
        artifacts: Artifacts,
        vault: Option<Vault>,
    ) -> io::Result<Self> {
        let files = ProcessBackend::new(process::Settings {
            data_dir: settings.data_dir.join("kubernetes"),
            // Its processes are not this machine's.
            isolation: process::Isolation::default(),
            ..settings.clone()
        })?;
        Ok(Self {
            target: target.clone(),
            files,
            artifacts,
            vault,
            reached: OnceCell::new(),
            logs: Logs::default(),
            unpacked: Mutex::default(),
        })
    }

    async fn reached(&self) -> Result<&Reached, BackendError> {
        let reach = async || {
            let cluster = Cluster::new(&self.target).await?;
            let watch = Watch::start(&cluster);
            Ok(Reached { cluster, watch })
        };
        self.reached.get_or_try_init(reach).await
    }

    const fn notes<'a>(&'a self, attempt: &'a Attempt) -> Notes<'a> {
        Notes::new(&self.artifacts, attempt)
    }
}

const fn kind(attempt: &Attempt) -> Kind {
    match attempt.plan.launcher {
        Launcher::Single => Kind::Job,
        Launcher::Mpi => Kind::MpiJob,
    }
}

impl Backend for KubernetesBackend {
    /// Nodes are those that the cluster has, or makes: which ones are asked for is said.
    async fn provision(&self, attempt: &Attempt) -> Result<String, ProvisionError> {
        Ok(made_for_one_run(&attempt.plan, &self.target))
    }

    /// Puts the source tree on this worker's disk, for it to be packed; the environment is the pod's affair.
    async fn prepare(
        &self,
        attempt: &Attempt,
        source: &impl SourceTree,
    ) -> Result<ActualEnvironment, PrepareError> {
        let environment = &attempt.plan.environment;
        if environment.container.base_dockerfile.is_some() {
            let message =
                "Kubernetes builds no images of Dockerfiles: build it, and name it as the base image";
            return Err(PrepareError::EnvironmentBuild { message: message.to_owned() });
        }
        self.files.place(attempt, source).await?;
        let subject = Subject { plan: &attempt.plan, definition: None };
        let own = environment.interpreter_path.clone().or_else(|| attempt.backend.python.clone());
        let own = own.unwrap_or_else(|| "python3".to_owned());
        let variables = variables(attempt);
        let service = self.service(attempt, &own, &variables);
        let image = rendering::image(&subject, &service);
        let mut substitutions = Vec::new();
        if environment.image.as_ref() != Some(&image) {
            substitutions.push(Substitution {
                asked: environment.image.clone().unwrap_or_else(|| "no container".to_owned()),
                used: Some(image.clone()),
                reason: "the image that this target has in its place".to_owned(),
            });
        }
        substitutions.extend(rendering::substitutions(&subject));
        let installed = rendering::installed_interpreter(&subject, &service);
        Ok(ActualEnvironment {
            kind: match environment.kind {
                EnvironmentKind::Managed => "image".to_owned(),
                EnvironmentKind::UserManaged => "user_managed".to_owned(),
            },
            interpreter: installed.unwrap_or(own),
            python_version: format!("that of {image}"),
            packages: Vec::new(),
            substitutions,
            build_key: None,
            reused: false,
            container: None,
            image: Some(image),
        })
    }

    async fn ship(&self, attempt: &Attempt) -> Result<(), PrepareError> {
        self.pack(attempt).await.map_err(|source| PrepareError::Io {
            path: self.files.directory(attempt).root().to_owned(),
            source,
        })
    }

    async fn ensure_submitted(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
    ) -> Result<(), BackendError> {
        let notes = self.notes(attempt);
        let is_there = notes.submission().await?.is_some_and(|submission| submission.uid.is_some());
        if is_there || notes.outcome().await?.is_some() || notes.stop().await?.is_some() {
            return Ok(());
        }
        if self.vault.is_none() {
            return Err(no_key());
        }
        self.pack(attempt).await.map_err(|source| BackendError::Io {
            action: "pack source tree and data for the pods".to_owned(),
            source,
        })?;
        self.submit(attempt, environment).await
    }

    async fn observe(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        let notes = self.notes(attempt);
        if let Some(outcome) = notes.outcome().await? {
            return Ok(outcome);
        }
        let observation = self.look(attempt).await?;
        if observation.is_final() { notes.settle(observation).await } else { Ok(observation) }
    }

    async fn cancel(&self, attempt: &Attempt) -> Result<(), BackendError> {
        let notes = self.notes(attempt);
        if notes.outcome().await?.is_some() {
            return Ok(());
        }
        let now = SystemClock.now();
        let before = notes.stop().await?;
        let stop = before.unwrap_or(Stop { reason: StopReason::Canceled, at: now, started_at: None });
        // Who asks for the end of a run that is over its time already changes the reason, not the end.
        let reason = match stop.reason {
            StopReason::OverTime => StopReason::Canceled,
            reason => reason,
        };
        self.stop(attempt, Stop { reason, ..stop }).await
    }

    async fn log_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.bring_logs(attempt).await?;
        self.unpack(attempt).await?;
        self.listed_logs(attempt)
    }

    async fn record_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.unpack(attempt).await?;
        self.listed_records(attempt)
    }

    async fn output_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.unpack(attempt).await?;
        self.listed_outputs(attempt)
    }

    async fn missing_files(&self, attempt: &Attempt) -> io::Result<Option<String>> {
        self.missing(attempt).await
    }

    fn staging(&self, attempt: &Attempt) -> StagingArea {
        self.area(attempt)
    }

    async fn staged_files(&self, attempt: &Attempt, place: &Place) -> io::Result<Vec<AttemptFile>> {
        self.unpack(attempt).await?;
        // What goes to a datastore goes there whole, or the run says that it did not.
        if let Some(why) = self.missing(attempt).await? {
            return Err(io::Error::new(io::ErrorKind::NotFound, why));
        }
        self.listed_place(attempt, place)
    }

    async fn remove(&self, attempt: &Attempt) -> io::Result<()> {
        let notes = self.notes(attempt);
        let submission = notes.submission().await.map_err(io::Error::other)?;
        if submission.is_some() && notes.outcome().await.map_err(io::Error::other)?.is_none() {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the attempt still runs"));
        }
        // In this order: whatever is interrupted, something is left by which the rest is found.
        self.artifacts.delete_exchange(attempt.run_id, attempt.number).await.map_err(io::Error::other)?;
        if let Some(submission) = submission {
            self.delete(attempt, submission.uid).await.map_err(io::Error::other)?;
            let Reached { watch, .. } = self.reached().await.map_err(io::Error::other)?;
            watch.forget(&object_name(attempt.run_id, attempt.number));
        }
        self.forget(attempt.run_id, attempt.number);
        self.logs.forget(self.files.directory(attempt).root());
        self.files.remove(attempt).await
    }

    async fn tidy_environments(&self) -> io::Result<Vec<BuiltEnvironment>> {
        // They are in volumes of the cluster.
        Ok(Vec::new())
    }

    async fn reach(&self, _: &compute_target::Backend) -> Result<String, String> {
        if self.vault.is_none() {
            return Err(no_key().to_string());
        }
        let reached = self.reached().await.map_err(|error| error.to_string())?;
        let version = reached.cluster.version().await.map_err(|error| error.to_string())?;
        let jobs = reached.cluster.list(Kind::Job, None).await.map_err(|error| error.to_string())?;
        let mpi_jobs = reached.cluster.list(Kind::MpiJob, None).await.map_err(|error| error.to_string())?;
        Ok(format!(
            "Kubernetes {version} answers; the namespace {} has {} Job(s) and {} MPIJob(s) of this service",
            self.target.namespace,
            jobs.len(),
            mpi_jobs.len()
        ))
    }

    async fn remaining_runs(&self) -> io::Result<Vec<RunId>> {
        let mut runs = self.files.remaining_runs().await?;
        // A cluster that does not answer has something to remove another time.
        if let Ok(Reached { cluster, .. }) = self.reached().await {
            for kind in [Kind::Job, Kind::MpiJob] {
                match cluster.list(kind, None).await {
                    Ok(objects) => {
                        runs.extend(
                            objects.iter().filter_map(|object| Some(attempt_of(&object.metadata.name)?.0)),
                        );
                    }
                    Err(error) => warn!("what is left in {} is not known: {error}", self.target.namespace),
                }
            }
        }
        runs.sort_unstable();
        runs.dedup();
        Ok(runs)
    }

    async fn remove_run(&self, run: RunId) -> io::Result<()> {
        self.artifacts.delete_exchanges(run).await.map_err(io::Error::other)?;
        let Reached { cluster, watch } = self.reached().await.map_err(io::Error::other)?;
        for kind in [Kind::Job, Kind::MpiJob] {
            let objects = cluster.list(kind, Some(&run.to_string())).await.map_err(io::Error::other)?;
            for object in objects {
                let metadata = &object.metadata;
                let deleted = cluster.delete(kind, &metadata.name, &metadata.uid).await;
                deleted.map_err(io::Error::other)?;
                watch.forget(&metadata.name);
                if let Some((_, number)) = attempt_of(&metadata.name) {
                    self.forget(run, number);
                }
            }
        }
        self.files.remove_run(run).await
    }
}

impl KubernetesBackend {
    fn forget(&self, run: RunId, number: u32) {
        self.unpacked.lock().unwrap_or_else(PoisonError::into_inner).remove(&(run, number));
    }
}
