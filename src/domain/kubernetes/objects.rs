//! What of Kubernetes' objects bears on an attempt: read leniently, for there is more in them every year.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

/// Reads an object, or a list of them, from the API's JSON.
///
/// # Errors
/// When a member that is looked at is not what it should be.
pub fn read<T: DeserializeOwned>(value: Value) -> serde_json::Result<T> {
    serde_json::from_value(without_nulls(value))
}

/// A list or map that is empty is null where its owner's program did not make one.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().filter(|(_, member)| !member.is_null());
            members.map(|(name, member)| (name, without_nulls(member))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

/// What every object has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// What tells it from another one of the same name.
    pub uid: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub creation_timestamp: Option<DateTime<Utc>>,
    /// When somebody asked for its end; it is still there.
    pub deletion_timestamp: Option<DateTime<Utc>>,
}

/// Something that is said of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// What.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// Since when.
    pub last_transition_time: Option<DateTime<Utc>>,
}

/// The condition of a kind that is true.
#[must_use]
pub fn true_condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.kind == kind && condition.status == "True")
}

/// A `Job` or an `MPIJob`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Workload {
    /// Which one it is.
    pub metadata: Metadata,
    /// How it is.
    pub status: WorkloadStatus,
}

/// How a `Job` or an `MPIJob` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadStatus {
    /// What is said of it.
    pub conditions: Vec<Condition>,
    /// Since when it is not suspended.
    pub start_time: Option<DateTime<Utc>>,
    /// When it ended.
    pub completion_time: Option<DateTime<Utc>>,
    /// Of an `MPIJob`: how its launcher and its workers are.
    pub replica_statuses: BTreeMap<String, ReplicaStatus>,
}

impl WorkloadStatus {
    /// Whether nobody has said anything of it yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// How the launcher or the workers of an `MPIJob` are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ReplicaStatus {
    /// How many have failed.
    pub failed: u32,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Pod {
    /// Which one it is.
    pub metadata: Metadata,
    /// How it is.
    pub status: PodStatus,
}

/// How a pod is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`.
    pub phase: String,
    /// One word, where the kubelet ended it.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When a kubelet took it.
    pub start_time: Option<DateTime<Utc>>,
    /// What is said of it.
    pub conditions: Vec<Condition>,
    /// How its first containers are.
    pub init_container_statuses: Vec<ContainerStatus>,
    /// How its containers are.
    pub container_statuses: Vec<ContainerStatus>,
}

impl Pod {
    /// How a container is, if anything is known of it.
    #[must_use]
    pub fn container(&self, name: &str) -> Option<&ContainerStatus> {
        let status = &self.status;
        status.container_statuses.iter().chain(&status.init_container_statuses).find(|one| one.name == name)
    }

    /// How a container ended, if it did.
    #[must_use]
    pub fn terminated(&self, name: &str) -> Option<&Terminated> {
        self.container(name)?.state.terminated.as_ref()
    }

    /// Whether nothing of it runs, or ever will.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.status.phase.as_str(), "Succeeded" | "Failed")
    }
}

/// How a container is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerStatus {
    /// Which one.
    pub name: String,
    /// One of three.
    pub state: ContainerState,
}

/// How a container is: one of these, none where the kubelet has not said anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// It cannot run yet.
    pub waiting: Option<Waiting>,
    /// It runs.
    pub running: Option<Running>,
    /// It has ended.
    pub terminated: Option<Terminated>,
}

/// Why a container does not run yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Waiting {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// A container that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Running {
    /// Since when, in whole seconds.
    pub started_at: Option<DateTime<Utc>>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Terminated {
    /// Its exit code; 128 and the signal's number where a signal ended it.
    pub exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` and others.
    pub reason: String,
    /// What it left as its last words: the end of its log.
    pub message: String,
    /// When it began, in whole seconds.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended, in whole seconds.
    pub finished_at: Option<DateTime<Utc>>,
}

/// Something that happened to an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// One word.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub kind: String,
    /// To what.
    pub involved_object: Involved,
    /// When it last did; newer events have it in `event_time` alone.
    pub last_timestamp: Option<DateTime<Utc>>,
    /// When it did.
    pub event_time: Option<DateTime<Utc>>,
}

impl Event {
    /// When it happened last.
    #[must_use]
    pub fn at(&self) -> Option<DateTime<Utc>> {
        self.last_timestamp.max(self.event_time)
    }
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Involved {
    /// `Job`, `Pod` and so on.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_null_is_not_given() {
        let null = json!({"metadata": {"name": "a", "labels": null, "creationTimestamp": null},
            "status": {"conditions": null, "replicaStatuses": null, "startTime": null}});
        let workload: Workload = read(null).unwrap();
        assert_eq!((workload.metadata.name.as_str(), workload.status.is_empty()), ("a", true));
        let pod: Pod =
            read(json!({"metadata": {}, "status": {"containerStatuses": null, "phase": null}})).unwrap();
        assert_eq!(pod, Pod::default());
        assert!(read::<Pod>(json!({"status": {"phase": 5}})).is_err());
    }
}
