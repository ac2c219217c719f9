//! Rules about the body as a whole: unknown names, wrong types, deprecated words.

use serde_json::{Value, json};

use super::{Context, Sink, patched, words};
use crate::domain::{
    definition::{Fault, Training},
    finding::Fix,
};

pub(super) fn estimator_deprecated(_: &Context<'_>, sink: &mut Sink<'_>) {
    sink.report(
        "",
        "The Chainer estimator class is deprecated; SDK v1 as a whole is out of support since 2026-06-30. \
         The definition is still judged and run here.",
        words(
            "Nothing has to be done for this service. To move on, ask for the rendering of this definition as a \
             `ScriptRunConfig` with an environment of its own, or as an Azure ML v2 command job.",
        ),
    );
}

pub(super) fn unknown_parameter(context: &Context<'_>, sink: &mut Sink<'_>) {
    problems(context, sink, Fault::UnknownParameter);
}

pub(super) fn wrong_type(context: &Context<'_>, sink: &mut Sink<'_>) {
    problems(context, sink, Fault::WrongType);
}

fn problems(context: &Context<'_>, sink: &mut Sink<'_>, fault: Fault) {
    for problem in context.draft.problems.iter().filter(|problem| problem.fault == fault) {
        let fix = Fix { description: problem.fix.clone(), patch: problem.patch.clone() };
        sink.report(problem.pointer.clone(), problem.message.clone(), fix);
    }
}

pub(super) fn deprecated_parameter(context: &Context<'_>, sink: &mut Sink<'_>) {
    let draft = context.draft;
    if draft.process_count_per_node.value().is_some_and(|count| *count != 1) {
        sink.report_about(
            &["distributed_training"],
            "/process_count_per_node",
            "`process_count_per_node` is deprecated: the number of processes on each node belongs into the `Mpi` \
             object of `distributed_training`.",
            mpi_fix(context),
        );
    }
    if draft.distributed_backend.is_given() {
        sink.report_about(
            &["distributed_training"],
            "/distributed_backend",
            "`distributed_backend` is deprecated: MPI is stated by an `Mpi` object in `distributed_training`.",
            mpi_fix(context),
        );
    }
    let renamed = [
        ("custom_docker_base_image", "custom_docker_image", draft.custom_docker_base_image.is_given()),
        (
            "conda_dependencies_file_path",
            "conda_dependencies_file",
            draft.conda_dependencies_file_path.is_given(),
        ),
        ("pip_requirements_file_path", "pip_requirements_file", draft.pip_requirements_file_path.is_given()),
    ];
    for (old, new, given) in renamed {
        if given {
            let message = format!("`{old}` is deprecated; the parameter is called `{new}` now.");
            sink.report_about(&[new], format!("/{old}"), message, rename_fix(context, old, new));
        }
    }
}

/// Both deprecated words about MPI are replaced by one object, so both carry this same patch.
fn mpi_fix(context: &Context<'_>) -> Fix {
    let draft = context.draft;
    let mut patch = Vec::new();
    for name in ["process_count_per_node", "distributed_backend"] {
        if context.sent(name) {
            patch.push(json!({"op": "remove", "path": format!("/{name}")}));
        }
    }
    if draft.distributed_training.is_given() {
        let words = match draft.distributed_training.value() {
            Some(Training::Mpi(_)) => {
                "Remove it: `distributed_training` already states MPI, and its count holds."
            }
            _ => "Remove it, and state MPI in `distributed_training` alone.",
        };
        return patched(words, patch);
    }
    let mut object = json!({"type": "Mpi"});
    let count = draft.process_count_per_node.value().filter(|count| **count > 1);
    if let (Some(count), Value::Object(members)) = (count, &mut object) {
        members.insert("process_count_per_node".to_owned(), json!(count));
    }
    let description = format!("Write `\"distributed_training\": {object}` instead.");
    patch.push(json!({"op": "add", "path": "/distributed_training", "value": object}));
    patched(description, patch)
}

fn rename_fix(context: &Context<'_>, old: &str, new: &str) -> Fix {
    let overridden = old == "custom_docker_base_image" && context.has_environment();
    let new_is_given = match new {
        "custom_docker_image" => context.draft.custom_docker_image.is_given(),
        "conda_dependencies_file" => context.draft.conda_dependencies_file.is_given(),
        _ => context.draft.pip_requirements_file.is_given(),
    };
    if overridden || new_is_given {
        let why =
            if overridden { "the environment states the image" } else { "the new spelling is given too" };
        return patched(
            format!("Remove `{old}`: {why}."),
            vec![json!({"op": "remove", "path": format!("/{old}")})],
        );
    }
    patched(
        format!("Rename it to `{new}`."),
        vec![json!({"op": "move", "from": format!("/{old}"), "path": format!("/{new}")})],
    )
}

pub(super) fn validation_always_on(context: &Context<'_>, sink: &mut Sink<'_>) {
    if context.draft.disable_validation.is_true() {
        sink.report(
            "/_disable_validation",
            "`_disable_validation` is true, but this service judges every definition by every rule.",
            patched(
                "Leave it out; `false` asks for the script to be parsed as well.",
                vec![json!({"op": "remove", "path": "/_disable_validation"})],
            ),
        );
    }
}
