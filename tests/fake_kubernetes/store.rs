//! What the fake API server has: objects with versions and uids, and the history of their changes.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard},
};

use chrono::{DateTime, SecondsFormat, Utc};
use estimatord::clock::{Clock as _, SystemClock};
use serde_json::{Map, Value, json};
use tokio::sync::watch;

/// An answer that is no object: a `Status`, as a real server writes it.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
}

impl Refusal {
    pub fn body(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        })
    }
}

pub fn refusal(code: u16, reason: &'static str, message: impl Into<String>) -> Refusal {
    Refusal { code, reason, message: message.into() }
}

/// One change of one object.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub plural: String,
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: &'static str,
    pub object: Value,
}

#[derive(Debug, Default)]
pub struct Inner {
    version: u64,
    objects: BTreeMap<(String, String), Value>,
    history: VecDeque<Change>,
    /// Changes before this are forgotten: whoever asks for them is told that they are gone.
    oldest: u64,
}

/// The objects of one namespace.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    changed: watch::Sender<u64>,
}

impl Default for Store {
    fn default() -> Self {
        Self { inner: Mutex::default(), changed: watch::channel(0).0 }
    }
}

/// How what belongs to an object goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    Orphan,
    Background,
    Foreground,
}

pub fn now() -> String {
    SystemClock.now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

pub fn time(value: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|at| at.to_utc())
}

pub fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}

pub fn uid_of(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}

pub fn is_deleted(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

impl Store {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Told of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Has everybody look who waits for a change.
    pub fn poke(&self) {
        self.changed.send_modify(|_| {});
    }

    pub fn version(&self) -> u64 {
        self.lock().version
    }

    pub fn list(&self, plural: &str) -> Vec<Value> {
        let inner = self.lock();
        inner
            .objects
            .iter()
            .filter(|((kind, _), _)| kind == plural)
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(&(plural.to_owned(), name.to_owned())).cloned()
    }

    fn record(&self, inner: &mut Inner, plural: &str, kind: &'static str, mut object: Value) -> Value {
        inner.version += 1;
        let version = inner.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let key = (plural.to_owned(), name_of(&object));
        match kind {
            "DELETED" => drop(inner.objects.remove(&key)),
            _ => drop(inner.objects.insert(key, object.clone())),
        }
        let change = Change { version, plural: plural.to_owned(), kind, object: object.clone() };
        inner.history.push_back(change);
        self.changed.send_replace(version);
        object
    }

    pub fn create(&self, plural: &str, mut object: Value) -> Result<Value, Refusal> {
        let mut inner = self.lock();
        let name = name_of(&object);
        if let Some(there) = inner.objects.get(&(plural.to_owned(), name.clone())) {
            let being = if is_deleted(there) { "object is being deleted: " } else { "" };
            let message = format!("{being}{plural} \"{name}\" already exists");
            return Err(refusal(409, "AlreadyExists", message));
        }
        object["metadata"]["uid"] = json!(uuid::Uuid::new_v4().to_string());
        object["metadata"]["creationTimestamp"] = json!(now());
        object["metadata"]["namespace"] = json!("runs");
        Ok(self.record(&mut inner, plural, "ADDED", object))
    }

    /// Changes an object that is there; what changes nothing is no change.
    pub fn update(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) -> Option<Value> {
        let mut inner = self.lock();
        let there = inner.objects.get(&(plural.to_owned(), name.to_owned()))?.clone();
        let mut object = there.clone();
        change(&mut object);
        if object == there {
            return Some(there);
        }
        Some(self.record(&mut inner, plural, "MODIFIED", object))
    }

    /// Takes an object away for good.
    pub fn remove(&self, plural: &str, name: &str) {
        let mut inner = self.lock();
        if let Some(object) = inner.objects.get(&(plural.to_owned(), name.to_owned())).cloned() {
            self.record(&mut inner, plural, "DELETED", object);
        }
    }

    /// Asks for the end of an object (facts 3.1 and 3.2).
    pub fn delete(
        &self,
        plural: &str,
        name: &str,
        how: Propagation,
        uid: Option<&str>,
    ) -> Result<Value, Refusal> {
        let Some(object) = self.get(plural, name) else {
            return Err(refusal(404, "NotFound", format!("{plural} \"{name}\" not found")));
        };
        let own = uid_of(&object);
        if uid.is_some_and(|uid| uid != own) {
            let message = format!(
                "the UID in the precondition ({}) does not match the UID in record ({own})",
                uid.unwrap_or_default()
            );
            return Err(refusal(409, "Conflict", message));
        }
        match (plural, how) {
            // The kubelet removes a pod when it has ended it.
            ("pods", _) | (_, Propagation::Foreground) => {
                self.update(plural, name, |object| {
                    if !is_deleted(object) {
                        object["metadata"]["deletionTimestamp"] = json!(now());
                    }
                    if plural != "pods" {
                        object["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
                    }
                });
            }
            (_, Propagation::Orphan) => {
                for (plural, name) in self.dependents(&own) {
                    self.update(&plural, &name, |dependent| {
                        if let Some(metadata) = dependent["metadata"].as_object_mut() {
                            metadata.remove("ownerReferences");
                        }
                    });
                }
                self.remove(plural, name);
            }
            (_, Propagation::Background) => self.remove(plural, name),
        }
        Ok(object)
    }

    /// What belongs to an object.
    pub fn dependents(&self, uid: &str) -> Vec<(String, String)> {
        let inner = self.lock();
        let belongs = |object: &Value| {
            let owners = object["metadata"]["ownerReferences"].as_array();
            owners.is_some_and(|owners| owners.iter().any(|owner| owner["uid"] == uid))
        };
        let found = inner.objects.iter().filter(|(_, object)| belongs(object));
        found.map(|(key, _)| key.clone()).collect()
    }

    /// Takes away what belongs to nothing any more, and what was deleted in the foreground and has nothing left.
    pub fn collect_garbage(&self) {
        let (uids, all): (Vec<String>, Vec<(String, String, Value)>) = {
            let inner = self.lock();
            let uids = inner.objects.values().map(uid_of).collect();
            (uids, inner.objects.iter().map(|((p, n), o)| (p.clone(), n.clone(), o.clone())).collect())
        };
        for (plural, name, object) in all {
            let owners = object["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            let is_owned = owners.iter().any(|owner| uids.iter().any(|uid| owner["uid"] == uid.as_str()));
            let is_stray = !owners.is_empty() && !is_owned;
            let dependents = self.dependents(&uid_of(&object));
            let in_foreground =
                is_deleted(&object) && object["metadata"]["finalizers"] == json!(["foregroundDeletion"]);
            if in_foreground {
                if dependents.is_empty() {
                    self.remove(&plural, &name);
                }
                for (plural, name) in dependents {
                    let object = self.get(&plural, &name);
                    if object.is_some_and(|object| !is_deleted(&object)) {
                        let _ = self.delete(&plural, &name, Propagation::Foreground, None);
                    }
                }
            } else if is_stray && !is_deleted(&object) {
                let _ = self.delete(&plural, &name, Propagation::Background, None);
            }
        }
    }

    /// The changes of a kind after a version; an error where they are forgotten.
    pub fn since(&self, plural: &str, version: u64) -> Result<Vec<Change>, Refusal> {
        let inner = self.lock();
        if version < inner.oldest {
            return Err(refusal(
                410,
                "Expired",
                format!("too old resource version: {version} ({})", inner.oldest),
            ));
        }
        let after = |change: &&Change| change.plural == plural && change.version > version;
        Ok(inner.history.iter().filter(after).cloned().collect())
    }

    /// Forgets all changes, as etcd does after a while.
    pub fn forget_history(&self) {
        let mut inner = self.lock();
        inner.version += 1;
        inner.oldest = inner.version;
        inner.history.clear();
    }

    /// Writes an event.
    pub fn event(&self, object: &Value, kind: &str, of: &str, reason: &str, message: &str) {
        let name = format!("{}.{}", name_of(object), uuid::Uuid::new_v4().simple());
        let event = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": kind,
            "reason": reason, "message": message, "lastTimestamp": now(),
            "involvedObject": {"kind": of, "name": name_of(object), "uid": uid_of(object)},
        });
        let _ = self.create("events", event);
    }
}

/// Whether an object has the labels of a selector: `a=b`, `a`, joined by commas.
pub fn has_labels(object: &Value, selector: &str) -> bool {
    let none = Map::new();
    let labels = object["metadata"]["labels"].as_object().unwrap_or(&none);
    selector.split(',').filter(|part| !part.is_empty()).all(|part| match part.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|there| *there == value.trim_start_matches('=')),
        None => labels.contains_key(part),
    })
}

/// Whether an object has the fields of a selector: `type=Warning`, joined by commas.
pub fn has_fields(object: &Value, selector: &str) -> bool {
    selector.split(',').filter(|part| !part.is_empty()).all(|part| {
        let (path, value) = part.split_once('=').unwrap_or((part, ""));
        let found = path.split('.').fold(object, |value, part| &value[part]);
        found.as_str().unwrap_or_default() == value.trim_start_matches('=')
    })
}
