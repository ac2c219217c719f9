//! Figures of what this process's worker does, which the listener for probes shows to Prometheus.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

/// What targets that are made for one run are counted as: each name would be a series for ever.
const ONE_OFF: &str = "one-off";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabels {
    target: String,
    status: &'static str,
    cause: &'static str,
}

/// Figures of runs; copies count together.
#[derive(Clone, Debug)]
pub struct RunFigures {
    dispatches: Family<TargetLabels, Histogram>,
    ends: Family<EndLabels, Counter>,
}

impl Default for RunFigures {
    fn default() -> Self {
        Self { dispatches: Family::new_with_constructor(dispatch_histogram), ends: Family::default() }
    }
}

fn dispatch_histogram() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0])
}

impl RunFigures {
    /// The first attempt of a run was handed to the compute, so long after the run was accepted.
    pub fn dispatched(&self, target: &str, one_off: bool, waited: Duration) {
        let labels = TargetLabels { target: label(target, one_off) };
        self.dispatches.get_or_create(&labels).observe(waited.as_secs_f64());
    }

    /// A run has ended. `cause` is empty for one that completed.
    pub fn ended(&self, target: &str, one_off: bool, status: &'static str, cause: &'static str) {
        let labels = EndLabels { target: label(target, one_off), status, cause };
        self.ends.get_or_create(&labels).inc();
    }

    /// Has the figures shown with others.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "run_dispatch_latency",
            "From a run being accepted until its first attempt was handed to the compute, by this worker",
            Unit::Seconds,
            self.dispatches.clone(),
        );
        registry.register("runs_ended", "Runs that this worker brought to their end", self.ends.clone());
    }
}

/// The label of a target.
#[must_use]
pub fn label(target: &str, one_off: bool) -> String {
    if one_off { ONE_OFF } else { target }.to_owned()
}
