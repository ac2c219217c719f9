//! Processes on the worker's own machine.
//!
//! Every attempt has a directory, and a supervisor (this binary, hidden subcommand `supervise`) that starts the script
//! and outlives the service. What is known of an attempt is in its directory, so that any service that is started on
//! the same data directory knows it too.

mod begin;
mod confinement;
mod container;
mod descendants;
mod disk_watch;
mod environment;
pub(in crate::backend) mod files;
#[cfg(test)]
mod fixtures;
pub(in crate::backend) mod launch;
pub(in crate::backend) mod layout;
mod leftovers;
mod machine;
mod observe;
mod rank;
mod records;
mod remove;
pub(in crate::backend) mod script_environment;
pub(in crate::backend) mod script_module;
mod signals;
mod start;
mod supervisor;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;

pub(in crate::backend) use self::environment::find_program;
use self::{
    confinement::{Confinement, Places},
    layout::AttemptDir,
    records::{Begun, CancelRequest, Supervisor},
};
use super::{
    ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, Observation,
    PrepareError, ProvisionError, SourceTree, StagingArea,
};
use crate::{
    clock::{Clock as _, SystemClock},
    domain::{
        compute_target,
        framework::vm_size,
        ids::RunId,
        one_off_target::stands_for,
        staging::{Place, Root},
    },
};

pub use self::{
    confinement::{
        Confine, Isolation, IsolationError, Limits, Surroundings, check as check_isolation, confine,
        make_room as make_room_for_isolation,
    },
    container::{HELPER as CREDENTIAL_HELPER, credential_helper},
    rank::{Rank, rank},
    supervisor::{Supervise, supervise},
};

/// How long killed processes may take to go before something is said about it.
const GONE_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at something that will be there in a moment.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What a [`ProcessBackend`] is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where runs, environments, tools and caches are kept.
    pub data_dir: PathBuf,
    /// Our own executable, which is started as `supervise` and `rank`.
    pub supervisor: PathBuf,
    /// Between TERM and KILL when a run is told to end.
    pub cancel_grace: Duration,
    /// How long building an environment may take, waiting for another run's build included.
    pub build_timeout: Duration,
    /// What built environments may take of the disk before those that nobody uses are removed.
    pub max_environments_bytes: u64,
    /// The uv to build with; looked up on `PATH`, else installed once with pip, when not given.
    pub uv: Option<PathBuf>,
    /// The micromamba, mamba or conda to build with; looked up on `PATH` when not given.
    pub conda: Option<PathBuf>,
    /// What the names of conda channels are relative to, instead of what the program has built in.
    pub conda_channel_alias: Option<String>,
    /// What runs are kept within.
    pub isolation: Isolation,
}

/// Why the source tree could not be put in place.
#[derive(Debug, thiserror::Error)]
enum PlaceError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the snapshot has a file named `{0}`, where the run needs a directory: rename it")]
    InTheWay(&'static str),
}

/// Runs attempts as processes on this machine.
#[derive(Clone, Debug)]
pub struct ProcessBackend {
    settings: Settings,
    /// The service's own environment, of which scripts are given a small part.
    service_environment: Vec<(String, String)>,
    interpreters: Arc<environment::KnownInterpreters>,
}

impl ProcessBackend {
    /// A backend over the given data directory, which need not exist yet.
    pub fn new(settings: Settings) -> io::Result<Self> {
        let data_dir = std::path::absolute(&settings.data_dir)?;
        let supervisor = std::path::absolute(&settings.supervisor)?;
        // A variable that is no text cannot be meant for what is started here.
        let service_environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Ok(Self {
            settings: Settings { data_dir, supervisor, ..settings },
            service_environment,
            interpreters: Arc::default(),
        })
    }

    /// What it was told.
    pub(in crate::backend) const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The service's own environment.
    pub(in crate::backend) fn service_environment(&self) -> &[(String, String)] {
        &self.service_environment
    }

    pub(in crate::backend) fn directory(&self, attempt: &Attempt) -> AttemptDir {
        AttemptDir::new(&self.settings.data_dir, attempt.run_id, attempt.number)
    }

    /// Puts the working directory in place, whole or not at all.
    async fn place_work(&self, directory: &AttemptDir, source: &impl SourceTree) -> Result<(), PlaceError> {
        layout::create_private_dir(&directory.user_logs())?;
        layout::create_private_dir(&directory.records())?;
        layout::create_private_dir(&directory.data())?;
        let _lock = layout::lock(&directory.prepare_lock()).await?;
        if directory.work().exists() {
            return Ok(());
        }
        remove_partial(directory.root())?;
        let partial = tempfile::Builder::new().prefix(PARTIAL_WORK).tempdir_in(directory.root())?;
        source.unpack(partial.path()).await?;
        for name in ["outputs", "logs"] {
            let path = partial.path().join(name);
            if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_dir()) {
                return Err(PlaceError::InTheWay(name));
            }
            fs::create_dir_all(path)?;
        }
        if self.settings.isolation.users.is_some() {
            // Readable to the attempt's user, who alone gets this far, but not its own before everything is in place.
            confinement::open_to_all(partial.path())?;
        }
        fs::rename(partial.path(), directory.work())?;
        // It is no longer there to be removed.
        let _ = partial.keep();
        Ok(())
    }

    /// Puts the attempt's directories and its source tree in place.
    pub(in crate::backend) async fn place(
        &self,
        attempt: &Attempt,
        source: &impl SourceTree,
    ) -> Result<AttemptDir, PrepareError> {
        let directory = self.directory(attempt);
        let is_placed = self.place_work(&directory, source).await;
        is_placed.map_err(|error| match error {
            PlaceError::Io(source) => PrepareError::Io { path: directory.root().to_owned(), source },
            // The definition's fault: trying again will not help.
            in_the_way @ PlaceError::InTheWay(_) => {
                PrepareError::EnvironmentBuild { message: in_the_way.to_string() }
            }
        })?;
        Ok(directory)
    }

    /// The user of the attempt, given to it now unless it has one; none where runs have the service's.
    async fn user(&self, attempt: &Attempt) -> Result<Option<u32>, BackendError> {
        let Some(range) = self.settings.isolation.users else { return Ok(None) };
        let directory = self.directory(attempt);
        let failed = |source| BackendError::Io {
            action: format!("open {} to its user", directory.root().display()),
            source,
        };
        layout::create_private_dir(&directory.logs()).map_err(failed)?;
        // The end of a run's id is random.
        let (_, seed) = attempt.run_id.as_uuid().as_u64_pair();
        let user = confinement::assign(&self.settings.data_dir, directory.root(), range, seed).await?;
        confinement::open_to_user(&directory, user).map_err(failed)?;
        Ok(Some(user))
    }

    /// Has the names in an attempt's directory survive that the machine goes down: that it has its user, and that it was begun.
    async fn keep_names(&self, attempt: &Attempt) -> Result<(), BackendError> {
        let directory = self.directory(attempt);
        let root = directory.root().to_owned();
        let kept = tokio::task::spawn_blocking(move || layout::sync(&root)).await.map_err(io::Error::other);
        kept.and_then(|kept| kept).map_err(|source| BackendError::Io {
            action: format!("keep what is in {}", directory.root().display()),
            source,
        })
    }

    /// What the attempt is kept within when its interpreter is this one.
    async fn confinement(
        &self,
        attempt: &Attempt,
        interpreter: &Path,
        links: &[PathBuf],
    ) -> Result<Confinement, BackendError> {
        let isolation = &self.settings.isolation;
        let user = self.user(attempt).await?;
        let places = match isolation.landlock {
            true => Some(self.places(attempt, interpreter, links).map_err(|source| BackendError::Io {
                action: format!("make the places of the run {}", attempt.run_id),
                source,
            })?),
            false => None,
        };
        Ok(Confinement { user, limits: isolation.limits, places })
    }

    /// What it reaches of the file system, where that is restricted.
    fn places(&self, attempt: &Attempt, interpreter: &Path, links: &[PathBuf]) -> io::Result<Places> {
        let (directory, data_dir) = (self.directory(attempt), &self.settings.data_dir);
        let mut read = installations_of(interpreter);
        read.extend([self.settings.supervisor.clone(), data_dir.join("tools")]);
        read.extend(links.iter().cloned());
        read.retain(|path| path.exists() && path.parent().is_some());
        let write = vec![
            directory.work(),
            directory.data(),
            directory.records(),
            directory.user_logs(),
            directory.home(),
            directory.temporary(),
        ];
        for path in &write {
            layout::create_private_dir(path)?;
        }
        Ok(Places { read, write })
    }

    /// Whether a run has a home and a place for temporary files of its own.
    const fn has_own_home(&self) -> bool {
        self.settings.isolation.users.is_some() || self.settings.isolation.landlock
    }

    /// Where the attempt's data is staged.
    pub(in crate::backend) fn area(&self, attempt: &Attempt) -> StagingArea {
        let directory = self.directory(attempt);
        let cache = self.settings.data_dir.join("cache/data");
        StagingArea { data: directory.data(), work: directory.work(), cache }
    }
}

/// What an interpreter belongs to: `bin` beside `lib`. That of a link as well as that of what it leads to.
fn installations_of(interpreter: &Path) -> Vec<PathBuf> {
    let installation = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_owned);
    let real = interpreter.canonicalize().unwrap_or_else(|_| interpreter.to_owned());
    [interpreter, &real].into_iter().filter_map(installation).collect()
}

const PARTIAL_WORK: &str = "work.partial-";

/// Removes what interrupted preparations left.
fn remove_partial(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PARTIAL_WORK) {
            files::remove_tree(&entry.path())?;
        }
    }
    Ok(())
}

fn this_boot() -> Result<String, BackendError> {
    descendants::boot_id()
        .map_err(|source| BackendError::Io { action: "tell which boot this is".to_owned(), source })
}

impl Backend for ProcessBackend {
    /// The worker's own machine stands for every size that it can stand for.
    async fn provision(&self, attempt: &Attempt) -> Result<String, ProvisionError> {
        let asked = attempt.plan.one_off_target.as_ref();
        let size = asked.and_then(|asked| vm_size(&asked.vm_size)).ok_or_else(|| {
            ProvisionError::Impossible("the plan names no size that is in the table of sizes".to_owned())
        })?;
        let machine = machine::this()
            .map_err(|source| BackendError::Io { action: "look at this machine".to_owned(), source })?;
        stands_for(machine, size).map_err(ProvisionError::Impossible)
    }

    async fn prepare(
        &self,
        attempt: &Attempt,
        source: &impl SourceTree,
    ) -> Result<ActualEnvironment, PrepareError> {
        let directory = self.place(attempt, source).await?;
        environment::prepare(self, attempt, &directory).await
    }

    async fn ship(&self, _: &Attempt) -> Result<(), PrepareError> {
        // It is where it will be used.
        Ok(())
    }

    async fn ensure_submitted(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
    ) -> Result<(), BackendError> {
        start::ensure_submitted(self, attempt, environment).await
    }

    async fn observe(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        self.look_at(attempt).await
    }

    async fn cancel(&self, attempt: &Attempt) -> Result<(), BackendError> {
        let directory = self.directory(attempt);
        let failed =
            |source| BackendError::Io { action: format!("cancel {}", directory.root().display()), source };
        if directory.exit().exists() {
            return Ok(());
        }
        layout::create_private_dir(directory.root()).map_err(failed)?;
        if !directory.cancel().exists() {
            let request = CancelRequest { requested_at: SystemClock.now() };
            layout::write_json(&directory.cancel(), &request).map_err(failed)?;
        }
        let boot = this_boot()?;
        if matches!(Begun::of(&directory, &boot)?, Begun::BeforeRestart(_)) {
            return Ok(());
        }
        let process = match layout::read_json::<Supervisor>(&directory.supervisor())? {
            Some(supervisor) if supervisor.boot_id != boot => None,
            Some(Supervisor { pid, start_ticks, .. }) => {
                Some(descendants::Process { pid, parent: 0, start_ticks })
            }
            // It is only beginning, or its script has removed the record of it.
            None => descendants::supervisor_of(directory.root()).map_err(failed)?,
        };
        let Some(process) = process else { return Ok(()) };
        descendants::signal(process, Signal::SIGTERM).map_err(failed)?;
        // A stopped one would never hear it.
        descendants::signal(process, Signal::SIGCONT).map_err(failed)
    }

    async fn log_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        let directory = self.directory(attempt);
        let mut found = files::list(&directory.logs(), "", "")?;
        found.extend(files::list(&directory.work(), "logs", "logs/")?);
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    async fn output_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        let mut found = files::list(&self.directory(attempt).work(), "outputs", "")?;
        found.retain(|file| !files::is_partial_upload(&file.name));
        Ok(found)
    }

    async fn record_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        files::list(&self.directory(attempt).records(), "", "")
    }

    fn staging(&self, attempt: &Attempt) -> StagingArea {
        self.area(attempt)
    }

    async fn staged_files(&self, attempt: &Attempt, place: &Place) -> io::Result<Vec<AttemptFile>> {
        let directory = self.directory(attempt);
        let root = match place.root {
            Root::Data => directory.data(),
            Root::Work => directory.work(),
        };
        files::list(&root, &place.path, "")
    }

    async fn remove(&self, attempt: &Attempt) -> io::Result<()> {
        let directory = self.directory(attempt);
        if directory.supervisor().exists() && layout::is_locked(&directory.lock())? {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the attempt still runs"));
        }
        let root = directory.root().to_owned();
        let user = confinement::assigned(&root).map_err(io::Error::other)?;
        tokio::task::spawn_blocking(move || {
            files::remove_tree(&root)?;
            if let Some(user) = user {
                confinement::give_back(user, &root)?;
            }
            // The run's directory goes with its last attempt.
            if let Some(run) = root.parent()
                && let Err(error) = fs::remove_dir(run)
                && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
            {
                return Err(error);
            }
            Ok(())
        })
        .await
        .map_err(io::Error::other)?
    }

    async fn tidy_environments(&self) -> io::Result<Vec<BuiltEnvironment>> {
        environment::tidy(&self.settings).await
    }

    async fn reach(&self, _: &compute_target::Backend) -> Result<String, String> {
        Ok("a worker runs here".to_owned())
    }

    async fn remaining_runs(&self) -> io::Result<Vec<RunId>> {
        let entries = match fs::read_dir(layout::runs(&self.settings.data_dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut runs = Vec::new();
        for entry in entries {
            // What has no run's name is not ours.
            if let Some(run) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
                runs.push(run);
            }
        }
        Ok(runs)
    }

    async fn remove_run(&self, run: RunId) -> io::Result<()> {
        let directory = layout::runs(&self.settings.data_dir).join(run.to_string());
        tokio::task::spawn_blocking(move || files::remove_tree(&directory)).await.map_err(io::Error::other)?
    }
}
