//! Running Slurm's commands, each with an environment that was made for it.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

use super::super::{BackendError, process::find_program};
use crate::domain::{
    compute_target::SlurmCommands,
    slurm::{self, ACCOUNTING_FIELDS, Job, QUEUE_FORMAT, Queue},
};

/// How long a command may take. Slurm's own commands give up after ten seconds (`MessageTimeout`), some of them more than
/// once.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// What `scontrol` says of a job that the controller has forgotten.
const UNKNOWN_JOB: &str = "Invalid job id specified";
/// What `sacct` says where a cluster has no accounting.
const NO_ACCOUNTING: &str = "accounting storage is disabled";
/// How far back accounting is asked for jobs by name.
const ACCOUNTING_SINCE: &str = "now-60days";

/// Slurm's commands on one cluster.
#[derive(Clone, Debug)]
pub(super) struct Commands {
    programs: SlurmCommands,
    /// For those that ask: where things are, and times as numbers.
    environment: Vec<(String, String)>,
    /// The user whose jobs are ours.
    user: u32,
}

struct Said {
    success: bool,
    output: String,
    errors: String,
}

impl Commands {
    /// With the parts of the service's environment that the commands need.
    pub(super) fn new(programs: SlurmCommands, service: &[(String, String)], user: u32) -> Self {
        let mut environment: Vec<(String, String)> =
            service.iter().filter(|(name, _)| is_needed(name)).cloned().collect();
        environment.push(("SLURM_TIME_FORMAT".to_owned(), "%s".to_owned()));
        environment.push(("LC_ALL".to_owned(), "C".to_owned()));
        Self { programs, environment, user }
    }

    async fn run(
        &self,
        program: &'static str,
        named: Option<&String>,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<Said, BackendError> {
        let path = named.map_or(program, String::as_str);
        // By its place, a child is started without a copy of this process, which may be large.
        let place = find_program(path, environment);
        let mut command = Command::new(place.as_deref().unwrap_or(Path::new(path)));
        command.args(arguments).env_clear().envs(environment.iter().cloned()).current_dir("/");
        command.stdin(Stdio::null()).kill_on_drop(true);
        let unavailable = |why: String| BackendError::Unavailable(format!("{path}: {why}"));
        let output = match tokio::time::timeout(COMMAND_TIMEOUT, command.output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(unavailable(format!("cannot be run: {error}"))),
            Err(_) => {
                return Err(unavailable(format!("no answer within {} s", COMMAND_TIMEOUT.as_secs())));
            }
        };
        Ok(Said {
            success: output.status.success(),
            output: String::from_utf8_lossy(&output.stdout).into_owned(),
            errors: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    /// Runs one that asks; its failure is that of the cluster.
    async fn ask(
        &self,
        program: &'static str,
        named: Option<&String>,
        arguments: &[String],
    ) -> Result<Said, BackendError> {
        self.run(program, named, arguments, &self.environment).await
    }

    /// All jobs of this user that the controller knows, in one question.
    pub(super) async fn queue(&self) -> Result<Queue, BackendError> {
        let arguments = [
            "--noheader".to_owned(),
            "--states=all".to_owned(),
            format!("--user={}", self.user),
            format!("--Format={QUEUE_FORMAT}"),
        ];
        let said = self.ask("squeue", self.programs.squeue.as_ref(), &arguments).await?;
        if !said.success {
            return Err(BackendError::Unavailable(format!("squeue: {}", said.errors)));
        }
        let queue = slurm::parse_queue(&said.output);
        // An answer without one line that can be read says nothing of any job.
        if queue.jobs.is_empty() && !queue.odd.is_empty() {
            let line = &queue.odd[0];
            return Err(BackendError::Unavailable(format!("squeue answers what cannot be read: {line:?}")));
        }
        Ok(queue)
    }

    /// What the controller knows of one job; none when it has forgotten it.
    pub(super) async fn job(&self, id: u64) -> Result<Option<Job>, BackendError> {
        let arguments = ["--oneliner", "show", "job", &id.to_string()].map(str::to_owned);
        let said = self.ask("scontrol", self.programs.scontrol.as_ref(), &arguments).await?;
        if !said.success {
            if said.errors.contains(UNKNOWN_JOB) || said.output.contains(UNKNOWN_JOB) {
                return Ok(None);
            }
            return Err(BackendError::Unavailable(format!("scontrol: {}", said.errors)));
        }
        let first = said.output.lines().next().unwrap_or_default();
        let job = slurm::parse_job(first).ok_or_else(|| {
            BackendError::Unavailable(format!("scontrol answers what cannot be read: {first:?}"))
        })?;
        Ok(Some(job))
    }

    /// What accounting knows of an attempt's jobs; nothing where the cluster has none.
    pub(super) async fn accounting(&self, name: &str) -> Result<Vec<Job>, BackendError> {
        let arguments = [
            "--noheader".to_owned(),
            "--allocations".to_owned(),
            "--parsable2".to_owned(),
            format!("--starttime={ACCOUNTING_SINCE}"),
            format!("--name={name}"),
            format!("--format={ACCOUNTING_FIELDS}"),
        ];
        let said = self.ask("sacct", self.programs.sacct.as_ref(), &arguments).await?;
        if said.errors.contains(NO_ACCOUNTING) {
            return Ok(Vec::new());
        }
        if !said.success {
            return Err(BackendError::Unavailable(format!("sacct: {}", said.errors)));
        }
        Ok(slurm::parse_accounting(&said.output).into_iter().filter(|job| job.name == name).collect())
    }

    /// Hands a script in; the number of the job. `environment` is what the job gets, and all that it gets.
    pub(super) async fn submit(
        &self,
        arguments: &[String],
        environment: &[(String, String)],
    ) -> Result<u64, BackendError> {
        let said = self.run("sbatch", self.programs.sbatch.as_ref(), arguments, environment).await?;
        if !said.success {
            let text = format!("sbatch: {}", said.errors);
            return Err(if slurm::is_passing(&said.errors) || said.errors.is_empty() {
                BackendError::Unavailable(text)
            } else {
                BackendError::Refused(text)
            });
        }
        // With several clusters, `number;cluster`.
        let number = said.output.trim().split(';').next().and_then(|number| number.parse().ok());
        number.ok_or_else(|| {
            BackendError::Unavailable(format!("sbatch answers what cannot be read: {:?}", said.output))
        })
    }

    /// Ends jobs, or sends them a signal. A job that is gone already is no error.
    pub(super) async fn cancel(&self, options: &[&str], jobs: &[u64]) -> Result<(), BackendError> {
        if jobs.is_empty() {
            return Ok(());
        }
        let mut arguments: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        arguments.extend(jobs.iter().map(u64::to_string));
        let said = self.ask("scancel", self.programs.scancel.as_ref(), &arguments).await?;
        if said.success || !slurm::is_passing(&said.errors) {
            // What it refuses, a job that has just ended, shows at the next look.
            if !said.success {
                tracing::debug!("scancel {}: {}", arguments.join(" "), said.errors);
            }
            return Ok(());
        }
        Err(BackendError::Unavailable(format!("scancel: {}", said.errors)))
    }
}

/// Whether Slurm's commands need a variable of the service.
pub(super) fn is_needed(name: &str) -> bool {
    matches!(name, "PATH" | "HOME" | "USER" | "LOGNAME" | "SLURM_CONF" | "SLURM_CLUSTERS")
}
