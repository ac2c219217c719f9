//! The controllers behind the fake API server: jobs, the MPI operator, admission, the scheduler. Each looks at what there is and does
//! the next thing; the facts are those of a real cluster.

use chrono::TimeDelta;
use estimatord::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};

use super::store::{Propagation, Store, is_deleted, name_of, now, time, uid_of};

/// What the namespace lets in.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// The Pod Security standard `restricted` is enforced.
    pub restricted: bool,
    /// Every pod is over a quota, with this message.
    pub quota: Option<String>,
}

/// Why a pod may not be, under the Pod Security standard `restricted`.
pub fn violation(pod: &Value) -> Option<String> {
    let context = &pod["securityContext"];
    if context["runAsNonRoot"] != true || context["seccompProfile"]["type"] != "RuntimeDefault" {
        return Some("runAsNonRoot != true, seccompProfile".to_owned());
    }
    let allowed = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    for volume in pod["volumes"].as_array().into_iter().flatten() {
        let kinds = volume.as_object().into_iter().flatten().map(|(kind, _)| kind.as_str());
        if let Some(kind) = kinds.filter(|kind| *kind != "name").find(|kind| !allowed.contains(kind)) {
            return Some(format!("restricted volume types (volume uses {kind})"));
        }
    }
    let containers =
        ["containers", "initContainers"].into_iter().filter_map(|list| pod[list].as_array()).flatten();
    for container in containers {
        let context = &container["securityContext"];
        if context["allowPrivilegeEscalation"] != false || context["capabilities"]["drop"] != json!(["ALL"]) {
            return Some(format!(
                "allowPrivilegeEscalation != false, unrestricted capabilities ({})",
                container["name"]
            ));
        }
    }
    None
}

/// One look at everything.
pub fn reconcile(store: &Store, admission: &Admission) {
    store.collect_garbage();
    for job in store.list("jobs") {
        reconcile_job(store, admission, &job);
    }
    for job in store.list("mpijobs") {
        reconcile_mpi_job(store, admission, &job);
    }
    for pod in store.list("pods") {
        if is_deleted(&pod) && pod["metadata"]["annotations"]["kubelet/ended"] == "true" {
            store.remove("pods", &name_of(&pod));
        }
    }
}

fn owner(object: &Value) -> Value {
    json!([{
        "apiVersion": object["apiVersion"], "kind": object["kind"], "name": name_of(object), "uid": uid_of(object),
        "controller": true, "blockOwnerDeletion": true,
    }])
}

/// Makes a pod unless admission says no; then an event does (facts 3.7 and 4.8), once.
fn make_pod(
    store: &Store,
    admission: &Admission,
    parent: &Value,
    name: &str,
    labels: Value,
    template: &Value,
) -> bool {
    let kind = parent["kind"].as_str().unwrap_or_default();
    let denied = match (&admission.quota, violation(&template["spec"]).filter(|_| admission.restricted)) {
        (Some(quota), _) => Some(format!("pods \"{name}\" is forbidden: {quota}")),
        (None, Some(why)) => {
            Some(format!("pods \"{name}\" is forbidden: violates PodSecurity \"restricted:latest\": {why}"))
        }
        (None, None) => None,
    };
    if let Some(why) = denied {
        let said = |event: &Value| event["involvedObject"]["uid"] == parent["metadata"]["uid"];
        if !store.list("events").iter().any(said) {
            store.event(parent, "Warning", kind, "FailedCreate", &format!("Error creating: {why}"));
        }
        return false;
    }
    let mut all = template["metadata"]["labels"].clone();
    for (key, value) in labels.as_object().into_iter().flatten() {
        all[key] = value.clone();
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
        "metadata": {"name": name, "labels": all, "ownerReferences": owner(parent)},
        "status": {"phase": "Pending"},
    });
    store.create("pods", pod).is_ok()
}

fn condition(object: &Value, kind: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|one| one["type"] == kind && one["status"] == "True"))
}

fn set_condition(object: &mut Value, kind: &str, status: &str, reason: &str, message: &str) {
    let new = json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now()});
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return };
    match conditions.iter_mut().find(|one| one["type"] == kind) {
        Some(one) if one["status"] == status => {}
        Some(one) => *one = new,
        None => conditions.push(new),
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

fn disrupted(pod: &Value) -> bool {
    condition(pod, "DisruptionTarget")
}

fn reconcile_job(store: &Store, admission: &Admission, job: &Value) {
    let name = name_of(job);
    if is_deleted(job) || condition(job, "Complete") || condition(job, "Failed") {
        return;
    }
    let of_job = |pod: &Value| pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == name.as_str();
    let pods: Vec<Value> = store.list("pods").into_iter().filter(of_job).collect();
    let delete_pods = |pods: &[Value]| {
        for pod in pods.iter().filter(|pod| !is_deleted(pod) && !is_over(pod)) {
            let _ = store.delete("pods", &name_of(pod), Propagation::Background, None);
        }
    };
    if job["spec"]["suspend"] == true {
        // Fact 3.10.
        delete_pods(&pods);
        store.update("jobs", &name, |job| {
            set_condition(job, "Suspended", "True", "JobSuspended", "Job suspended");
            job["status"]["active"] = json!(0);
            if let Some(status) = job["status"].as_object_mut() {
                status.remove("startTime");
            }
        });
        return;
    }
    let fail = |reason: &str, message: &str| {
        // Fact 3.4: the pods are still ending when the target is known.
        delete_pods(&pods);
        store.update("jobs", &name, |job| set_condition(job, "FailureTarget", "True", reason, message));
        let left = pods.iter().any(|pod| !is_over(pod) && store.get("pods", &name_of(pod)).is_some());
        if !left {
            store.update("jobs", &name, |job| {
                set_condition(job, "Failed", "True", reason, message);
                job["status"]["failed"] = json!(1);
                job["status"]["active"] = json!(0);
            });
        }
    };
    if let Some(target) = job["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["type"] == "FailureTarget")
    {
        let (reason, message) = (target["reason"].clone(), target["message"].clone());
        return fail(reason.as_str().unwrap_or_default(), message.as_str().unwrap_or_default());
    }
    let started = time(&job["status"]["startTime"]);
    let deadline = job["spec"]["activeDeadlineSeconds"].as_i64().map(TimeDelta::seconds);
    if let (Some(started), Some(deadline)) = (started, deadline)
        && SystemClock.now() - started >= deadline
    {
        return fail("DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if pods.iter().any(|pod| pod["status"]["phase"] == "Succeeded") {
        if !condition(job, "SuccessCriteriaMet") {
            // Fact 3.5: for a moment nothing is active and nothing is said.
            store.update("jobs", &name, |job| {
                job["status"]["active"] = json!(0);
                set_condition(
                    job,
                    "SuccessCriteriaMet",
                    "True",
                    "CompletionsReached",
                    "Reached expected number of succeeded pods",
                );
            });
            return;
        }
        store.update("jobs", &name, |job| {
            job["status"]["succeeded"] = json!(1);
            job["status"]["completionTime"] = json!(now());
            set_condition(
                job,
                "Complete",
                "True",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            );
        });
        return;
    }
    let rules = job["spec"]["podFailurePolicy"]["rules"].as_array().cloned().unwrap_or_default();
    let action = rules
        .iter()
        .find(|rule| rule["onPodConditions"][0]["type"] == "DisruptionTarget")
        .map(|rule| rule["action"].clone());
    let failed: Vec<&Value> = pods.iter().filter(|pod| pod["status"]["phase"] == "Failed").collect();
    if let Some(pod) = failed.iter().find(|pod| disrupted(pod))
        && action == Some(json!("FailJob"))
    {
        let message = format!(
            "Pod runs/{} has condition DisruptionTarget matching FailJob rule at index 0",
            name_of(pod)
        );
        return fail("PodFailurePolicy", &message);
    }
    let counted = failed.iter().filter(|pod| !disrupted(pod) || action != Some(json!("Ignore"))).count();
    // A pod that a person deleted is counted too (fact 3.8).
    let vanished = job["status"]["active"] == 1 && pods.is_empty();
    let limit = job["spec"]["backoffLimit"].as_u64().unwrap_or(6);
    if counted as u64 > limit || (vanished && limit == 0) {
        return fail("BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if pods.iter().all(|pod| is_over(pod) && disrupted(pod)) {
        let pod = format!("{name}-{}", &uuid::Uuid::new_v4().simple().to_string()[..5]);
        let labels = json!({"batch.kubernetes.io/job-name": name, "job-name": name, "batch.kubernetes.io/controller-uid": uid_of(job)});
        let made = make_pod(store, admission, job, &pod, labels, &job["spec"]["template"]);
        store.update("jobs", &name, |job| {
            set_condition(job, "Suspended", "False", "JobResumed", "Job resumed");
            if job["status"]["startTime"].is_null() {
                job["status"]["startTime"] = json!(now());
            }
            // Fact 3.7: of a pod that is not let in the status says nothing.
            if made {
                job["status"]["active"] = json!(1);
            }
        });
    }
}

fn reconcile_mpi_job(store: &Store, admission: &Admission, job: &Value) {
    let name = name_of(job);
    let spec = &job["spec"];
    if is_deleted(job) || !job["status"]["completionTime"].is_null() {
        return;
    }
    if name.len() > 40 || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        // Fact 4.1.
        let said = |event: &Value| event["involvedObject"]["uid"] == job["metadata"]["uid"];
        if !store.list("events").iter().any(said) {
            store.event(
                job,
                "Warning",
                "MPIJob",
                "ValidationError",
                "Found validation errors: metadata.name: Invalid value",
            );
        }
        return;
    }
    let of_job = |pod: &Value, role: &str| {
        pod["metadata"]["labels"]["training.kubeflow.org/job-name"] == name.as_str()
            && pod["metadata"]["labels"]["training.kubeflow.org/job-role"] == role
    };
    let pods = store.list("pods");
    let workers: Vec<&Value> = pods.iter().filter(|pod| of_job(pod, "worker")).collect();
    if spec["runPolicy"]["suspend"] == true {
        for pod in &workers {
            let _ = store.delete("pods", &name_of(pod), Propagation::Background, None);
        }
        store.update("mpijobs", &name, |job| {
            set_condition(job, "Suspended", "True", "MPIJobSuspended", "MPIJob suspended")
        });
        return;
    }
    let labels = |role: &str| json!({"app": name, "training.kubeflow.org/job-name": name, "training.kubeflow.org/job-role": role});
    let replicas = &spec["mpiReplicaSpecs"];
    let count = replicas["Worker"]["replicas"].as_u64().unwrap_or(0);
    let launcher_name = format!("{name}-launcher");
    let launcher = store.get("jobs", &launcher_name);
    if launcher.is_none() {
        for index in (0..count)
            .filter(|index| !workers.iter().any(|pod| name_of(pod) == format!("{name}-worker-{index}")))
        {
            let pod = format!("{name}-worker-{index}");
            if !make_pod(store, admission, job, &pod, labels("worker"), &replicas["Worker"]["template"]) {
                return;
            }
        }
        store.update("mpijobs", &name, |job| {
            set_condition(job, "Created", "True", "MPIJobCreated", "MPIJob is created.");
            if job["status"]["startTime"].is_null() {
                job["status"]["startTime"] = json!(now());
            }
        });
        let failed = workers.iter().filter(|pod| pod["status"]["phase"] == "Failed").count();
        if failed > 0 {
            // Fact 4.3: and it waits for ever.
            store.update("mpijobs", &name, |job| {
                job["status"]["replicaStatuses"]["Worker"] = json!({"failed": failed})
            });
        }
        let ready = workers
            .iter()
            .filter(|pod| pod["status"]["phase"] == "Running" && condition(pod, "Ready"))
            .count();
        if ready as u64 == count {
            let mut template = replicas["Launcher"]["template"].clone();
            for (key, value) in labels("launcher").as_object().into_iter().flatten() {
                template["metadata"]["labels"][key] = value.clone();
            }
            let launcher = json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": {"name": launcher_name, "labels": {"app": name}, "ownerReferences": owner(job)},
                "spec": {"backoffLimit": spec["runPolicy"]["backoffLimit"], "template": template,
                         "activeDeadlineSeconds": spec["runPolicy"]["activeDeadlineSeconds"]},
            });
            let _ = store.create("jobs", launcher);
            store.update("mpijobs", &name, |job| {
                set_condition(job, "Running", "True", "MPIJobRunning", "MPIJob is running.")
            });
        }
        return;
    }
    // Fact 4.2: said, and not the end.
    if workers.iter().any(|pod| pod["status"]["phase"] == "Failed" && disrupted(pod)) {
        store.update("mpijobs", &name, |job| {
            set_condition(job, "Failed", "True", "MPIJobEvicted", "1/2 workers are evicted")
        });
    }
    let Some(launcher) = launcher else { return };
    let (succeeded, failed) = (condition(&launcher, "Complete"), condition(&launcher, "Failed"));
    if !succeeded && !failed {
        return;
    }
    store.update("mpijobs", &name, |job| {
        set_condition(job, "Running", "False", "MPIJobRunning", "");
        if succeeded {
            set_condition(job, "Failed", "False", "MPIJobSucceeded", "");
            set_condition(job, "Succeeded", "True", "MPIJobSucceeded", "MPIJob successfully completed.");
        } else {
            // Fact 4.7: the pod's reason comes behind the slash, mostly none.
            set_condition(
                job,
                "Failed",
                "True",
                "BackoffLimitExceeded/",
                "Job has reached the specified backoff limit",
            );
        }
        job["status"]["completionTime"] = json!(now());
    });
    if spec["runPolicy"]["cleanPodPolicy"] == "All" || spec["runPolicy"]["cleanPodPolicy"] == "Running" {
        for pod in workers.iter().filter(|pod| !is_deleted(pod)) {
            let _ = store.delete("pods", &name_of(pod), Propagation::Background, None);
        }
    }
}
