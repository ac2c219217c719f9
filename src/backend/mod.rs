//! Reaching compute. A backend starts, watches and ends the processes of one attempt, and knows nothing of HTTP
//! or the database. Every operation is idempotent: after a crash it is simply asked again.

mod attempt_file;
mod dispatch;
pub mod kubernetes;
pub mod process;
pub mod slurm;

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    path::{Path, PathBuf},
};

pub use self::{attempt_file::AttemptFile, dispatch::Backends};
use crate::domain::{
    base_url::BaseUrl, compute_target, ids::RunId, plan::Plan, secret::Secret, staging::Place,
};
pub use crate::domain::{
    built_environment::BuiltEnvironment,
    environment::{ActualEnvironment, Substitution},
    run::{Exit, ExitReason, Observation},
};

/// One attempt of a run, as a backend needs to know it. Its external name is made of `run_id` and `number`.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The run.
    pub run_id: RunId,
    /// 1 for the first attempt.
    pub number: u32,
    /// The experiment; the script sees it as `AZUREML_ARM_PROJECT_NAME`.
    pub experiment_name: String,
    /// The run's tags, which its script can ask for.
    pub tags: BTreeMap<String, String>,
    /// What to start.
    pub plan: Plan,
    /// The target's backend settings.
    pub backend: compute_target::Backend,
    /// Who pulls the image, where its registry asks for it.
    pub registry: Option<RegistryLogin>,
    /// How its script reaches the service; not at all without a secret key, which its token is made with.
    pub access: Option<ServiceAccess>,
}

/// Where a script finds the address of the service; so does our own command line.
pub const URL_VARIABLE: &str = "ESTIMATORD_URL";
/// Where a script finds its token; so does our own command line.
pub const TOKEN_VARIABLE: &str = "ESTIMATORD_TOKEN";

/// How a script reaches the service that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccess {
    /// Opens its own run, to be read, while it lives.
    pub token: Secret,
    /// Where the service answers.
    pub addresses: ServiceAddresses,
}

/// Where a service answers, as URLs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceAddresses {
    /// For everybody, as the operator says.
    pub public: Option<BaseUrl>,
    /// On the worker's machine, where an API is in the same process.
    pub local: Option<BaseUrl>,
}

impl ServiceAccess {
    /// The variables that a script on the worker's machine finds it by.
    fn on_this_machine(&self) -> Vec<(String, String)> {
        let ServiceAddresses { public, local } = &self.addresses;
        self.variables(public.as_ref().or(local.as_ref()))
    }

    /// The variables that a script elsewhere finds it by, or one with a network of its own.
    fn elsewhere(&self) -> Vec<(String, String)> {
        self.variables(self.addresses.public.as_ref())
    }

    fn variables(&self, url: Option<&BaseUrl>) -> Vec<(String, String)> {
        let url = url.map(|url| (URL_VARIABLE.to_owned(), url.to_string()));
        let token = (TOKEN_VARIABLE.to_owned(), self.token.expose().to_owned());
        url.into_iter().chain([token]).collect()
    }
}

/// Who pulls an image. The registry's address is the plan's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The user.
    pub username: String,
    /// The user's password.
    pub password: Secret,
}

/// Where the snapshot comes from; the worker implements it over the artifact store.
pub trait SourceTree: Send + Sync {
    /// Unpacks the attempt's snapshot into `directory`, which exists and is empty.
    fn unpack(&self, directory: &Path) -> impl Future<Output = io::Result<()>> + Send;
}

/// The directories that data is staged in, on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StagingArea {
    /// That of [`crate::domain::staging::Root::Data`].
    pub data: PathBuf,
    /// That of [`crate::domain::staging::Root::Work`].
    pub work: PathBuf,
    /// For copies that several attempts use.
    pub cache: PathBuf,
}

/// Why a target for one run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// It cannot be what was asked for; trying again will not help.
    #[error("{0}")]
    Impossible(String),
    /// The compute cannot say.
    #[error(transparent)]
    Backend(#[from] BackendError),
}

/// Why an attempt could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// The definition's environment cannot be had; trying again will not help.
    #[error("environment build failed: {message}")]
    EnvironmentBuild {
        /// What the resolver or builder said, shortened to what a person needs.
        message: String,
    },
    /// The source tree could not be unpacked, or the machine would not do as told (disk full, permissions).
    #[error("cannot prepare {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the machine said.
        source: io::Error,
    },
}

/// Why an attempt could not be started, watched or stopped.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The machine would not do as told.
    #[error("{action}: {source}")]
    Io {
        /// What was being done, with the path or pid.
        action: String,
        /// What the machine said.
        source: io::Error,
    },
    /// Something that the backend itself wrote cannot be read back.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The compute does not answer, or not in a way that can be read. It may later: nothing is concluded from it.
    #[error("{0}")]
    Unavailable(String),
    /// The compute answered that it will not do this, and would not next time.
    #[error("{0}")]
    Refused(String),
}

/// What every kind of compute can do. One conformance suite (`tests/backends`) holds for all.
pub trait Backend: Send + Sync {
    /// Makes the target of this one run, where the plan asks for one, and says what it is. Asking again is no second one.
    fn provision(&self, attempt: &Attempt) -> impl Future<Output = Result<String, ProvisionError>> + Send;

    /// Makes everything ready that must be there before the start: working directory with the source tree,
    /// environment. What an interrupted call left behind is never used half-done.
    fn prepare(
        &self,
        attempt: &Attempt,
        source: &impl SourceTree,
    ) -> impl Future<Output = Result<ActualEnvironment, PrepareError>> + Send;

    /// Puts what is prepared and staged where the compute fetches it, if it has to be put anywhere: after this another worker
    /// can start the attempt too.
    fn ship(&self, attempt: &Attempt) -> impl Future<Output = Result<(), PrepareError>> + Send;

    /// Starts the attempt unless it was started before: looks its name up first, so that two calls, also by two
    /// workers or before and after a crash, start it once.
    fn ensure_submitted(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
    ) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// What has become of it.
    fn observe(&self, attempt: &Attempt) -> impl Future<Output = Result<Observation, BackendError>> + Send;

    /// Asks its processes to end: TERM, grace, KILL, without waiting for it. [`Backend::observe`] tells when they
    /// are gone. An attempt that was never started can never be started after this (`observe` then says
    /// `Exited` with reason `Canceled`).
    fn cancel(&self, attempt: &Attempt) -> impl Future<Output = Result<(), BackendError>> + Send;

    /// Its logs so far: standard output and error per rank, build log, files below `./logs`.
    fn log_files(&self, attempt: &Attempt) -> impl Future<Output = io::Result<Vec<AttemptFile>>> + Send;

    /// The files in which its processes record metrics and the like, `<rank>-<pid>-<random>.jsonl`.
    fn record_files(&self, attempt: &Attempt) -> impl Future<Output = io::Result<Vec<AttemptFile>>> + Send;

    /// The regular files below `./outputs`, links left out.
    fn output_files(&self, attempt: &Attempt) -> impl Future<Output = io::Result<Vec<AttemptFile>>> + Send;

    /// What of the files of an attempt that has ended will never be here, and why; none where all of it is.
    fn missing_files(&self, _attempt: &Attempt) -> impl Future<Output = io::Result<Option<String>>> + Send {
        async { Ok(None) }
    }

    /// The directories that the attempt's data is put into, and where what is read over and over can be kept.
    fn staging(&self, attempt: &Attempt) -> StagingArea;

    /// The regular files that the script left at a place, links left out.
    fn staged_files(
        &self,
        attempt: &Attempt,
        place: &Place,
    ) -> impl Future<Output = io::Result<Vec<AttemptFile>>> + Send;

    /// Removes what the attempt left on the compute, once everything was collected.
    fn remove(&self, attempt: &Attempt) -> impl Future<Output = io::Result<()>> + Send;

    /// Removes built environments that are over the limit and that no attempt uses, the longest unused first, and what
    /// interrupted removals left. Answers which are kept on this worker's part of the compute.
    fn tidy_environments(&self) -> impl Future<Output = io::Result<Vec<BuiltEnvironment>>> + Send;

    /// Learns that there is this target, and asks its compute whether it can be reached: what was found, or why not.
    fn reach(&self, target: &compute_target::Backend) -> impl Future<Output = Result<String, String>> + Send;

    /// The runs that have something left on this worker's part of the compute, whatever their status.
    fn remaining_runs(&self) -> impl Future<Output = io::Result<Vec<RunId>>> + Send;

    /// Removes everything that a run left, all attempts of it. Only for runs that have ended: what an attempt's own
    /// [`Backend::remove`] could not, because the worker died in between.
    fn remove_run(&self, run: RunId) -> impl Future<Output = io::Result<()>> + Send;
}
