//! Figures of the whole service, read from the database when asked: the same from every process.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::ConstGauge, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{
    api::state::ApiState,
    domain::run::{BlockCode, Status, blocked_by},
    figures::label,
    storage::{StorageError, metrics::ServiceFigures},
};

type Seconds = Gauge<f64, AtomicU64>;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BlockLabels {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LiveLabels {
    target: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TargetLabels {
    target: String,
}

/// Has them shown with others; none when the database does not answer.
pub(super) async fn register(state: &ApiState, registry: &mut Registry) -> Result<(), StorageError> {
    let figures = state.installation.service_figures().await?;
    registry.register(
        "blocked_runs",
        "Runs that are not running, by the reason that weighs most",
        blocked(state).await?,
    );
    runs(&figures, registry);
    targets(&figures, registry);
    gauge(registry, "environments", "Built environments that are kept, on all nodes", figures.environments);
    let bytes = whole(figures.environments_bytes);
    registry.register_with_unit(
        "environments",
        "What built environments take, on all nodes",
        Unit::Bytes,
        bytes,
    );
    gauge(
        registry,
        "webhook_deliveries_pending",
        "Messages that webhooks are still to be sent",
        figures.pending_deliveries,
    );
    seconds(
        registry,
        "oldest_pending_webhook_delivery_age",
        "How long the oldest message that an enabled webhook is still to be sent has waited",
        figures.oldest_pending_delivery_seconds,
    );
    gauge(
        registry,
        "artifact_deletions_pending",
        "Runs and snapshots whose rows are gone and whose files are to follow",
        figures.pending_deletions,
    );
    seconds(
        registry,
        "database_acquire",
        "How long this question waited for a connection to the database",
        figures.acquire_seconds,
    );
    Ok(())
}

fn whole(number: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(number).unwrap_or(i64::MAX))
}

fn gauge(registry: &mut Registry, name: &str, help: &str, number: u64) {
    registry.register(name, help, whole(number));
}

fn seconds(registry: &mut Registry, name: &str, help: &str, seconds: f64) {
    registry.register_with_unit(name, help, Unit::Seconds, ConstGauge::<f64>::new(seconds));
}

/// What runs wait for, in the words of their `blocked_by`.
async fn blocked(state: &ApiState) -> Result<Family<BlockLabels, Gauge>, StorageError> {
    let counts = Family::<BlockLabels, Gauge>::default();
    for code in BlockCode::ALL {
        counts.get_or_create(&BlockLabels { code: code.as_str() }).set(0);
    }
    for waiting in state.installation.all_waiting(state.caller_limit).await?.values() {
        if let Some(reason) = blocked_by(waiting).first() {
            counts.get_or_create(&BlockLabels { code: reason.code.as_str() }).inc();
        }
    }
    Ok(counts)
}

fn runs(figures: &ServiceFigures, registry: &mut Registry) {
    let runs = Family::<StatusLabels, Gauge>::default();
    // Also those that no run has: a series that vanishes at zero cannot be alerted on.
    for status in Status::ALL.into_iter().filter(|status| *status != Status::NotStarted) {
        let count = figures.runs.iter().find(|(of, _)| *of == status).map_or(0, |(_, count)| *count);
        let labels = StatusLabels { status: status.as_str() };
        runs.get_or_create(&labels).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
    registry.register("runs", "Runs by status", runs);
    let oldest = figures.oldest_queued_seconds;
    seconds(registry, "oldest_queued_run_age", "How long the oldest queued run has waited", oldest);
    let live = Family::<LiveLabels, Gauge>::default();
    let ages = Family::<LiveLabels, Seconds>::default();
    for of in &figures.live {
        let target = label(of.target.as_deref().unwrap_or_default(), of.target.is_none());
        let labels = LiveLabels { target, status: of.status.as_str() };
        live.get_or_create(&labels).set(i64::try_from(of.runs).unwrap_or(i64::MAX));
        ages.get_or_create(&labels).set(of.oldest_seconds);
    }
    registry.register("live_runs", "Runs that have not ended, by target and status", live);
    registry.register_with_unit(
        "oldest_live_run_age",
        "How long ago the oldest run of a target that is in this status was accepted",
        Unit::Seconds,
        ages,
    );
}

fn targets(figures: &ServiceFigures, registry: &mut Registry) {
    let limits = Family::<TargetLabels, Gauge>::default();
    let reachable = Family::<TargetLabels, Gauge>::default();
    let seen = Family::<TargetLabels, Seconds>::default();
    for of in &figures.targets {
        let labels = TargetLabels { target: of.name.clone() };
        if let Some(limit) = of.limit {
            limits.get_or_create(&labels).set(i64::from(limit));
        }
        if let Some(is_reachable) = of.reachable {
            reachable.get_or_create(&labels).set(i64::from(is_reachable));
        }
        if let Some(ago) = of.worker_seen_seconds {
            seen.get_or_create(&labels).set(ago);
        }
    }
    registry.register("target_run_limit", "How many runs of a target may be active at once", limits);
    registry.register(
        "target_reachable",
        "Whether the last worker that looked could reach a target",
        reachable,
    );
    registry.register_with_unit(
        "target_worker_silence",
        "How long ago a worker that serves a target was last heard of",
        Unit::Seconds,
        seen,
    );
}
