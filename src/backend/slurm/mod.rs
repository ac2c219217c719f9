//! Attempts as jobs of a Slurm cluster.
//!
//! Everything an attempt has lies in its directory below the target's `shared_dir`, which the nodes see under the same path:
//! source tree, data, environment and logs are those of the process backend, put there once. The job is found by its name;
//! what it says of itself lies in the directory, what Slurm says of it is asked for with one `squeue` for all jobs of the
//! target. What is made of the two is decided in `domain::slurm`.

mod commands;
mod job_dir;
mod queue_cache;
mod script;

use std::{io, path::Path, sync::Arc, time::Duration};

use chrono::TimeDelta;
use tokio::{sync::Semaphore, time::Instant};
use tracing::{info, warn};

use self::{
    commands::Commands,
    job_dir::{JobDir, Stop, Submission},
    queue_cache::{Look, QueueCache},
};
use super::{
    ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, Observation,
    PrepareError, ProvisionError, SourceTree, StagingArea,
    process::{self, ProcessBackend, layout},
};
use crate::{
    clock::{Clock as _, SystemClock},
    domain::{
        compute_target::{self, Containers, SlurmSettings},
        environment::EnvironmentKind,
        ids::RunId,
        plan::Launcher,
        run::ExitReason,
        slurm::{self, Job, Meaning, Witness, job_name},
        staging::Place,
    },
};

/// How long killed processes may take to go before they are killed again.
const KILL_AGAIN: TimeDelta = TimeDelta::seconds(10);

/// How many `sbatch` run at once: the controller takes one job after the other, and keeps callers waiting who are too many.
const SUBMITTING_AT_ONCE: usize = 4;

/// How long a turn at `sbatch` is waited for: then the run is looked at again, and asks once more.
const TURN_PATIENCE: Duration = Duration::from_secs(30);

/// Runs attempts on one Slurm cluster.
#[derive(Clone, Debug)]
pub struct SlurmBackend {
    target: SlurmSettings,
    /// Puts source tree, data and environment in place, and reads what comes back: the same files, in another directory.
    files: ProcessBackend,
    commands: Commands,
    queue: Arc<QueueCache>,
    /// Turns at `sbatch`.
    submitting: Arc<Semaphore>,
    /// How old the last look at the queue may be.
    look_interval: Duration,
}

impl SlurmBackend {
    /// A backend for a target. `settings` are those of the process backend, but for the directory; `look_interval` is how
    /// often `squeue` is called at most, except to be sure before something is submitted or given up.
    pub fn new(
        target: &SlurmSettings,
        settings: &process::Settings,
        look_interval: Duration,
    ) -> io::Result<Self> {
        let files = ProcessBackend::new(process::Settings {
            data_dir: Path::new(&target.shared_dir).to_owned(),
            // Its processes are not this machine's.
            isolation: process::Isolation::default(),
            ..settings.clone()
        })?;
        let user = nix::unistd::geteuid().as_raw();
        let commands = Commands::new(target.commands.clone(), files.service_environment(), user);
        let (queue, submitting) = (Arc::default(), Arc::new(Semaphore::new(SUBMITTING_AT_ONCE)));
        Ok(Self { target: target.clone(), files, commands, queue, submitting, look_interval })
    }

    fn job_dir(&self, attempt: &Attempt) -> JobDir {
        JobDir::of(&self.files.directory(attempt))
    }

    /// A directory that is not mounted must not be made on the machine's own disk instead.
    fn shared_dir(&self) -> io::Result<()> {
        let path = Path::new(&self.target.shared_dir);
        if path.is_dir() {
            return Ok(());
        }
        let why = "the target's `shared_dir` is no directory here: make it, or mount it, on the service's machine and on \
                   every node";
        Err(io::Error::new(io::ErrorKind::NotFound, why))
    }

    /// The queue as it was a moment ago.
    async fn recent_look(&self) -> Result<Arc<Look>, BackendError> {
        let now = Instant::now();
        self.queue.look(&self.commands, now.checked_sub(self.look_interval).unwrap_or(now)).await
    }

    /// The queue as it is now.
    async fn fresh_look(&self) -> Result<Arc<Look>, BackendError> {
        self.queue.look(&self.commands, Instant::now()).await
    }

    /// What the controller says of the job by its number, where the queue does not have it.
    async fn by_number(&self, witness: &Witness, name: &str) -> Result<Option<Job>, BackendError> {
        let Some(id) = witness.begun.and_then(|begun| begun.job).or(witness.submitted) else {
            return Ok(None);
        };
        // Numbers of jobs come round again.
        Ok(self.commands.job(id).await?.filter(|job| job.name == name))
    }

    async fn find(&self, attempt: &Attempt, job_dir: &JobDir) -> Result<Observation, BackendError> {
        let name = job_name(attempt.run_id, attempt.number);
        let has_limit = attempt.plan.max_run_duration_seconds.is_some();
        let witness = job_dir.witness(has_limit)?;
        let now = SystemClock.now();
        let recent = self.recent_look().await?;
        if recent.of(&name).is_empty() && slurm::is_still_unseen(&witness, recent.began_at()) {
            return Ok(Observation::Starting);
        }
        if let Some(known) = slurm::found(&witness, recent.of(&name), now)
            // The script may have begun, and ended, between the two questions: the last word wants the witness read after it.
            && !(known.is_final() && witness.ended.is_none() && witness.intended)
        {
            return Ok(self.with_who(known, &witness, &name).await);
        }
        let fresh = self.fresh_look().await?;
        // Read again, and after the queue: what the script writes last, it writes before its job leaves the queue.
        let witness = job_dir.witness(has_limit)?;
        let now = SystemClock.now();
        if let Some(known) = slurm::found(&witness, fresh.of(&name), now) {
            return Ok(self.with_who(known, &witness, &name).await);
        }
        // An answer that lacks a job is doubted: what follows from it cannot be taken back.
        if let Some(job) = self.by_number(&witness, &name).await?
            && let Some(known) = slurm::found(&witness, &[job], now)
        {
            return Ok(self.with_who(known, &witness, &name).await);
        }
        Ok(slurm::remembered(&witness, &self.commands.accounting(&name).await?, now))
    }

    /// The same; and where somebody cancelled the job on the cluster with who that was, which accounting alone knows.
    async fn with_who(&self, known: Observation, witness: &Witness, name: &str) -> Observation {
        let is_elsewhere = |seen: &Observation| matches!(seen, Observation::Exited(exit) if exit.reason == ExitReason::CanceledElsewhere);
        if !is_elsewhere(&known) {
            return known;
        }
        match self.commands.accounting(name).await {
            Ok(jobs) => {
                let told = slurm::remembered(witness, &jobs, SystemClock.now());
                if is_elsewhere(&told) { told } else { known }
            }
            // How it ended is known without it.
            Err(error) => {
                warn!("who cancelled {name} is not known: {error}");
                known
            }
        }
    }

    /// Tells a run that is over its time to end, and kills one whose grace is over.
    async fn enforce(
        &self,
        attempt: &Attempt,
        job_dir: &JobDir,
        observation: &Observation,
    ) -> Result<(), BackendError> {
        let now = SystemClock.now();
        let stop = job_dir.stop()?;
        let over = match (observation, attempt.plan.max_run_duration_seconds) {
            (Observation::Running { started_at }, Some(limit)) => {
                now - *started_at >= TimeDelta::seconds(i64::try_from(limit).unwrap_or(i64::MAX / 1000))
            }
            _ => false,
        };
        match stop {
            None if over => {
                job_dir.write_stop(&Stop { requested_at: now, over_time: true, killed_at: None })?;
                self.signal(attempt, job_dir).await
            }
            None => Ok(()),
            Some(stop) => {
                let grace = TimeDelta::from_std(self.files.settings().cancel_grace).unwrap_or(TimeDelta::MAX);
                let is_due = now - stop.requested_at >= grace;
                let is_killed = stop.killed_at.is_some_and(|killed| now - killed < KILL_AGAIN);
                if !is_due || is_killed {
                    return Ok(());
                }
                job_dir.write_stop(&Stop { killed_at: Some(now), ..stop })?;
                let jobs = self.active_jobs(attempt).await?;
                let ids: Vec<u64> = jobs.iter().map(|job| job.id).collect();
                self.commands.cancel(&["--full", "--signal=KILL"], &ids).await?;
                self.commands.cancel(&[], &ids).await
            }
        }
    }

    async fn active_jobs(&self, attempt: &Attempt) -> Result<Vec<Job>, BackendError> {
        let look = self.fresh_look().await?;
        let jobs = look.of(&job_name(attempt.run_id, attempt.number)).iter();
        Ok(jobs.filter(|job| !matches!(job.state.meaning(), Meaning::Ended(_))).cloned().collect())
    }

    /// TERM for the script that runs; a job that has not begun goes at once.
    async fn signal(&self, attempt: &Attempt, job_dir: &JobDir) -> Result<(), BackendError> {
        let jobs = self.active_jobs(attempt).await?;
        let begun = job_dir.begun()?.and_then(|begun| begun.job);
        let (running, others): (Vec<_>, Vec<_>) =
            jobs.iter().map(|job| job.id).partition(|id| Some(*id) == begun);
        let options: &[&str] = match attempt.plan.launcher {
            Launcher::Single => &["--full", "--signal=TERM"],
            // The ranks, and not srun: it would answer by killing them.
            Launcher::Mpi => &["--signal=TERM"],
        };
        self.commands.cancel(options, &running).await?;
        self.commands.cancel(&[], &others).await
    }

    /// Hands the job in, unless it was before. Only one caller at a time gets here.
    async fn submit(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
        job_dir: &JobDir,
    ) -> Result<(), BackendError> {
        let before = job_dir.submission()?;
        if before.is_some_and(|submission| submission.job.is_some()) || job_dir.stop()?.is_some() {
            return Ok(());
        }
        let directory = self.files.directory(attempt);
        if !directory.work().is_dir() {
            let missing = io::Error::new(io::ErrorKind::NotFound, "the attempt was not prepared");
            return Err(job_dir.failed("submit", missing));
        }
        if let Some(before) = before
            && let Some(job) = self.handed_in_before(attempt).await?
        {
            let (run, id) = (attempt.run_id, job.id);
            info!(slurm.job = id, "run {run}: job {id} of Slurm is there already: it was handed in before");
            return job_dir.note_job(&Submission { job: Some(id), ..before });
        }
        let handed = script::write(self, attempt, environment, &directory, job_dir)
            .map_err(|source| job_dir.failed("write the script in", source))?;
        // With a controller that does not answer each turn takes long, and whoever waits for one may have been told to end meanwhile.
        let turn = tokio::time::timeout(TURN_PATIENCE, self.submitting.acquire()).await;
        let _turn = turn.map_err(|_| BackendError::Unavailable("others are being handed in".to_owned()))?;
        if job_dir.stop()?.is_some() {
            return Ok(());
        }
        let intended_at = before.map_or_else(|| SystemClock.now(), |before| before.intended_at);
        let submission = Submission { intended_at, job: None, answered_at: None };
        // From here on whoever takes over asks Slurm whether the job is there.
        job_dir.write_submission(&submission)?;
        let id = self.commands.submit(&handed.arguments, &handed.environment).await?;
        info!(slurm.job = id, "run {}: handed in as job {id} of Slurm", attempt.run_id);
        job_dir.note_job(&Submission { job: Some(id), answered_at: Some(SystemClock.now()), ..submission })
    }

    /// The job of an attempt for which `sbatch` was called, or was about to be: what became of that is not known.
    async fn handed_in_before(&self, attempt: &Attempt) -> Result<Option<Job>, BackendError> {
        let name = job_name(attempt.run_id, attempt.number);
        let look = self.fresh_look().await?;
        let mut jobs = look.of(&name).to_vec();
        if jobs.is_empty() {
            jobs = self.commands.accounting(&name).await?;
        }
        Ok(jobs.into_iter().max_by_key(|job| job.id))
    }
}

/// The attempt as the process backend is to prepare it: in no container of the worker's, for the nodes may have none; and
/// srun takes the place of the mpirun that it would look for beside an interpreter of the user's own.
fn as_prepared(attempt: &Attempt) -> Attempt {
    let mut attempt = attempt.clone();
    attempt.plan.containers = Containers::Never;
    if attempt.plan.environment.kind == EnvironmentKind::UserManaged {
        attempt.plan.launcher = Launcher::Single;
    }
    attempt
}

impl Backend for SlurmBackend {
    /// Nodes are made when the job gets them: whether there are such nodes `sbatch` says.
    async fn provision(&self, attempt: &Attempt) -> Result<String, ProvisionError> {
        Ok(slurm::made_for_one_run(&attempt.plan, &self.target))
    }

    async fn prepare(
        &self,
        attempt: &Attempt,
        source: &impl SourceTree,
    ) -> Result<ActualEnvironment, PrepareError> {
        self.shared_dir()
            .map_err(|source| PrepareError::Io { path: (&self.target.shared_dir).into(), source })?;
        self.files.prepare(&as_prepared(attempt), source).await
    }

    async fn ship(&self, _: &Attempt) -> Result<(), PrepareError> {
        // The nodes see it where it is.
        Ok(())
    }

    async fn ensure_submitted(
        &self,
        attempt: &Attempt,
        environment: &ActualEnvironment,
    ) -> Result<(), BackendError> {
        let job_dir = self.job_dir(attempt);
        if job_dir.outcome()?.is_some() || job_dir.submission()?.is_some_and(|handed| handed.job.is_some()) {
            return Ok(());
        }
        self.shared_dir().map_err(|error| BackendError::Unavailable(error.to_string()))?;
        job_dir.create().map_err(|source| job_dir.failed("make", source))?;
        // Submitting is one thing at a time, also among workers.
        let _lock = layout::lock(&job_dir.lock()).await.map_err(|source| job_dir.failed("lock", source))?;
        self.submit(attempt, environment, &job_dir).await
    }

    async fn observe(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        self.shared_dir().map_err(|error| BackendError::Unavailable(error.to_string()))?;
        let job_dir = self.job_dir(attempt);
        if let Some(outcome) = job_dir.outcome()? {
            return Ok(outcome);
        }
        let observation = self.find(attempt, &job_dir).await?;
        if observation.is_final() {
            // For good: Slurm will forget it, and the answer must not change.
            job_dir.write_outcome(&observation)?;
        } else {
            self.enforce(attempt, &job_dir, &observation).await?;
        }
        Ok(observation)
    }

    async fn cancel(&self, attempt: &Attempt) -> Result<(), BackendError> {
        let job_dir = self.job_dir(attempt);
        if job_dir.outcome()?.is_some() {
            return Ok(());
        }
        self.shared_dir().map_err(|error| BackendError::Unavailable(error.to_string()))?;
        job_dir.create().map_err(|source| job_dir.failed("make", source))?;
        // Who asks for the end of a run that is over its time already changes the reason, not the grace.
        let stop = job_dir.stop()?;
        if stop.is_none_or(|stop| stop.over_time) {
            let now = SystemClock.now();
            let stop = stop.unwrap_or(Stop { requested_at: now, over_time: false, killed_at: None });
            job_dir.write_stop(&Stop { over_time: false, ..stop })?;
        }
        let is_barred = job_dir.bar()?;
        if is_barred && job_dir.submission()?.is_none() {
            return Ok(());
        }
        self.signal(attempt, &job_dir).await
    }

    async fn log_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.files.log_files(attempt).await
    }

    async fn record_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.files.record_files(attempt).await
    }

    async fn output_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        self.files.output_files(attempt).await
    }

    fn staging(&self, attempt: &Attempt) -> StagingArea {
        self.files.staging(attempt)
    }

    async fn staged_files(&self, attempt: &Attempt, place: &Place) -> io::Result<Vec<AttemptFile>> {
        self.files.staged_files(attempt, place).await
    }

    async fn remove(&self, attempt: &Attempt) -> io::Result<()> {
        let job_dir = self.job_dir(attempt);
        let ended = job_dir.outcome().map_err(io::Error::other)?.is_some();
        let handed_in = job_dir.submission().map_err(io::Error::other)?.is_some();
        if handed_in && !ended {
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, "the attempt still runs"));
        }
        self.files.remove(attempt).await
    }

    async fn tidy_environments(&self) -> io::Result<Vec<BuiltEnvironment>> {
        self.shared_dir()?;
        self.files.tidy_environments().await
    }

    async fn reach(&self, _: &compute_target::Backend) -> Result<String, String> {
        self.shared_dir().map_err(|error| error.to_string())?;
        let look = self.recent_look().await.map_err(|error| error.to_string())?;
        Ok(format!("Slurm answers; it knows {} job(s) of this service's user", look.count()))
    }

    async fn remaining_runs(&self) -> io::Result<Vec<RunId>> {
        self.files.remaining_runs().await
    }

    async fn remove_run(&self, run: RunId) -> io::Result<()> {
        self.files.remove_run(run).await
    }
}
