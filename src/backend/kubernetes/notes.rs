//! What every worker has to know of an attempt, and no cluster keeps: beside its files in the artifact store.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::super::{Attempt, BackendError, Observation};
use crate::{
    artifacts::{Artifacts, ArtifactsError},
    domain::kubernetes::Stop,
};

const SUBMISSION: &str = "submission";
const STOP: &str = "stop";
const OUTCOME: &str = "outcome";

/// That an attempt was handed in, or was about to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Submission {
    /// Since when there may be an object of it.
    pub(super) intended_at: DateTime<Utc>,
    /// Its object's uid, once it is known.
    pub(super) uid: Option<String>,
}

/// The notes of one attempt.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notes<'a> {
    artifacts: &'a Artifacts,
    attempt: &'a Attempt,
}

impl<'a> Notes<'a> {
    pub(super) const fn new(artifacts: &'a Artifacts, attempt: &'a Attempt) -> Self {
        Self { artifacts, attempt }
    }

    async fn get<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, BackendError> {
        let found = self.artifacts.get_note(self.attempt.run_id, self.attempt.number, name).await;
        found.map_err(|error| failed("read", name, &error))
    }

    async fn put<T: Serialize + Sync>(&self, name: &str, note: &T) -> Result<(), BackendError> {
        let put = self.artifacts.put_note(self.attempt.run_id, self.attempt.number, name, note).await;
        put.map_err(|error| failed("write", name, &error))
    }

    pub(super) async fn submission(&self) -> Result<Option<Submission>, BackendError> {
        self.get(SUBMISSION).await
    }

    pub(super) async fn write_submission(&self, submission: &Submission) -> Result<(), BackendError> {
        self.put(SUBMISSION, submission).await
    }

    pub(super) async fn stop(&self) -> Result<Option<Stop>, BackendError> {
        self.get(STOP).await
    }

    pub(super) async fn write_stop(&self, stop: &Stop) -> Result<(), BackendError> {
        self.put(STOP, stop).await
    }

    pub(super) async fn outcome(&self) -> Result<Option<Observation>, BackendError> {
        self.get(OUTCOME).await
    }

    /// For good: the cluster will forget it, and the answer must not change. The first one counts; it is answered.
    pub(super) async fn settle(&self, outcome: Observation) -> Result<Observation, BackendError> {
        let (run, number) = (self.attempt.run_id, self.attempt.number);
        let is_first = self.artifacts.create_note(run, number, OUTCOME, &outcome).await;
        if is_first.map_err(|error| failed("write", OUTCOME, &error))? {
            return Ok(outcome);
        }
        Ok(self.outcome().await?.unwrap_or(outcome))
    }
}

fn failed(action: &str, name: &str, error: &ArtifactsError) -> BackendError {
    BackendError::Unavailable(format!("cannot {action} the attempt's {name}: {error}"))
}
