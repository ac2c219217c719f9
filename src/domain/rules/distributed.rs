//! Rules about running more than one process.

use super::{Context, Sink, words};
use crate::domain::{
    compute_target::ComputeTargetType,
    definition::{Draft, Training, shortened},
};

fn training_is_mpi(draft: &Draft) -> bool {
    matches!(draft.distributed_training.value(), Some(Training::Mpi(_)))
}

fn backend_is_mpi(draft: &Draft) -> bool {
    draft.distributed_backend.text().is_some_and(|word| word.eq_ignore_ascii_case("mpi"))
}

pub(super) fn process_count_not_positive(context: &Context<'_>, sink: &mut Sink<'_>) {
    let mut counts = Vec::new();
    if let Some(count) = context.draft.process_count_per_node.value() {
        counts.push(("/process_count_per_node", *count));
    }
    if let Some(Training::Mpi(count)) = context.draft.distributed_training.value()
        && let Some(count) = count.value()
    {
        counts.push(("/distributed_training/process_count_per_node", *count));
    }
    for (pointer, count) in counts {
        if count < 1 {
            sink.report(
                pointer,
                format!("`process_count_per_node` is {count}; it must be at least 1."),
                words("Write 1 or more, or leave it out: the default is 1."),
            );
        }
    }
}

pub(super) fn process_count_ignored(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(count) = context.draft.process_count_per_node.value() else {
        return;
    };
    if *count != 1 && context.draft.distributed_training.is_given() {
        sink.report_about(
            &["distributed_training"],
            "/process_count_per_node",
            format!(
                "`process_count_per_node` is {count}, but beside `distributed_training` it has no effect: the count \
                 of that object wins."
            ),
            words("Remove it, and state the count in the `Mpi` object."),
        );
    }
}

pub(super) fn distributed_backend_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(word) = context.draft.distributed_backend.text()
        && !backend_is_mpi(context.draft)
    {
        sink.report(
            "/distributed_backend",
            format!("`distributed_backend` is {:?}; `mpi` is the only backend.", shortened(word)),
            words("Write an `Mpi` object in `distributed_training`, or leave both out for a single process."),
        );
    }
}

pub(super) fn distributed_training_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(Training::Unsupported(what)) = context.draft.distributed_training.value() {
        sink.report(
            "/distributed_training",
            format!("`distributed_training` is {what}; only an object of type `Mpi` is supported."),
            words("Write `{\"type\": \"Mpi\", \"process_count_per_node\": 1}` with the count that you need."),
        );
    }
}

pub(super) fn distributed_requires_mpi(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let above_one = |count: Option<&i64>| count.is_some_and(|count| *count > 1);
    let nodes = above_one(draft.node_count.value());
    let processes = above_one(draft.process_count_per_node.value());
    if !(nodes || processes) || training_is_mpi(draft) || backend_is_mpi(draft) {
        return;
    }
    let what = match (nodes, processes) {
        (true, true) => "`node_count` and `process_count_per_node` are above 1",
        (true, false) => "`node_count` is above 1",
        _ => "`process_count_per_node` is above 1",
    };
    let object = match draft.process_count_per_node.value() {
        Some(count) if *count > 1 => format!("{{\"type\": \"Mpi\", \"process_count_per_node\": {count}}}"),
        _ => "{\"type\": \"Mpi\"}".to_owned(),
    };
    sink.report_about(
        &["node_count", "process_count_per_node", "distributed_backend"],
        "/distributed_training",
        format!("{what}, but MPI is not stated; it is never assumed."),
        words(format!("Write `\"distributed_training\": {object}`, or run one process on one node.")),
    );
}

/// Processes in all. Nothing when a count cannot be read.
fn processes(draft: &Draft) -> Option<u128> {
    let nodes = draft.node_count.or(1)?;
    let per_node = match draft.distributed_training.value() {
        Some(Training::Mpi(count)) => count.or(1)?,
        _ => draft.process_count_per_node.or(1)?,
    };
    let nodes = u128::try_from(nodes).ok()?;
    let per_node = u128::try_from(per_node).ok()?;
    Some(nodes * per_node)
}

pub(super) fn distributed_requires_amlcompute(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(target) = &context.target else {
        return;
    };
    let Some(processes) = processes(context.draft) else {
        return;
    };
    if processes > 1 && target.kind != ComputeTargetType::AmlCompute {
        sink.report_about(
            &["node_count", "process_count_per_node", "distributed_training"],
            "/compute_target",
            format!(
                "{processes} processes are asked for, but `{}` is of type {}; more than one process runs on \
                 AmlCompute only.",
                target.label, target.kind
            ),
            words("Name a target of type AmlCompute, or run one process on one node."),
        );
    }
}

/// `conflicting-parameters`: the deprecated word and the object.
pub(super) fn both_ways(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.distributed_backend.is_given() && context.draft.distributed_training.is_given() {
        sink.report_about(
            &["distributed_training"],
            "/distributed_backend",
            "`distributed_backend` and `distributed_training` are both given; they say the same thing in two ways.",
            super::patched(
                "Keep `distributed_training` and remove `distributed_backend`.",
                vec![serde_json::json!({"op": "remove", "path": "/distributed_backend"})],
            ),
        );
    }
}
