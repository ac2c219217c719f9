//! How an attempt is handed to `sbatch`.

use std::time::Duration;

use crate::domain::{compute_target::SlurmSettings, ids::RunId, plan::Plan, render};

/// The name of the job of an attempt.
#[must_use]
pub fn job_name(run: RunId, attempt: u32) -> String {
    format!("estimatord-{run}-{attempt}")
}

/// The options that say what the script's own lines cannot know: whose job it is, where it goes, where it writes.
/// `sbatch` lets them win over the lines of the script.
#[must_use]
pub fn sbatch_arguments(
    name: &str,
    plan: &Plan,
    settings: &SlurmSettings,
    grace: Duration,
    log: &str,
) -> Vec<String> {
    let mut arguments = vec![
        "--parsable".to_owned(),
        format!("--job-name={name}"),
        format!("--comment={name}"),
        "--no-requeue".to_owned(),
        // All of it was made for the job: sbatch runs with nothing of the service's own.
        "--export=ALL".to_owned(),
        format!("--output={}", log.replace('%', "%%")),
        "--open-mode=append".to_owned(),
        // Slurm's notice comes as long before the end as a run has between TERM and KILL.
        format!("--signal=B:USR1@{}", grace.as_secs().clamp(1, 65_535)),
    ];
    let named = [
        ("partition", settings.partition.as_ref()),
        ("account", settings.account.as_ref()),
        ("qos", settings.qos.as_ref()),
    ];
    for (option, value) in named {
        arguments.extend(value.map(|value| format!("--{option}={value}")));
    }
    if let Some(seconds) = plan.max_run_duration_seconds {
        arguments.push(format!("--time={}", render::slurm_minutes(seconds, grace.as_secs())));
    }
    arguments
}
