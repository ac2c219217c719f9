//! What is asked of the cluster's nodes.

use super::KubernetesSettings;
use crate::domain::plan::Plan;

/// What is to be said of a target that was made for one run.
#[must_use]
pub fn made_for_one_run(plan: &Plan, settings: &KubernetesSettings) -> String {
    let size = settings.vm_sizes.asked_by(plan);
    let name = plan.one_off_target.as_ref().map_or("node", |target| target.vm_size.as_str());
    let labels: Vec<String> =
        size.node_selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let asked: Vec<String> = [
        size.cores.map(|cores| format!("{cores} core(s)")),
        size.memory_mib.map(|mib| format!("{mib} MiB of memory")),
        Some(plan.gpus_per_node).filter(|gpus| *gpus > 0).map(|gpus| format!("{gpus} GPU(s)")),
        (!labels.is_empty()).then(|| format!("the labels {}", labels.join(", "))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let asked = if asked.is_empty() { "nothing in particular".to_owned() } else { asked.join(", ") };
    let low = if plan.is_low_priority() { ", and may have to make room for others" } else { "" };
    format!(
        "made for this run: a {name} is a node of the cluster of namespace {} with {asked}{low}",
        settings.namespace
    )
}
