//! What the steps of a run's life are called, and how they came out: for the figures, and for traces.

use std::time::Instant;

use tracing::Span;

use super::{Driver, Stop, gather::Gathered};
use crate::{
    backend::Attempt,
    domain::{
        compute_target::Engine,
        run::{Prepared, Submitted},
    },
    figures::{Outcome, RunFigures, Step as Name},
    traces,
};

/// A step that is being taken.
pub(super) struct Step {
    name: Name,
    began: Instant,
    span: Span,
    figures: RunFigures,
}

impl<B> Driver<'_, B> {
    /// Begins a step. What is done many times a second is counted and not traced.
    pub(super) fn step(&self, name: Name) -> Step {
        let span = match name {
            Name::Observe => Span::none(),
            _ => {
                let (run, attempt) = (self.attempt.run_id, self.attempt.number);
                traces::of_step(name.as_str(), run, attempt, &self.run.compute_target, self.place.as_ref())
            }
        };
        Step { name, began: Instant::now(), span, figures: self.context.settings.figures.clone() }
    }
}

/// A call of an attempt's backend, within a step.
pub(super) fn call(call: &'static str, attempt: &Attempt) -> Span {
    let backend = match &attempt.backend.engine {
        Engine::Process => "process",
        Engine::Slurm(_) => "slurm",
        Engine::Kubernetes(_) => "kubernetes",
    };
    traces::of_backend_call(call, backend)
}

impl Step {
    /// What happens in it belongs to this.
    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(super) fn ends(self, outcome: Outcome) {
        self.span.record("outcome", outcome.as_str());
        if matches!(outcome, Outcome::Failed | Outcome::Unavailable) {
            self.span.record("otel.status_code", "ERROR");
        }
        self.figures.step(self.name, outcome, self.began.elapsed());
    }
}

impl From<&Stop> for Outcome {
    fn from(stop: &Stop) -> Self {
        match stop {
            Stop::LeaseLost => Self::LeaseLost,
            Stop::Shutdown => Self::Interrupted,
        }
    }
}

impl From<&Prepared> for Outcome {
    fn from(prepared: &Prepared) -> Self {
        match prepared {
            Prepared::Ready(_) => Self::Ok,
            Prepared::Again => Self::Interrupted,
            Prepared::Failed(_) => Self::Failed,
        }
    }
}

impl From<&Submitted> for Outcome {
    fn from(submitted: &Submitted) -> Self {
        match submitted {
            Submitted::Accepted => Self::Ok,
            Submitted::Again | Submitted::Silent(_) => Self::Unavailable,
            Submitted::Failed(_) => Self::Failed,
        }
    }
}

impl From<&Gathered> for Outcome {
    fn from(gathered: &Gathered) -> Self {
        match gathered {
            Gathered::All => Self::Ok,
            Gathered::Some => Self::Failed,
        }
    }
}

/// How a step came out that may have been left before its end.
pub(super) fn outcome<T>(answer: &Result<T, Stop>) -> Outcome
where
    for<'a> &'a T: Into<Outcome>,
{
    match answer {
        Ok(answer) => answer.into(),
        Err(stop) => Outcome::from(stop),
    }
}
