//! A job, as one of Slurm's commands describes it.

use chrono::{DateTime, Utc};

use super::JobState;

/// How the batch script of a job ended, as Slurm has it. The state says more; this is for scripts that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JobExit {
    /// Its exit code.
    pub code: i32,
    /// The signal that ended it; 0 for none.
    pub signal: i32,
}

impl JobExit {
    /// Reads `code:signal`, as `scontrol` and `sacct` write it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (code, signal) = text.split_once(':')?;
        Some(Self { code: code.parse().ok()?, signal: signal.parse().ok()? })
    }

    /// Reads the status of wait(2), as `squeue` writes it.
    pub(super) fn of_wait_status(text: &str) -> Option<Self> {
        let status: i32 = text.parse().ok()?;
        Some(Self { code: (status >> 8) & 0xff, signal: status & 0x7f })
    }
}

/// A job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// In which state it is.
    pub state: JobState,
    /// Why it waits, or ended that way, in Slurm's word; empty when it says none.
    pub reason: String,
    /// How its script ended, if it did.
    pub exit: Option<JobExit>,
    /// When its nodes were given to it.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
}

/// A time as `SLURM_TIME_FORMAT=%s` makes Slurm write it; `N/A`, `Unknown` and the like are none.
pub(super) fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(text.parse::<i64>().ok().filter(|seconds| *seconds > 0)?, 0)
}

/// A reason, without Slurm's words for none.
pub(super) fn reason(text: &str) -> String {
    let text = text.trim().trim_matches(['(', ')']);
    if matches!(text, "None" | "null" | "") { String::new() } else { text.to_owned() }
}

/// Reads the line of `scontrol --oneliner show job ID`; none when it is no such line.
#[must_use]
pub fn parse_job(text: &str) -> Option<Job> {
    let field = |name: &str| {
        let start = text.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        start.map(str::trim)
    };
    let state = JobState::parse(field("JobState")?)?;
    Some(Job {
        id: field("JobId")?.parse().ok()?,
        name: field("JobName")?.to_owned(),
        state,
        reason: reason(field("Reason").unwrap_or_default()),
        exit: field("ExitCode").and_then(JobExit::parse),
        started_at: field("StartTime").and_then(time),
        ended_at: field("EndTime").and_then(time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::slurm::{End, Meaning};

    #[test]
    fn a_job_is_read_from_the_line_of_scontrol() {
        let job = parse_job(include_str!("recorded/scontrol-failed.txt")).unwrap();
        assert_eq!(job.state.meaning(), Meaning::Ended(End::Failed));
        assert_eq!(job.exit, Some(JobExit { code: 7, signal: 0 }));
        assert_eq!(job.reason, "NonZeroExitCode");
        assert!(job.started_at.unwrap() <= job.ended_at.unwrap());
    }

    #[test]
    fn what_is_no_job_is_none() {
        for text in [
            "",
            "slurm_load_jobs error: Invalid job id specified",
            "JobId=1",
            "JobId=x JobName=a JobState=RUNNING",
        ] {
            assert_eq!(parse_job(text), None, "{text}");
        }
    }

    #[test]
    fn times_that_are_not_known_are_none() {
        for text in ["N/A", "Unknown", "0", "None", ""] {
            assert_eq!(time(text), None);
        }
    }

    #[test]
    fn exit_codes_are_read_in_both_forms() {
        assert_eq!(JobExit::parse("7:0"), Some(JobExit { code: 7, signal: 0 }));
        assert_eq!(JobExit::parse("0:15"), Some(JobExit { code: 0, signal: 15 }));
        assert_eq!(JobExit::of_wait_status("1792"), Some(JobExit { code: 7, signal: 0 }));
        assert_eq!(JobExit::of_wait_status("9"), Some(JobExit { code: 0, signal: 9 }));
        assert_eq!(JobExit::parse("7"), None);
    }
}
