//! Rules about running more than one process.

use super::{CHAINER_PAGE, Context, Rule, Sink, words};
use crate::domain::{
    compute_target::ComputeTargetType,
    definition::{Draft, Training, shortened},
    finding::Severity,
    patch,
};

/// The rules of this file.
pub(super) static RULES: &[Rule] = &[
    Rule {
        slug: "distributed-requires-amlcompute",
        severity: Severity::Error,
        parameters: &["compute_target", "node_count", "process_count_per_node", "distributed_training"],
        summary: "More than one process in all runs on AmlCompute only.",
        doc: "More than one node, or more than one process on a node, is supported on AmlCompute targets only.",
        url: CHAINER_PAGE,
        refused: r#"{"distributed_training": {"type": "Mpi", "process_count_per_node": 2}}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "distributed_training": {"type": "Mpi", "process_count_per_node": 2}}"#,
        ),
        check: distributed_requires_amlcompute,
    },
    Rule {
        slug: "process-count-not-positive",
        severity: Severity::Error,
        parameters: &["process_count_per_node", "distributed_training"],
        summary: "The number of processes on each node is at least 1.",
        doc: "The number of processes per node is an integer with the default 1.",
        url: CHAINER_PAGE,
        refused: r#"{"distributed_training": {"type": "Mpi", "process_count_per_node": 0}}"#,
        accepted: Some(r#"{"distributed_training": {"type": "Mpi", "process_count_per_node": 1}}"#),
        check: process_count_not_positive,
    },
    Rule {
        slug: "process-count-ignored",
        severity: Severity::Warning,
        parameters: &["process_count_per_node", "distributed_training"],
        summary: "The count of the `Mpi` object wins over the deprecated parameter.",
        doc: "The number of processes belongs to the distributed training object; the parameter of its own is deprecated.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "process_count_per_node": 4, "distributed_training": {"type": "Mpi", "process_count_per_node": 2}}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "distributed_training": {"type": "Mpi", "process_count_per_node": 2}}"#,
        ),
        check: process_count_ignored,
    },
    Rule {
        slug: "distributed-backend-unsupported",
        severity: Severity::Error,
        parameters: &["distributed_backend"],
        summary: "The only distributed backend is `mpi`.",
        doc: "MPI is the only backend that is supported.",
        url: CHAINER_PAGE,
        refused: r#"{"distributed_backend": "ps"}"#,
        accepted: Some(r#"{"distributed_backend": "mpi"}"#),
        check: distributed_backend_unsupported,
    },
    Rule {
        slug: "distributed-training-unsupported",
        severity: Severity::Error,
        parameters: &["distributed_training"],
        summary: "Distributed training is an object of type `Mpi`.",
        doc: "The object that describes a distributed job is an Mpi object.",
        url: CHAINER_PAGE,
        refused: r#"{"distributed_training": {"type": "Gloo"}}"#,
        accepted: Some(r#"{"distributed_training": {"type": "Mpi"}}"#),
        check: distributed_training_unsupported,
    },
    Rule {
        slug: "distributed-requires-mpi",
        severity: Severity::Error,
        parameters: &["distributed_training", "distributed_backend", "node_count", "process_count_per_node"],
        summary: "More than one node or process needs MPI to be stated.",
        doc: "Counts above 1 run an MPI job, and the backend is required for them.",
        url: CHAINER_PAGE,
        refused: r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "node_count": 2}"#,
        accepted: Some(
            r#"{"compute_target": null, "vm_size": "STANDARD_D2_V2", "node_count": 2, "distributed_training": {"type": "Mpi"}}"#,
        ),
        check: distributed_requires_mpi,
    },
];

fn training_is_mpi(draft: &Draft) -> bool {
    matches!(draft.distributed_training.value(), Some(Training::Mpi(_)))
}

fn backend_is_mpi(draft: &Draft) -> bool {
    draft.distributed_backend.text().is_some_and(|word| word.eq_ignore_ascii_case("mpi"))
}

fn process_count_not_positive(context: &Context<'_>, sink: &mut Sink<'_>) {
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

fn process_count_ignored(context: &Context<'_>, sink: &mut Sink<'_>) {
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

fn distributed_backend_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
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

fn distributed_training_unsupported(context: &Context<'_>, sink: &mut Sink<'_>) {
    if let Some(Training::Unsupported(what)) = context.draft.distributed_training.value() {
        sink.report(
            "/distributed_training",
            format!("`distributed_training` is {what}; only an object of type `Mpi` is supported."),
            words("Write `{\"type\": \"Mpi\", \"process_count_per_node\": 1}` with the count that you need."),
        );
    }
}

fn distributed_requires_mpi(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    let above_one = |count: Option<&i64>| count.is_some_and(|count| *count > 1);
    let nodes = above_one(draft.node_count.value());
    let processes = above_one(draft.process_count_per_node.value());
    if !(nodes || processes) || training_is_mpi(draft) || backend_is_mpi(draft) {
        return;
    }
    let counted = [
        ("node_count", draft.node_count.value().filter(|_| nodes)),
        ("process_count_per_node", draft.process_count_per_node.value().filter(|_| processes)),
    ];
    let counted =
        counted.iter().filter_map(|(name, count)| count.map(|count| format!("`{name}` is {count}")));
    let what = counted.collect::<Vec<_>>().join(" and ");
    // The same patch as that of the deprecated words, unless something else stands in the place.
    let fix = if draft.distributed_training.is_given() {
        words("Write an object of type `Mpi` in `distributed_training`, or run one process on one node.")
    } else {
        super::general::mpi_fix(context)
    };
    sink.report_about(
        &["node_count", "process_count_per_node", "distributed_backend"],
        "/distributed_training",
        format!("{what}: more than one process runs under MPI, which is not stated; it is never assumed."),
        fix,
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

fn distributed_requires_amlcompute(context: &Context<'_>, sink: &mut Sink<'_>) {
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
                patch::discard("distributed_backend"),
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::domain::rules::testing::{errors, verdict, warnings};

    #[test]
    fn mpi_is_never_assumed() {
        let missing = ["distributed-requires-mpi@/distributed_training"];
        assert_eq!(errors(&json!({"node_count": 2})), missing);
        assert_eq!(errors(&json!({"process_count_per_node": 2})), missing);
        assert!(
            errors(&json!({"node_count": 2, "distributed_training": {"type": "MpiConfiguration"}}))
                .is_empty()
        );
        assert!(errors(&json!({"node_count": 2, "distributed_backend": "mPI"})).is_empty());
        assert_eq!(errors(&json!({"node_count": 2, "distributed_training": {}})), missing);
        assert!(errors(&json!({"node_count": 1, "process_count_per_node": 1})).is_empty());
    }

    #[test]
    fn an_unsupported_word_is_no_mpi() {
        assert_eq!(
            errors(&json!({"node_count": 2, "distributed_training": "Mpi"})),
            [
                "distributed-training-unsupported@/distributed_training",
                "distributed-requires-mpi@/distributed_training"
            ]
        );
        assert_eq!(
            errors(&json!({"node_count": 2, "distributed_backend": " mpi"})),
            [
                "distributed-backend-unsupported@/distributed_backend",
                "distributed-requires-mpi@/distributed_training"
            ]
        );
        for other in
            [json!({"type": "Gloo"}), json!({"process_count_per_node": 2}), json!({"type": 5}), json!("")]
        {
            let found = errors(&json!({"distributed_training": other}));
            assert_eq!(found, ["distributed-training-unsupported@/distributed_training"], "{other}");
        }
    }

    #[test]
    fn more_than_one_process_needs_a_cluster() {
        let not_there = ["distributed-requires-amlcompute@/compute_target"];
        let mpi = |count: i64| json!({"type": "Mpi", "process_count_per_node": count});
        assert_eq!(errors(&json!({"compute_target": "local", "distributed_training": mpi(2)})), not_there);
        assert!(errors(&json!({"compute_target": "local", "distributed_training": mpi(1)})).is_empty());
        assert_eq!(
            errors(&json!({"compute_target": "kube", "node_count": 4, "distributed_training": mpi(1 << 62)})),
            not_there
        );
        // What cannot be read says nothing.
        assert_eq!(
            errors(&json!({"compute_target": "local", "node_count": "2", "distributed_training": mpi(2)})),
            ["wrong-type@/node_count"]
        );
    }

    #[test]
    fn the_count_of_the_object_wins() {
        let members = json!({"process_count_per_node": 2, "distributed_training": {"type": "Mpi"}});
        assert_eq!(
            warnings(&members),
            ["deprecated-parameter@/process_count_per_node", "process-count-ignored@/process_count_per_node"]
        );
        let accepted = verdict(&members).accepted.unwrap();
        assert_eq!(accepted.definition.process_count_per_node(), 1);
        assert_eq!(
            errors(&json!({"distributed_training": {"type": "Mpi", "process_count_per_node": 0}})),
            ["process-count-not-positive@/distributed_training/process_count_per_node"]
        );
    }

    #[test]
    fn one_way_to_say_it() {
        assert_eq!(
            errors(&json!({"distributed_backend": 5, "distributed_training": {"type": "Mpi", "x": 1}})),
            [
                "wrong-type@/distributed_backend",
                "conflicting-parameters@/distributed_backend",
                "unknown-parameter@/distributed_training/x",
            ]
        );
    }
}
