//! Processes on the worker's own machine.
//!
//! Every attempt has a directory, and a supervisor (this binary, hidden subcommand `supervise`) that starts the script
//! and outlives the service. What is known of an attempt is in its directory, so that any service that is started on
//! the same data directory knows it too.

mod container;
mod descendants;
mod environment;
pub(in crate::backend) mod files;
#[cfg(test)]
mod fixtures;
pub(in crate::backend) mod launch;
pub(in crate::backend) mod layout;
mod leftovers;
mod machine;
mod rank;
mod records;
pub(in crate::backend) mod script_environment;
pub(in crate::backend) mod script_module;
mod start;
mod supervisor;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use nix::sys::signal::Signal;

use self::{
    layout::AttemptDir,
    records::{CancelRequest, Loss, Started, Supervisor},
};
use super::{
    ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, Exit, Observation,
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
        layout::create_private_dir(&directory.logs().join("user_logs"))?;
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
        self.place_work(&directory, source).await.map_err(|error| match error {
            PlaceError::Io(source) => PrepareError::Io { path: directory.root().to_owned(), source },
            // The definition's fault: trying again will not help.
            in_the_way @ PlaceError::InTheWay(_) => {
                PrepareError::EnvironmentBuild { message: in_the_way.to_string() }
            }
        })?;
        Ok(directory)
    }

    /// Where the attempt's data is staged.
    pub(in crate::backend) fn area(&self, attempt: &Attempt) -> StagingArea {
        let directory = self.directory(attempt);
        let cache = self.settings.data_dir.join("cache/data");
        StagingArea { data: directory.data(), work: directory.work(), cache }
    }

    fn supervisor_is_alive(directory: &AttemptDir) -> Result<bool, BackendError> {
        layout::is_locked(&directory.lock()).map_err(|source| BackendError::Io {
            action: format!("look at {}", directory.lock().display()),
            source,
        })
    }
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

/// Says that an attempt is lost, now and whenever it is asked again.
fn lost(directory: &AttemptDir, detail: String) -> Result<Observation, BackendError> {
    let loss = Loss { detail };
    layout::create_private_dir(directory.root())
        .and_then(|()| layout::write_json(&directory.lost(), &loss))
        .map_err(|source| BackendError::Io { action: "write lost.json".to_owned(), source })?;
    Ok(Observation::Lost { detail: loss.detail })
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
        let directory = self.directory(attempt);
        if let Some(exit) = layout::read_json::<Exit>(&directory.exit())? {
            return Ok(Observation::Exited(exit));
        }
        if let Some(loss) = layout::read_json::<Loss>(&directory.lost())? {
            return Ok(Observation::Lost { detail: loss.detail });
        }
        let Some(supervisor) = layout::read_json::<Supervisor>(&directory.supervisor())? else {
            // Without the record that precedes a supervisor none can be on the way: what there is has lost its
            // directory.
            let killed = if directory.launch().exists() {
                0
            } else {
                leftovers::end(attempt, &directory, None).await?
            };
            if killed > 0 {
                return lost(
                    &directory,
                    format!("its directory was removed; {killed} processes were left and killed"),
                );
            }
            // A supervisor that is only beginning sees the request too, and ends the same way.
            let request = layout::read_json::<CancelRequest>(&directory.cancel())?;
            return Ok(request.map_or(Observation::NotFound, |request| {
                Observation::Exited(supervisor::canceled_before_start(&request))
            }));
        };
        if Self::supervisor_is_alive(&directory)? {
            let started = layout::read_json::<Started>(&directory.started())?;
            return Ok(started.map_or(Observation::Starting, |started| Observation::Running {
                started_at: started.started_at,
            }));
        }
        // It may have written this and gone after the first look.
        if let Some(exit) = layout::read_json::<Exit>(&directory.exit())? {
            return Ok(Observation::Exited(exit));
        }
        let killed = leftovers::end(attempt, &directory, Some(&supervisor)).await?;
        let when = if supervisor.boot_id == descendants::boot_id().unwrap_or_default() {
            "ended without saying how the run went"
        } else {
            "is gone since the machine was restarted"
        };
        let pid = supervisor.pid;
        lost(
            &directory,
            format!("its supervisor (pid {pid}) {when}; {killed} processes were left and killed"),
        )
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
        let Some(supervisor) = layout::read_json::<Supervisor>(&directory.supervisor())? else {
            return Ok(());
        };
        if supervisor.boot_id != descendants::boot_id().map_err(failed)? {
            return Ok(());
        }
        let process =
            descendants::Process { pid: supervisor.pid, parent: 0, start_ticks: supervisor.start_ticks };
        descendants::signal(process, Signal::SIGTERM).map_err(failed)
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
        tokio::task::spawn_blocking(move || {
            files::remove_tree(&root)?;
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
