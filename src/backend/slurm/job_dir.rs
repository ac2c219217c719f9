//! What lies in an attempt's directory on the shared file system: what the service decided, and what its job wrote.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::super::{
    BackendError, Observation,
    process::layout::{self, AttemptDir},
};
use crate::domain::slurm::{Begun, Witness};

/// Where a [`Submission`] lies.
const SUBMISSION: &str = "submission.json";

/// That `sbatch` is about to be called, and what it answered.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Submission {
    /// When the first call was made.
    pub(super) intended_at: DateTime<Utc>,
    /// The job's number, once it is known.
    pub(super) job: Option<u64>,
    /// When `sbatch` answered with it; none where the job was found in the queue.
    #[serde(default)]
    pub(super) answered_at: Option<DateTime<Utc>>,
}

/// That the attempt was told to end.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Stop {
    /// When.
    pub(super) requested_at: DateTime<Utc>,
    /// Whether because it ran too long, and not because somebody asked for it.
    pub(super) over_time: bool,
    /// When its processes were last killed, after the grace.
    pub(super) killed_at: Option<DateTime<Utc>>,
}

/// The directory in which job and service tell each other.
#[derive(Clone, Debug)]
pub(super) struct JobDir {
    path: PathBuf,
}

impl JobDir {
    pub(super) fn of(directory: &AttemptDir) -> Self {
        Self { path: directory.job() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn create(&self) -> io::Result<()> {
        layout::create_private_dir(&self.path)
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.path.join("submit.lock")
    }

    pub(super) fn script(&self) -> PathBuf {
        self.path.join("job.sbatch")
    }

    pub(super) fn submission(&self) -> Result<Option<Submission>, BackendError> {
        layout::read_json(&self.path.join(SUBMISSION))
    }

    pub(super) fn write_submission(&self, submission: &Submission) -> Result<(), BackendError> {
        self.write(SUBMISSION, submission)
    }

    /// Keeps what `sbatch` answered. When the machine goes down at once it may be lost, and the job is found by its name.
    pub(super) fn note_job(&self, submission: &Submission) -> Result<(), BackendError> {
        let path = self.path.join(SUBMISSION);
        layout::write_json_whole(&path, submission).map_err(|source| self.failed("write", source))
    }

    pub(super) fn stop(&self) -> Result<Option<Stop>, BackendError> {
        layout::read_json(&self.path.join("stop.json"))
    }

    pub(super) fn write_stop(&self, stop: &Stop) -> Result<(), BackendError> {
        self.write("stop.json", stop)
    }

    /// What became of the attempt, once that is known for good: Slurm forgets it.
    pub(super) fn outcome(&self) -> Result<Option<Observation>, BackendError> {
        layout::read_json(&self.path.join("outcome.json"))
    }

    pub(super) fn write_outcome(&self, outcome: &Observation) -> Result<(), BackendError> {
        self.create().map_err(|source| self.failed("make", source))?;
        self.write("outcome.json", outcome)
    }

    /// Takes the start, so that no job of the attempt will do anything. False when one has begun.
    pub(super) fn bar(&self) -> Result<bool, BackendError> {
        match fs::create_dir(self.path.join("started")) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return self.is_barred();
            }
            Err(source) => return Err(self.failed("bar the start in", source)),
        }
        self.write("started/barred", &true)?;
        Ok(true)
    }

    fn is_barred(&self) -> Result<bool, BackendError> {
        fs::exists(self.path.join("started/barred")).map_err(|source| self.failed("read", source))
    }

    /// The job that has begun, if one has.
    pub(super) fn begun(&self) -> Result<Option<Begun>, BackendError> {
        Ok(self.text("started/begun")?.and_then(|text| parse_begun(&text)))
    }

    /// Everything that it says of the attempt.
    pub(super) fn witness(&self, has_limit: bool) -> Result<Witness, BackendError> {
        let submission = self.submission()?;
        let stop = self.stop()?;
        let cancel_requested = stop.is_some_and(|stop| !stop.over_time);
        let started = self.path.join("started");
        let begun = self.begun()?;
        let barred = self.is_barred()?;
        // A service that was killed while it barred the start has left no word of it.
        let cut_off = cancel_requested && begun.is_none() && started.is_dir();
        Ok(Witness {
            intended: submission.is_some(),
            submitted: submission.and_then(|submission| submission.job),
            submitted_at: submission.and_then(|submission| submission.answered_at),
            barred: barred || cut_off,
            begun,
            ended: self.text("ended")?.and_then(|text| parse_ended(&text)),
            cancel_requested,
            over_time: stop.is_some_and(|stop| stop.over_time),
            killed: stop.is_some_and(|stop| stop.killed_at.is_some()),
            has_limit,
            start_error: self.text("start_error")?.map(|text| text.trim().to_owned()),
        })
    }

    fn write<T: Serialize>(&self, name: &str, value: &T) -> Result<(), BackendError> {
        layout::write_json(&self.path.join(name), value).map_err(|source| self.failed("write", source))
    }

    fn text(&self, name: &str) -> Result<Option<String>, BackendError> {
        match fs::read_to_string(self.path.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("read", source)),
        }
    }

    pub(super) fn failed(&self, action: &str, source: io::Error) -> BackendError {
        BackendError::Io { action: format!("{action} {}", self.path.display()), source }
    }
}

/// `job seconds`, as the job writes it.
fn parse_begun(text: &str) -> Option<Begun> {
    let (job, at) = text.trim().split_once(' ')?;
    Some(Begun { job: job.parse().ok(), at: time(at)? })
}

/// `code seconds`, as the job writes it.
fn parse_ended(text: &str) -> Option<(i32, DateTime<Utc>)> {
    let (code, at) = text.trim().split_once(' ')?;
    Some((code.parse().ok()?, time(at)?))
}

/// Seconds with a fraction, as `date +%s.%N` prints them; a `date` without fractions prints the letter.
fn time(text: &str) -> Option<DateTime<Utc>> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let nanoseconds = format!("{fraction:0<9}").get(..9)?.parse().unwrap_or(0);
    DateTime::from_timestamp(seconds.parse().ok()?, nanoseconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_writes_is_read() {
        let begun = parse_begun("17 1795693433.250000000\n").unwrap();
        assert_eq!((begun.job, begun.at.timestamp_millis()), (Some(17), 1_795_693_433_250));
        assert_eq!(parse_ended("143 1795693433.5\n").unwrap().0, 143);
        assert_eq!(parse_ended("0 1795693433.N").unwrap().1.timestamp(), 1_795_693_433);
        assert_eq!((parse_begun(""), parse_ended("0")), (None, None));
    }

    #[test]
    fn a_start_is_taken_once() {
        let directory = tempfile::tempdir().unwrap();
        let job = JobDir { path: directory.path().join("job") };
        job.create().unwrap();
        assert!(job.bar().unwrap() && job.bar().unwrap());
        assert!(job.witness(false).unwrap().barred);
        let other = JobDir { path: directory.path().join("other") };
        other.create().unwrap();
        fs::create_dir(other.path().join("started")).unwrap();
        assert!(!other.bar().unwrap(), "a job was faster");
    }
}
