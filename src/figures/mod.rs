//! Figures of what this process does, which its listeners show to Prometheus. `docs/metrics.md` lists them all.

mod process;
mod words;

use std::{sync::atomic::AtomicI64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

pub use self::{
    process::register as register_process,
    words::{Deleted, Delivered, Found, Outcome, Step},
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HowLabels {
    how: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhatLabels {
    what: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Figures of runs, and of what is done for them; copies count together.
#[derive(Clone, Debug)]
pub struct RunFigures {
    dispatches: Family<TargetLabels, Histogram>,
    ends: Family<EndLabels, Counter>,
    steps: Family<StepLabels, Histogram>,
    claims: Family<HowLabels, Counter>,
    held: Gauge<i64, AtomicI64>,
    renewed: Counter,
    lost: Counter,
    environments: Family<ResultLabels, Counter>,
    builds: Histogram,
    deleted: Family<WhatLabels, Counter>,
    deliveries: Family<OutcomeLabels, Histogram>,
}

impl Default for RunFigures {
    fn default() -> Self {
        let figures = Self {
            dispatches: Family::new_with_constructor(long_histogram),
            ends: Family::default(),
            steps: Family::new_with_constructor(step_histogram),
            claims: Family::default(),
            held: Gauge::default(),
            renewed: Counter::default(),
            lost: Counter::default(),
            environments: Family::default(),
            builds: Histogram::new([1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0]),
            deleted: Family::default(),
            deliveries: Family::new_with_constructor(step_histogram),
        };
        // Also what has not happened yet: of a series that begins with 1 nobody sees the increase.
        for how in ["admitted", "adopted"] {
            drop(figures.claims.get_or_create(&HowLabels { how }));
        }
        for found in Found::ALL {
            drop(figures.environments.get_or_create(&ResultLabels { result: found.as_str() }));
        }
        for what in Deleted::ALL {
            drop(figures.deleted.get_or_create(&WhatLabels { what: what.as_str() }));
        }
        for outcome in Delivered::ALL {
            drop(figures.deliveries.get_or_create(&OutcomeLabels { outcome: outcome.as_str() }));
        }
        for step in Step::ALL {
            let labels = StepLabels { step: step.as_str(), outcome: Outcome::Ok.as_str() };
            drop(figures.steps.get_or_create(&labels));
        }
        figures
    }
}

fn long_histogram() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0])
}

fn step_histogram() -> Histogram {
    Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0])
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

    /// A step of a run's life was taken.
    pub fn step(&self, step: Step, outcome: Outcome, took: Duration) {
        let labels = StepLabels { step: step.as_str(), outcome: outcome.as_str() };
        self.steps.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Runs were claimed: so many that had been in the queue, and so many whose worker was gone.
    pub fn claimed(&self, admitted: usize, adopted: usize) {
        for (how, count) in [("admitted", admitted), ("adopted", adopted)] {
            self.claims.get_or_create(&HowLabels { how }).inc_by(count as u64);
        }
    }

    /// So many leases more, or fewer, are held.
    pub fn held(&self, more: i64) {
        self.held.inc_by(more);
    }

    /// Leases were renewed.
    pub fn renewed(&self, leases: usize) {
        self.renewed.inc_by(leases as u64);
    }

    /// A lease was lost.
    pub fn lost(&self) {
        self.lost.inc();
    }

    /// A run's environment was found, or built in so much time.
    pub fn environment(&self, found: Found, took: Duration) {
        self.environments.get_or_create(&ResultLabels { result: found.as_str() }).inc();
        if found == Found::Miss {
            self.builds.observe(took.as_secs_f64());
        }
    }

    /// Something was deleted because it was old.
    pub fn deleted(&self, what: Deleted, count: u64) {
        self.deleted.get_or_create(&WhatLabels { what: what.as_str() }).inc_by(count);
    }

    /// A message was sent to a webhook.
    pub fn delivered(&self, outcome: Delivered, took: Duration) {
        let labels = OutcomeLabels { outcome: outcome.as_str() };
        self.deliveries.get_or_create(&labels).observe(took.as_secs_f64());
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
        registry.register_with_unit(
            "run_step_duration",
            "Steps of runs that this worker took, by how they came out",
            Unit::Seconds,
            self.steps.clone(),
        );
        registry.register("leases_claimed", "Runs that this worker claimed", self.claims.clone());
        registry.register("leases_held", "Runs that this worker holds now", self.held.clone());
        registry.register("leases_renewed", "Leases that this worker renewed", self.renewed.clone());
        registry.register("leases_lost", "Leases that this worker lost", self.lost.clone());
        registry.register(
            "environment_uses",
            "Runs of this worker, by whether their environment was there",
            self.environments.clone(),
        );
        registry.register_with_unit(
            "environment_build_duration",
            "Until an environment was there that had to be built",
            Unit::Seconds,
            self.builds.clone(),
        );
        registry.register(
            "retention_deleted",
            "What this worker deleted because it was old",
            self.deleted.clone(),
        );
        registry.register_with_unit(
            "webhook_delivery_duration",
            "Messages that this process sent to webhooks, by what became of them",
            Unit::Seconds,
            self.deliveries.clone(),
        );
    }
}

/// The label of a target.
#[must_use]
pub fn label(target: &str, one_off: bool) -> String {
    if one_off { ONE_OFF } else { target }.to_owned()
}
