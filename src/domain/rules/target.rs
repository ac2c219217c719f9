//! Rules about where a definition runs: targets, sizes, nodes, GPUs, time.

use super::{CHAINER_PAGE, Context, Rule, Sink, patched, words};
use crate::domain::{
    compute_target::{ComputeTargetType, Engine, LOCAL},
    definition::{nearest, shortened},
    finding::Severity,
    framework, patch,
    plan::LOW_PRIORITY,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "compute-target-or-vm-size-required",
        severity: Severity::Error,
        parameters: &["compute_target", "vm_size"],
        summary: "There must be a compute target, or a size for a one-off target.",
        doc: "Training happens on a compute target, or on one that is created with the given size.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null}"#,
        accepted: Some(r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2"}"#),
        check: compute_target_or_vm_size_required,
    },
    Rule {
        slug: "compute-target-not-found",
        severity: Severity::Error,
        parameters: &["compute_target"],
        summary: "The compute target must be registered, or be `local`.",
        doc: "The compute target is a compute object or the word `local`.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": "lokal"}"#,
        accepted: Some(r#"{"compute_target": "local"}"#),
        check: compute_target_not_found,
    },
    Rule {
        slug: "compute-target-unsupported",
        severity: Severity::Error,
        parameters: &["compute_target"],
        summary: "Targets of type HDInsightCompute run no estimator.",
        doc: "The training targets of the SDK are listed, and HDInsight is not among those that run estimators.",
        url: "https://learn.microsoft.com/en-us/azure/machine-learning/concept-compute-target",
        refused: r#"{"compute_target": "hdinsight"}"#,
        accepted: Some(r#"{"compute_target": "cpu-cluster"}"#),
        check: compute_target_unsupported,
    },
    Rule {
        slug: "vm-size-unknown",
        severity: Severity::Error,
        parameters: &["vm_size"],
        summary: "The size of a one-off target must be in the table of sizes.",
        doc: "The size is that of the target that will be created for the training; Azure names the sizes.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "HUGE"}"#,
        accepted: Some(r#"{"compute_target": null, "vm_size": "standard_d2_v2"}"#),
        check: vm_size_unknown,
    },
    Rule {
        slug: "one-off-target-not-available",
        severity: Severity::Error,
        parameters: &["vm_size", "vm_priority"],
        summary: "A one-off target needs a cluster that can make room for it, where the operator has them made on one.",
        doc: "The target is created for the training with the given size and priority.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": "lowpriority"}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": "dedicated"}"#,
        ),
        check: one_off_target_not_available,
    },
    Rule {
        slug: "vm-size-ignored",
        severity: Severity::Warning,
        parameters: &["vm_size", "compute_target"],
        summary: "A size has no effect beside a compute target.",
        doc: "The size describes the target that will be created, which none is when one is named.",
        url: CHAINER_PAGE,
        refused: r#"{"vm_size": "STANDARD_D2_V2"}"#,
        accepted: Some(r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2"}"#),
        check: vm_size_ignored,
    },
    Rule {
        slug: "vm-priority-unknown",
        severity: Severity::Error,
        parameters: &["vm_priority"],
        summary: "The priority is `dedicated` or `lowpriority`.",
        doc: "The priority has the two values dedicated and lowpriority, the former being the default.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": "khusus"}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": "dedicated"}"#,
        ),
        check: vm_priority_unknown,
    },
    Rule {
        slug: "vm-priority-without-vm-size",
        severity: Severity::Warning,
        parameters: &["vm_priority", "vm_size"],
        summary: "A priority has no effect without a size.",
        doc: "The priority takes effect only when a size is given.",
        url: CHAINER_PAGE,
        refused: r#"{"vm_priority": "lowpriority"}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "vm_priority": "dedicated"}"#,
        ),
        check: vm_priority_without_vm_size,
    },
    Rule {
        slug: "node-count-not-positive",
        severity: Severity::Error,
        parameters: &["node_count"],
        summary: "The number of nodes is at least 1.",
        doc: "The number of nodes is an integer with the default 1.",
        url: CHAINER_PAGE,
        refused: r#"{"node_count": 0}"#,
        accepted: Some(r#"{"node_count": 1}"#),
        check: node_count_not_positive,
    },
    Rule {
        slug: "node-count-exceeds-target",
        severity: Severity::Error,
        parameters: &["node_count", "compute_target"],
        summary: "A run asks for no more nodes than its target has.",
        doc: "The nodes are those of the compute target.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": "cpu-cluster", "node_count": 5, "distributed_training": {"type": "Mpi"}}"#,
        accepted: Some(
            r#"{"compute_target": "cpu-cluster", "node_count": 4, "distributed_training": {"type": "Mpi"}}"#,
        ),
        check: node_count_exceeds_target,
    },
    Rule {
        slug: "gpu-not-available",
        severity: Severity::Error,
        parameters: &["use_gpu", "compute_target", "vm_size"],
        summary: "GPUs need a target that has some.",
        doc: "With this switch the training uses GPUs of the target.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "use_gpu": true}"#,
        accepted: Some(r#"{"compute_target": null, "vm_size": "STANDARD_NC6", "use_gpu": true}"#),
        check: gpu_not_available,
    },
    Rule {
        slug: "max-run-duration-not-positive",
        severity: Severity::Error,
        parameters: &["max_run_duration_seconds"],
        summary: "The longest duration of a run is at least one second.",
        doc: "A run that takes longer than this number of seconds is cancelled.",
        url: CHAINER_PAGE,
        refused: r#"{"max_run_duration_seconds": 0}"#,
        accepted: Some(r#"{"max_run_duration_seconds": 3600}"#),
        check: max_run_duration_not_positive,
    },
];

const PRIORITIES: [&str; 2] = ["dedicated", LOW_PRIORITY];

fn compute_target_or_vm_size_required(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.compute_target.is_given() && !context.draft.vm_size.is_given() {
        sink.report_about(
            &["vm_size"],
            "/compute_target",
            "Neither `compute_target` nor `vm_size` is given, so there is nothing to run on.",
            words("Name a registered compute target or `local`, or give a `vm_size` for a one-off target."),
        );
    }
}

fn compute_target_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(name) = context.draft.compute_target.text() else {
        return;
    };
    if context.target.is_some() {
        return;
    }
    let message = format!("{:?} is the name of no registered compute target.", shortened(name));
    let replace = |with: &str| [patch::replace("compute_target", with)];
    let fix = if name.trim().eq_ignore_ascii_case("lokal") || name.trim().eq_ignore_ascii_case(LOCAL) {
        patched("Write `local`: the word is not translated and is written in lower case.", replace(LOCAL))
    } else {
        match nearest(name, context.facts.targets.iter().map(|target| target.name.as_str())) {
            Some(near) => {
                words(format!("Write `{near}` if that is the target you mean, or register this one."))
            }
            None => words("Register the target, or write `local`."),
        }
    };
    sink.report("/compute_target", message, fix);
}

fn compute_target_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(target) = &context.target
        && target.kind == ComputeTargetType::HDInsightCompute
    {
        sink.report(
            "/compute_target",
            format!("`{}` is an HDInsightCompute target, which runs no estimator.", target.label),
            words("Name a target of another type, such as AmlCompute."),
        );
    }
}

fn vm_size_unknown(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if draft.compute_target.is_given() {
        return;
    }
    let Some(size) = draft.vm_size.text() else {
        return;
    };
    // Where no target can be made there is nothing to look the size up in.
    let backend = context.facts.one_off_backend();
    if backend.as_ref().is_some_and(|backend| backend.size(size).is_none()) {
        let own = backend.iter().flat_map(|backend| backend.own_sizes());
        let known = framework::VM_SIZES.iter().map(|size| size.name).chain(own);
        let near = nearest(size, known).unwrap_or_default();
        sink.report(
            "/vm_size",
            format!("{:?} is no VM size of the table that this service has.", shortened(size)),
            words(format!("Write `{near}` if that is the size you mean, or another size of the table.")),
        );
    }
}

fn one_off_target_not_available(context: &Context<'_>, sink: &mut Sink<'_>) {
    let (draft, facts) = (context.draft, context.facts);
    let Some(name) = &facts.one_off_target else { return };
    if draft.compute_target.is_given() || !draft.vm_size.is_given() {
        return;
    }
    match facts.registered(name.as_str()).map(|target| &target.backend.engine) {
        None => sink.report_about(
            &["compute_target"],
            "/vm_size",
            format!(
                "Targets for one run are made on the cluster of the target `{name}`, which is not registered."
            ),
            words("Have the operator register it, or name a registered `compute_target`."),
        ),
        Some(Engine::Slurm(settings))
            if settings.low_priority_qos.is_none() && draft.vm_priority.text() == Some(LOW_PRIORITY) =>
        {
            sink.report(
                "/vm_priority",
                format!("The target `{name}`, on whose cluster targets for one run are made, has no `low_priority_qos`."),
                patched(
                    "Write `dedicated`, or have the operator name the QOS of jobs that may be pre-empted.",
                    [patch::replace("vm_priority", PRIORITIES[0])],
                ),
            );
        }
        Some(Engine::Kubernetes(settings))
            if settings.low_priority.is_none() && draft.vm_priority.text() == Some(LOW_PRIORITY) =>
        {
            sink.report(
                "/vm_priority",
                format!("The target `{name}`, on whose cluster targets for one run are made, has no `low_priority`."),
                patched(
                    "Write `dedicated`, or have the operator say what makes pods that may be pre-empted.",
                    [patch::replace("vm_priority", PRIORITIES[0])],
                ),
            );
        }
        Some(Engine::Slurm(_) | Engine::Kubernetes(_) | Engine::Process) => {}
    }
}

fn vm_size_ignored(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.vm_size.is_given() && context.draft.compute_target.is_given() {
        sink.report_about(
            &["compute_target"],
            "/vm_size",
            "`vm_size` has no effect beside `compute_target`: the target wins.",
            patched("Remove `vm_size`.", [patch::remove("vm_size")]),
        );
    }
}

fn vm_priority_unknown(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(priority) = context.draft.vm_priority.text() else {
        return;
    };
    if PRIORITIES.contains(&priority) {
        return;
    }
    let meant = match priority.trim().to_lowercase().as_str() {
        "khusus" => "dedicated",
        "prioritas rendah" => "lowpriority",
        other => nearest(other, PRIORITIES).unwrap_or("dedicated"),
    };
    sink.report(
        "/vm_priority",
        format!(
            "`vm_priority` is {:?}; it is `dedicated` or `lowpriority`, exactly so.",
            shortened(priority)
        ),
        patched(format!("Write `{meant}`."), [patch::replace("vm_priority", meant)]),
    );
}

fn vm_priority_without_vm_size(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.vm_priority.is_given() && !context.draft.vm_size.is_given() {
        sink.report_about(
            &["vm_size"],
            "/vm_priority",
            "`vm_priority` has no effect without `vm_size`.",
            patched("Remove it, or give a `vm_size`.", [patch::remove("vm_priority")]),
        );
    }
}

fn node_count_not_positive(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(count) = context.draft.node_count.value()
        && *count < 1
    {
        sink.report(
            "/node_count",
            format!("`node_count` is {count}; it must be at least 1."),
            words("Write 1 or more, or leave it out: the default is 1."),
        );
    }
}

fn node_count_exceeds_target(context: &Context<'_>, sink: &mut Sink<'_>) {
    let (Some(count), Some(target)) = (context.draft.node_count.value(), &context.target) else {
        return;
    };
    let Some(most) = target.max_nodes else {
        return;
    };
    if *count > i64::from(most) {
        sink.report_about(
            &["compute_target"],
            "/node_count",
            format!("`node_count` is {count}, but the target `{}` has at most {most}.", target.label),
            words(format!("Write {most} or less, or name a larger target.")),
        );
    }
}

fn gpu_not_available(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(target) = &context.target
        && context.draft.use_gpu.is_true()
        && target.gpus_per_node == Some(0)
    {
        sink.report_about(
            &["compute_target", "vm_size"],
            "/use_gpu",
            format!("`use_gpu` is true, but `{}` has no GPUs.", target.label),
            words("Name a target or a size with GPUs, or write `false`."),
        );
    }
}

fn max_run_duration_not_positive(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(seconds) = context.draft.max_run_duration_seconds.value()
        && *seconds < 1
    {
        sink.report(
            "/max_run_duration_seconds",
            format!("`max_run_duration_seconds` is {seconds}; it must be at least 1."),
            words("Write the number of seconds, or leave it out: then there is no limit."),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::{errors, finding, verdict, warnings};

    #[test]
    fn there_must_be_something_to_run_on() {
        assert_eq!(
            errors(&json!({"compute_target": ""})),
            ["compute-target-or-vm-size-required@/compute_target"]
        );
        assert!(
            errors(&json!({"compute_target": null, "vm_size": "standard_d2_v2", "node_count": 9,
            "distributed_training": {"type": "Mpi"}}))
            .is_empty()
        );
        assert_eq!(errors(&json!({"compute_target": null, "vm_size": "D2"})), ["vm-size-unknown@/vm_size"]);
        assert_eq!(
            errors(&json!({"compute_target": null, "vm_size": "STANDARD_D2_V2", "use_gpu": true})),
            ["gpu-not-available@/use_gpu"]
        );
        assert_eq!(warnings(&json!({"vm_size": 5})), ["vm-size-ignored@/vm_size"]);
    }

    #[test]
    fn translated_words_are_understood_and_refused() {
        let target = finding(&json!({"compute_target": "lokal"}), "compute-target-not-found");
        assert_eq!(
            json!(target.fix.patch),
            json!([{"op": "replace", "path": "/compute_target", "value": "local"}])
        );
        for (word, meant) in
            [("khusus", "dedicated"), ("prioritas rendah", "lowpriority"), ("LowPriority", "lowpriority")]
        {
            let found = finding(&json!({"vm_priority": word}), "vm-priority-unknown");
            assert!(found.fix.description.contains(meant), "{word}");
        }
        assert!(
            finding(&json!({"compute_target": "cpu-cluser"}), "compute-target-not-found")
                .fix
                .description
                .contains("`cpu-cluster`")
        );
    }

    #[test]
    fn bounds() {
        assert_eq!(
            errors(&json!({"node_count": 5, "distributed_training": {"type": "Mpi"}})),
            ["node-count-exceeds-target@/node_count"]
        );
        assert_eq!(errors(&json!({"node_count": 0})), ["node-count-not-positive@/node_count"]);
        assert_eq!(
            errors(&json!({"max_run_duration_seconds": 0})),
            ["max-run-duration-not-positive@/max_run_duration_seconds"]
        );
        assert_eq!(errors(&json!({"compute_target": "hdi"})), ["compute-target-unsupported@/compute_target"]);
        assert!(verdict(&json!({"compute_target": "gpu-cluster", "use_gpu": true})).is_valid());
        // An unknown target has no nodes and no GPUs to compare with.
        assert_eq!(
            errors(
                &json!({"compute_target": "x", "node_count": 99, "use_gpu": true, "distributed_backend": "mpi"})
            ),
            ["compute-target-not-found@/compute_target"]
        );
    }
}
