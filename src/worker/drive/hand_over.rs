//! Handing an attempt to the backend, and what comes of it until the script begins.

use tracing::warn;

use super::{Driver, RETRY_PAUSE, Stop, Turn};
use crate::{
    backend::{ActualEnvironment, Backend, BackendError},
    domain::run::{Cause, Move, Status},
    storage::transitions::Written,
    worker::jittered,
};

impl<B: Backend> Driver<'_, B> {
    pub(super) async fn start(&mut self) -> Result<Turn, Stop> {
        match self.submit(Status::Starting).await? {
            Some(turn) => Ok(turn),
            None => self.watch(Status::Starting).await,
        }
    }

    /// Hands the attempt to the backend, which knows whether it was before; where that leads when it fails.
    pub(super) async fn submit(&mut self, status: Status) -> Result<Option<Turn>, Stop> {
        let environment: Result<ActualEnvironment, String> = match &self.run.actual_environment {
            Some(value) => serde_json::from_value(value.clone()).map_err(|e| e.to_string()),
            None => Err("none was recorded".to_owned()),
        };
        let environment = match environment {
            Ok(environment) => environment,
            Err(detail) => {
                let detail = format!("the prepared environment cannot be read back: {detail}");
                return self.fail(status, Cause::Internal, detail).await.map(Some);
            }
        };
        // Whoever takes a run over that is prepared has to know the password as well.
        if self.attempt.registry.is_none() {
            match self.registry_login().await {
                Ok(Ok(login)) => self.attempt.registry = login,
                Ok(Err(detail)) => return self.refuse(status, Cause::DispatchFailed, detail).await.map(Some),
                Err(error) => {
                    self.wait_out(&error).await?;
                    return Ok(Some(Turn::Status(status)));
                }
            }
        }
        let failed = match self.context.backend.ensure_submitted(&self.attempt, &environment).await {
            Ok(()) => return Ok(None),
            Err(error) => error,
        };
        let turn = match failed {
            BackendError::Unavailable(why) => self.no_answer(status, &why).await,
            BackendError::Refused(why) => self.refuse(status, Cause::DispatchFailed, why).await,
            error => self.fail(status, Cause::DispatchFailed, error.to_string()).await,
        };
        turn.map(Some)
    }

    /// The compute does not answer: the run keeps what it has, and says so.
    pub(super) async fn no_answer(&mut self, status: Status, why: &str) -> Result<Turn, Stop> {
        if status == Status::NotResponding {
            warn!("run {}: still no answer from the backend: {why}", self.run.id);
            return Ok(Turn::Wait(jittered(RETRY_PAUSE * 4)));
        }
        let detail = format!("the backend cannot be asked: {why}");
        self.write(status, Move::because(Status::NotResponding, detail)).await
    }

    /// It has not begun; what it waits for on the compute, if it does, is for people to see.
    pub(super) async fn waits(&mut self, reason: Option<String>) -> Result<Turn, Stop> {
        while self.waits_for != reason {
            let (storage, now) = (&self.context.storage, self.context.clock.now());
            match storage.record_wait(&self.lease, reason.as_deref(), now).await {
                Ok(Written::LeaseLost) => return Err(Stop::LeaseLost),
                Ok(Written::Done | Written::StatusIs(_)) => self.waits_for.clone_from(&reason),
                Err(error) => self.wait_out(&error).await?,
            }
        }
        Ok(Turn::Wait(self.interval()))
    }
}
