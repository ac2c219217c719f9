//! MPI ranks: an `MPIJob` of the MPI operator (`kubeflow.org/v2beta1`).

use serde_json::{Value, json};

use super::{KEPT_SECONDS, Parts, literal, pod, service::Service};
use crate::domain::{
    kubernetes::{SCRIPT, WORKER},
    render::shell::quoted,
};

/// The user of the images made for the MPI operator has his home here, with the settings of his sshd.
const HOME: &str = "/home/mpiuser";

/// Where that sshd listens: below 1024 only root may.
const SSH_PORT: u32 = 2222;

/// Has ranks that wait give their CPU away.
const YIELD: &str = "OMPI_MCA_mpi_yield_when_idle";

pub(super) fn manifest(parts: &Parts<'_>) -> Value {
    let plan = parts.subject.plan;
    let mut policy = json!({
        // Workers that stayed would keep their GPUs.
        "cleanPodPolicy": "All",
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": parts.service.map_or(KEPT_SECONDS, |_| Service::kept_seconds()),
    });
    if let Some(seconds) = pod::deadline(parts) {
        policy["activeDeadlineSeconds"] = json!(seconds);
    }
    let replicas = |count: u64, pod: Value| {
        json!({
            "replicas": count,
            "restartPolicy": "Never",
            "template": {"metadata": {"labels": pod::labels(parts)}, "spec": pod},
        })
    };
    json!({
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {
            "name": parts.name, "labels": pod::object_labels(parts), "annotations": pod::annotations(parts),
        },
        "spec": {
            "mpiImplementation": "OpenMPI",
            "slotsPerWorker": plan.process_count_per_node,
            "sshAuthMountPath": format!("{HOME}/.ssh"),
            // A launcher that comes first finds nobody to start ranks with.
            "launcherCreationPolicy": "WaitForWorkersReady",
            "runPolicy": policy,
            "mpiReplicaSpecs": {
                "Launcher": replicas(1, launcher(parts)),
                "Worker": replicas(plan.node_count, worker(parts)),
            },
        },
    })
}

/// Whether a variable would keep `mpirun` itself from working: `env` sets it for the ranks alone.
fn is_for_ranks_only(name: &str) -> bool {
    matches!(name, "PATH" | "HOME" | "IFS") || name.starts_with("LD_")
}

fn launcher(parts: &Parts<'_>) -> Value {
    let plan = parts.subject.plan;
    let mut words: Vec<String> =
        ["-n", &plan.process_count().to_string(), "--bind-to", "none", "-wdir", pod::WORK]
            .map(ToOwned::to_owned)
            .into();
    let mut variables = pod::variables(parts);
    // Ranks that spin while they wait starve those they wait for.
    if !variables.iter().any(|(name, _)| name == YIELD) {
        variables.push((YIELD.to_owned(), "1".to_owned()));
    }
    let (own, shared): (Vec<_>, Vec<_>) =
        variables.into_iter().partition(|(name, _)| is_for_ranks_only(name));
    let mut env = pod::env(&shared);
    env.extend(parts.service.into_iter().flat_map(Service::access));
    // Ranks are started over ssh, which brings no variables along.
    for name in env.iter().filter_map(|variable| variable["name"].as_str()) {
        words.extend(["-x".to_owned(), name.to_owned()]);
    }
    if !own.is_empty() {
        words.push("env".to_owned());
        words.extend(own.iter().map(|(name, value)| format!("{name}={value}")));
    }
    // Through mpi4py, so that a rank that raises ends all.
    let mut rank = vec![pod::interpreter(parts), "-m".to_owned(), "mpi4py".to_owned()];
    rank.extend(pod::script(parts));
    // mpirun takes the argument `:` for the beginning of another program: it is given one line instead.
    if rank.iter().any(|word| word == ":") {
        let line: Vec<String> = rank.iter().map(|word| quoted(word)).collect();
        rank = ["/bin/sh", "-c", &format!("exec {}", line.join(" "))].map(ToOwned::to_owned).into();
    }
    words.extend(rank);
    let mut spec = pod::base(parts);
    pod::pull_secrets(parts, &mut spec);
    let mut command = vec!["mpirun".to_owned()];
    if let Some(service) = parts.service {
        command = service.steered(&command);
        service.place(plan, &mut spec);
    }
    let mut container = json!({
        "name": SCRIPT,
        "image": pod::image(parts),
        "command": pod::words(&command),
        "args": pod::words(&words),
        "env": env,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": pod::container_security(false),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    });
    if parts.service.is_some() {
        container["lifecycle"] = Service::steering();
    }
    spec.insert("containers".to_owned(), json!([container]));
    spec.insert("volumes".to_owned(), json!([{"name": "tmp", "emptyDir": {}}]));
    Value::Object(spec)
}

fn worker(parts: &Parts<'_>) -> Value {
    let mut command = vec!["/usr/sbin/sshd".to_owned()];
    if let Some(service) = parts.service {
        command = service.steered(&command);
    }
    let mut container = json!({
        "name": WORKER,
        "image": pod::image(parts),
        "workingDir": pod::WORK,
        "command": pod::words(&command),
        "args": ["-De", "-f", literal(&format!("{HOME}/.sshd_config"))],
        "readinessProbe": {"tcpSocket": {"port": SSH_PORT}, "periodSeconds": 2},
        "securityContext": pod::container_security(false),
        "volumeMounts": pod::mounts(parts),
    });
    if parts.service.is_some() {
        container["lifecycle"] = Service::steering();
    }
    if let Some(resources) = pod::node_resources(parts) {
        container["resources"] = resources;
    }
    pod::with_source(parts, container)
}
