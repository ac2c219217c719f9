//! What does not go with a Kubernetes cluster; parts of the rule `conflicting-parameters`.

use super::{Context, Sink, words};
use crate::domain::{compute_target::ComputeTargetType, json as pointers};

/// `conflicting-parameters`: a Kubernetes target runs containers only.
pub(super) fn kubernetes_without_docker(context: &Context<'_>, sink: &mut Sink<'_>) {
    let Some(target) = &context.target else {
        return;
    };
    if target.kind != ComputeTargetType::Kubernetes && !target.on_kubernetes {
        return;
    }
    let message = format!(
        "`{}` is a Kubernetes target, which runs containers only, but Docker is switched off.",
        target.label
    );
    let fix = words("Write `true`, or leave it out.");
    if !context.has_environment() {
        if context.draft.use_docker.is_false() {
            sink.report_about(&["compute_target"], "/use_docker", message, fix);
        }
        return;
    }
    if let Some(environment) = context.draft.environment_definition.value()
        && environment.docker.enabled.is_false()
    {
        let pointer = pointers::child(&environment.docker.pointer, "enabled");
        sink.report_about(&["compute_target"], pointer, message, fix);
    }
}

/// `conflicting-parameters`: what Docker has and a pod has not.
pub(super) fn what_pods_have_not(context: &Context<'_>, sink: &mut Sink<'_>) {
    let (Some(target), Some(environment)) = (&context.target, context.draft.environment_definition.value())
    else {
        return;
    };
    if !target.on_kubernetes {
        return;
    }
    let docker = &environment.docker;
    if docker.base_dockerfile.is_given() {
        sink.report_about(
            &["compute_target"],
            docker.base_dockerfile_pointer.clone(),
            format!("`{}` is a Kubernetes cluster, which builds no images of Dockerfiles.", target.label),
            words("Build the image, push it to a registry that the cluster pulls from, and name it as the base image."),
        );
    }
    if docker.arguments.value().is_some_and(|arguments| !arguments.is_empty()) {
        sink.report_about(
            &["compute_target"],
            pointers::child(&docker.pointer, "arguments"),
            format!(
                "`{}` is a Kubernetes cluster, whose pods take no arguments of `docker run`.",
                target.label
            ),
            words("Remove them; a size of shared memory can be given by `shm_size`."),
        );
    }
}
