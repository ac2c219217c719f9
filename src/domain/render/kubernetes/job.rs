//! One process: a `Job` of `batch/v1`.

use serde_json::{Value, json};

use super::{KEPT_SECONDS, Parts, pod, service::Service};

pub(super) fn manifest(parts: &Parts<'_>) -> Value {
    let mut command = vec![pod::interpreter(parts)];
    let mut script = pod::script(parts);
    command.push(script.remove(0));
    let mut variables = pod::variables(parts);
    if let Some(service) = parts.service {
        command = service.steered(&command);
    }
    // The home of a user that the image does not know cannot be written to.
    if !variables.iter().any(|(name, _)| name == "HOME") {
        variables.insert(0, ("HOME".to_owned(), "/tmp".to_owned()));
    }
    let mut env = pod::env(&variables);
    env.extend(parts.service.into_iter().flat_map(Service::access));
    let mut container = json!({
        "name": "script",
        "image": pod::image(parts),
        "workingDir": pod::WORK,
        "command": pod::words(&command),
        "args": pod::words(&script),
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pod::container_security(true),
        "volumeMounts": pod::mounts(parts),
    });
    if let Some(resources) = pod::node_resources(parts) {
        container["resources"] = resources;
    }
    if parts.service.is_some() {
        container["lifecycle"] = Service::steering();
    }
    // A pod that the cluster took away is replaced and not counted; one that failed is the end of the run. For this service another
    // pod is another attempt.
    let action = if parts.service.is_some() { "FailJob" } else { "Ignore" };
    let evicted =
        json!({"action": action, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
    let mut spec = json!({
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": {"rules": [evicted]},
        "ttlSecondsAfterFinished": parts.service.map_or(KEPT_SECONDS, |_| Service::kept_seconds()),
    });
    if let Some(seconds) = pod::deadline(parts) {
        spec["activeDeadlineSeconds"] = json!(seconds);
    }
    spec["template"] = json!({
        "metadata": {"labels": pod::labels(parts)},
        "spec": pod::with_source(parts, container),
    });
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": parts.name, "labels": pod::object_labels(parts), "annotations": pod::annotations(parts),
        },
        "spec": spec,
    })
}
