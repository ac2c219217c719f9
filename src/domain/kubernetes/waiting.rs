//! What an attempt waits for, in the cluster's words.

use super::{
    names::STAGE,
    objects::{Event, Pod, Waiting, Workload, true_condition},
};

/// What a container waits with while all is well.
const ORDINARY: [&str; 3] = ["", "ContainerCreating", "PodInitializing"];
/// Events that say why there is no pod, or why one does not begin.
const TELLING: [&str; 7] = [
    "FailedCreate",
    "ValidationError",
    "FailedScheduling",
    "FailedMount",
    "FailedAttachVolume",
    "FailedCreatePodSandBox",
    "MPIJobFailed",
];
/// Longer sentences are cut: they are shown in one line.
const MAX_CHARACTERS: usize = 500;

/// Why a container of a pod does not begin, if there is a reason that does not pass by itself in a moment.
#[must_use]
pub fn blocked_container(pod: &Pod) -> Option<String> {
    let status = &pod.status;
    let mut all = status.init_container_statuses.iter().chain(&status.container_statuses);
    all.find_map(|container| {
        let Waiting { reason, message } = container.state.waiting.as_ref()?;
        if ORDINARY.contains(&reason.as_str()) {
            return None;
        }
        let what = if container.name == STAGE { " (the service's own image)" } else { "" };
        Some(shortened(&sentence(&format!("{reason}{what}"), message)))
    })
}

/// Why no node has been found for a pod, in the scheduler's words.
#[must_use]
pub fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = &pod.status.conditions;
    let scheduled = conditions.iter().find(|condition| condition.kind == "PodScheduled")?;
    (scheduled.status == "False").then(|| shortened(&sentence(&scheduled.reason, &scheduled.message)))
}

/// What the latest telling event about the object or its pods says.
#[must_use]
pub fn told(events: &[Event]) -> Option<String> {
    let telling =
        events.iter().filter(|event| event.kind == "Warning" && TELLING.contains(&event.reason.as_str()));
    telling.max_by_key(|event| event.at()).map(|event| shortened(&sentence(&event.reason, &event.message)))
}

/// What an attempt waits for whose script has not begun; none where it only takes its time.
#[must_use]
pub fn waits_for(object: &Workload, pods: &[&Pod], events: &[Event]) -> Option<String> {
    if let Some(suspended) = true_condition(&object.status.conditions, "Suspended") {
        let said = sentence(&suspended.reason, &suspended.message);
        return Some(shortened(&format!("suspended until its queue admits it: {said}")));
    }
    let found = pods.iter().find_map(|pod| blocked_container(pod).or_else(|| unscheduled(pod)));
    found.or_else(|| told(events))
}

fn sentence(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", message) => message.to_owned(),
        (reason, "") => reason.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
