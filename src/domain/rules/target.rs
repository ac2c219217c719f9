//! Rules about where a definition runs: targets, sizes, nodes, GPUs, time.

use serde_json::json;

use super::{Context, Sink, patched, words};
use crate::domain::{
    compute_target::{ComputeTargetType, LOCAL},
    definition::{nearest, shortened},
    framework,
};

const PRIORITIES: [&str; 2] = ["dedicated", "lowpriority"];

pub(super) fn compute_target_or_vm_size_required(context: &Context<'_>, sink: &mut Sink<'_>) {
    if !context.draft.compute_target.is_given() && !context.draft.vm_size.is_given() {
        sink.report_about(
            &["vm_size"],
            "/compute_target",
            "Neither `compute_target` nor `vm_size` is given, so there is nothing to run on.",
            words("Name a registered compute target or `local`, or give a `vm_size` for a one-off target."),
        );
    }
}

pub(super) fn compute_target_not_found(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(name) = context.draft.compute_target.text() else {
        return;
    };
    if context.target.is_some() {
        return;
    }
    let message = format!("{:?} is the name of no registered compute target.", shortened(name));
    let replace = |with: &str| vec![json!({"op": "replace", "path": "/compute_target", "value": with})];
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

pub(super) fn compute_target_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
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

pub(super) fn vm_size_unknown(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if draft.compute_target.is_given() {
        return;
    }
    let Some(size) = draft.vm_size.text() else {
        return;
    };
    if framework::vm_size(size).is_none() {
        let near = nearest(size, framework::VM_SIZES.iter().map(|size| size.name)).unwrap_or_default();
        sink.report(
            "/vm_size",
            format!("{:?} is no VM size of the table that this service has.", shortened(size)),
            words(format!("Write `{near}` if that is the size you mean, or another size of the table.")),
        );
    }
}

pub(super) fn vm_size_ignored(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.vm_size.is_given() && context.draft.compute_target.is_given() {
        sink.report_about(
            &["compute_target"],
            "/vm_size",
            "`vm_size` has no effect beside `compute_target`: the target wins.",
            patched("Remove `vm_size`.", vec![json!({"op": "remove", "path": "/vm_size"})]),
        );
    }
}

pub(super) fn vm_priority_unknown(context: &Context<'_>, sink: &mut Sink<'_>) {
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
        patched(
            format!("Write `{meant}`."),
            vec![json!({"op": "replace", "path": "/vm_priority", "value": meant})],
        ),
    );
}

pub(super) fn vm_priority_without_vm_size(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.vm_priority.is_given() && !context.draft.vm_size.is_given() {
        sink.report_about(
            &["vm_size"],
            "/vm_priority",
            "`vm_priority` has no effect without `vm_size`.",
            patched("Remove it, or give a `vm_size`.", vec![json!({"op": "remove", "path": "/vm_priority"})]),
        );
    }
}

pub(super) fn node_count_not_positive(context: &Context<'_>, sink: &mut Sink<'_>) {
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

pub(super) fn node_count_exceeds_target(context: &Context<'_>, sink: &mut Sink<'_>) {
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

pub(super) fn gpu_not_available(context: &Context<'_>, sink: &mut Sink<'_>) {
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

pub(super) fn max_run_duration_not_positive(context: &Context<'_>, sink: &mut Sink<'_>) {
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
