//! Handing an attempt to the backend, and what it waits for there.

use tracing::Instrument as _;

use super::{Driver, Stop, step::call};
use crate::{
    backend::{ActualEnvironment, Backend, BackendError},
    domain::run::{Cause, Failure, Submitted},
    storage::transitions::Written,
};

impl<B: Backend> Driver<'_, B> {
    /// Hands the attempt to the backend, which knows whether it was before.
    pub(super) async fn submit(&mut self) -> Result<Submitted, Stop> {
        let failed =
            |cause, detail, is_permanent| Ok(Submitted::Failed(Failure { cause, detail, is_permanent }));
        let environment: Result<ActualEnvironment, String> = match &self.run.actual_environment {
            Some(value) => serde_json::from_value(value.clone()).map_err(|e| e.to_string()),
            None => Err("none was recorded".to_owned()),
        };
        let environment = match environment {
            Ok(environment) => environment,
            Err(detail) => {
                let detail = format!("the prepared environment cannot be read back: {detail}");
                return failed(Cause::Internal, detail, false);
            }
        };
        // Whoever takes a run over that is prepared has to know the password as well.
        if self.attempt.registry.is_none() {
            match self.registry_login().await {
                Ok(Ok(login)) => self.attempt.registry = login,
                Ok(Err(detail)) => return failed(Cause::DispatchFailed, detail, true),
                Err(error) => {
                    self.wait_out(&error).await?;
                    return Ok(Submitted::Again);
                }
            }
        }
        let call = call("submit", &self.attempt);
        match self.context.backend.ensure_submitted(&self.attempt, &environment).instrument(call).await {
            Ok(()) => Ok(Submitted::Accepted),
            Err(BackendError::Unavailable(why)) => Ok(Submitted::Silent(why)),
            Err(BackendError::Refused(why)) => failed(Cause::DispatchFailed, why, true),
            Err(error) => failed(Cause::DispatchFailed, error.to_string(), false),
        }
    }

    /// Records what it waits for on the compute, where that is news.
    pub(super) async fn waits(&mut self, reason: Option<String>) -> Result<(), Stop> {
        while self.waits_for != reason {
            let (storage, now) = (&self.context.storage, self.context.clock.now());
            match storage.record_wait(&self.lease, reason.as_deref(), now).await {
                Ok(Written::LeaseLost) => return Err(Stop::LeaseLost),
                Ok(Written::Done | Written::StatusIs(_)) => self.waits_for.clone_from(&reason),
                Err(error) => self.wait_out(&error).await?,
            }
        }
        Ok(())
    }
}
