//! How an attempt is handed to `sbatch`.

use std::time::Duration;

use crate::domain::{compute_target::SlurmSettings, ids::RunId, node_size::NodeSize, plan::Plan, render};

/// The name of the job of an attempt.
#[must_use]
pub fn job_name(run: RunId, attempt: u32) -> String {
    format!("estimatord-{run}-{attempt}")
}

/// The cores of each process, where a node has to have a number of them: its share, one at least.
#[must_use]
pub fn cores_per_process(plan: &Plan, size: &NodeSize) -> Option<u64> {
    Some((u64::from(size.cores?) / plan.process_count_per_node.max(1)).max(1))
}

/// The QOS of the job.
fn qos<'a>(plan: &Plan, settings: &'a SlurmSettings) -> Option<&'a String> {
    let low = settings.low_priority_qos.as_ref().filter(|_| plan.is_low_priority());
    low.or(settings.qos.as_ref())
}

/// What is to be said of a target that was made for one run.
#[must_use]
pub fn made_for_one_run(plan: &Plan, settings: &SlurmSettings) -> String {
    let size = settings.vm_sizes.asked_by(plan);
    let name = plan.one_off_target.as_ref().map_or("node", |target| target.vm_size.as_str());
    let asked: Vec<String> = [
        size.cores.map(|cores| format!("{cores} core(s)")),
        size.memory_mib.map(|mib| format!("{mib} MiB of memory")),
        Some(plan.gpus_per_node).filter(|gpus| *gpus > 0).map(|gpus| format!("{gpus} GPU(s)")),
        size.constraint.map(|constraint| format!("the features {constraint}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let asked = if asked.is_empty() { "nothing in particular".to_owned() } else { asked.join(", ") };
    let partition = settings.partition.as_ref().map_or_else(
        || "the cluster's default partition".to_owned(),
        |partition| format!("partition {partition}"),
    );
    let qos = qos(plan, settings).map(|qos| format!(", QOS {qos}")).unwrap_or_default();
    format!("made for this run: a {name} is a node of {partition} with {asked}{qos}")
}

/// The options that say what the script's own lines cannot know: whose job it is, where it goes, where it writes.
/// `sbatch` lets them win over the lines of the script.
#[must_use]
pub fn sbatch_arguments(
    name: &str,
    plan: &Plan,
    settings: &SlurmSettings,
    grace: Duration,
    log: &str,
) -> Vec<String> {
    let size = settings.vm_sizes.asked_by(plan);
    let mut arguments = vec![
        "--parsable".to_owned(),
        format!("--job-name={name}"),
        format!("--comment={name}"),
        "--no-requeue".to_owned(),
        // All of it was made for the job: sbatch runs with nothing of the service's own.
        "--export=ALL".to_owned(),
        format!("--output={}", log.replace('%', "%%")),
        "--open-mode=append".to_owned(),
        // Slurm's notice comes as long before the end as a run has between TERM and KILL.
        format!("--signal=B:USR1@{}", grace.as_secs().clamp(1, 65_535)),
    ];
    let named = [
        ("partition", settings.partition.as_ref()),
        ("account", settings.account.as_ref()),
        ("qos", qos(plan, settings)),
        ("constraint", size.constraint.as_ref()),
    ];
    for (option, value) in named {
        arguments.extend(value.map(|value| format!("--{option}={value}")));
    }
    if let Some(cores) = cores_per_process(plan, &size) {
        arguments.push(format!("--cpus-per-task={cores}"));
    }
    arguments.extend(size.memory_mib.map(|mib| format!("--mem={mib}M")));
    if let Some(seconds) = plan.max_run_duration_seconds {
        arguments.push(format!("--time={}", render::slurm_minutes(seconds, grace.as_secs())));
    }
    arguments
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::{
        judge,
        node_size::NodeSizes,
        plan::{LOW_PRIORITY, TargetNodes},
        rules::testing::verdict,
    };

    fn plan(members: serde_json::Value) -> Plan {
        judge::plan(&verdict(&members).accepted.unwrap())
    }

    fn settings() -> SlurmSettings {
        let size = NodeSize { cores: Some(8), constraint: Some("fast".to_owned()), ..NodeSize::default() };
        SlurmSettings {
            partition: Some("main".to_owned()),
            qos: Some("normal".to_owned()),
            low_priority_qos: Some("scavenger".to_owned()),
            vm_sizes: NodeSizes::from_iter([("Standard_D2_v2".to_owned(), size)]),
            ..SlurmSettings::default()
        }
    }

    fn options(plan: &Plan) -> Vec<String> {
        let all = sbatch_arguments("job", plan, &settings(), Duration::from_secs(30), "log");
        let of_interest = ["--qos", "--constraint", "--cpus-per-task", "--mem"];
        all.into_iter().filter(|option| of_interest.iter().any(|name| option.starts_with(name))).collect()
    }

    #[test]
    fn a_size_is_cores_memory_and_features_and_low_priority_is_a_qos() {
        let plan =
            plan(json!({"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": LOW_PRIORITY,
            "node_count": 2, "distributed_training": {"type": "Mpi", "process_count_per_node": 3}}));
        assert_eq!(
            options(&plan),
            ["--qos=scavenger", "--constraint=fast", "--cpus-per-task=2", "--mem=7168M"]
        );
        assert_eq!(
            made_for_one_run(&plan, &settings()),
            "made for this run: a STANDARD_D2_V2 is a node of partition main with 8 core(s), 7168 MiB of memory, the features \
             fast, QOS scavenger"
        );
    }

    #[test]
    fn a_registered_target_asks_for_what_the_operator_wrote_alone() {
        let mut plan = plan(json!({}));
        assert_eq!(options(&plan), ["--qos=normal"]);
        let nodes = |size: &str, priority: &str| {
            Some(TargetNodes { vm_size: Some(size.to_owned()), vm_priority: Some(priority.to_owned()) })
        };
        plan.target_nodes = nodes("STANDARD_D2_V2", "dedicated");
        assert_eq!(options(&plan), ["--qos=normal", "--constraint=fast", "--cpus-per-task=8"]);
        plan.target_nodes = nodes("STANDARD_NC6", LOW_PRIORITY);
        assert_eq!(options(&plan), ["--qos=scavenger"]);
    }
}
