//! One view of a namespace for all attempts in it: kept up to date by watches, not by asking for each attempt.
//!
//! Pods are remembered when they are gone: how a script ended is in its pod, and an object that is deleted takes its pods along.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt as _;
use kube::{
    Api,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::{WatchStreamExt as _, watcher},
};
use serde::de::DeserializeOwned;
use tokio::{sync::Notify, task::JoinSet, time::Instant};
use tracing::{debug, warn};

use super::cluster::{Cluster, WATCH_SECONDS};
use crate::domain::kubernetes::{
    self, Event, MANAGED_BY, Pod, RUN_LABEL, SeenPod, Workload, attempt_name_in,
};

/// How long what is gone is remembered for somebody who did not look.
const MEMORY: Duration = Duration::from_secs(3600);
/// How long the view may be behind what was asked for.
const CATCH_UP: Duration = Duration::from_secs(5);
/// Warnings that are kept of each attempt: the latest.
const MAX_EVENTS: usize = 20;

/// What is known of one attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) object: Option<Workload>,
    pods: BTreeMap<String, SeenPod>,
    pub(super) events: Vec<Event>,
    /// By what watch its object is known.
    stream: Option<Stream>,
    gone_since: Option<Instant>,
}

impl Known {
    pub(super) fn pods(&self) -> Vec<SeenPod> {
        self.pods.values().cloned().collect()
    }

    /// Takes over what somebody asked for directly: the object, if there is one, and the pods that there are.
    pub(super) fn with(mut self, object: Option<Workload>, pods: Vec<Pod>) -> Self {
        self.object = object;
        let there: HashSet<String> = pods.iter().map(|pod| pod.metadata.name.clone()).collect();
        for (name, seen) in &mut self.pods {
            seen.gone |= !there.contains(name);
        }
        for pod in pods {
            self.pods.insert(pod.metadata.name.clone(), SeenPod { pod, gone: false });
        }
        self
    }
}

/// What is watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stream {
    Jobs,
    MpiJobs,
    Pods,
    Warnings,
}

#[derive(Debug, Default)]
struct State {
    attempts: HashMap<String, Known>,
    /// What was listed whole at least once, and has not failed since it last brought something.
    sound: HashSet<Stream>,
    /// What was seen in a list that is not complete yet.
    listed: HashMap<Stream, HashSet<String>>,
}

/// The view.
#[derive(Debug)]
pub(super) struct Watch {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    tasks: Mutex<JoinSet<()>>,
    cluster: Cluster,
    mpi: std::sync::Once,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nobody panics while holding it; and if: every entry is whole.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Starts to watch jobs, pods and warnings; it ends when this is dropped.
    pub(super) fn start(cluster: &Cluster) -> Self {
        let watch = Self {
            state: Arc::default(),
            changed: Arc::default(),
            tasks: Mutex::default(),
            cluster: cluster.clone(),
            mpi: std::sync::Once::new(),
        };
        let ours = format!("{}={},{RUN_LABEL}", MANAGED_BY.0, MANAGED_BY.1);
        let labelled = watcher::Config::default().labels(&ours).timeout(WATCH_SECONDS);
        watch.follow(Stream::Jobs, &GroupVersionKind::gvk("batch", "v1", "Job"), labelled.clone());
        watch.follow(Stream::Pods, &GroupVersionKind::gvk("", "v1", "Pod"), labelled);
        let warnings = watcher::Config::default().fields("type=Warning").timeout(WATCH_SECONDS);
        watch.follow(Stream::Warnings, &GroupVersionKind::gvk("", "v1", "Event"), warnings);
        watch
    }

    /// Watches MPIJobs too; not before there is one, for a cluster may not know them.
    pub(super) fn with_mpi_jobs(&self) {
        self.mpi.call_once(|| {
            let ours = format!("{}={},{RUN_LABEL}", MANAGED_BY.0, MANAGED_BY.1);
            let labelled = watcher::Config::default().labels(&ours).timeout(WATCH_SECONDS);
            let kind = GroupVersionKind::gvk("kubeflow.org", "v2beta1", "MPIJob");
            self.follow(Stream::MpiJobs, &kind, labelled);
        });
    }

    fn follow(&self, stream: Stream, kind: &GroupVersionKind, config: watcher::Config) {
        let resource = ApiResource::from_gvk(kind);
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.cluster.client().clone(), self.cluster.namespace(), &resource);
        let (state, changed) = (Arc::clone(&self.state), Arc::clone(&self.changed));
        let forever = async move {
            let mut events = Box::pin(watcher(api, config).default_backoff());
            while let Some(event) = events.next().await {
                let mut state = lock(&state);
                match event {
                    Ok(event) => state.take(stream, event),
                    Err(error) => {
                        if state.sound.remove(&stream) {
                            debug!("the watch of {stream:?} is interrupted: {error}");
                        }
                    }
                }
                drop(state);
                changed.notify_waiters();
            }
        };
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(forever);
    }

    /// What is known of an attempt, and whether the view is up to date; otherwise it has to be completed by asking.
    pub(super) fn known(&self, name: &str, is_mpi: bool) -> (Known, bool) {
        let state = lock(&self.state);
        let known = state.attempts.get(name).cloned().unwrap_or_default();
        let objects = if is_mpi { Stream::MpiJobs } else { Stream::Jobs };
        let is_sound = state.sound.contains(&objects) && state.sound.contains(&Stream::Pods);
        (known, is_sound)
    }

    /// What is known of an attempt once everything is that happened to its pods before `pods` were listed; what was known by then, if
    /// it does not come. A pod that is gone takes with it how its script ended, and the view may be a moment behind.
    pub(super) async fn caught_up(&self, name: &str, pods: &[Pod]) -> Known {
        let is_there = |name: &String| pods.iter().any(|pod| pod.metadata.name == *name);
        let until = Instant::now() + CATCH_UP;
        loop {
            let changed = self.changed.notified();
            let known = lock(&self.state).attempts.get(name).cloned().unwrap_or_default();
            let is_behind = known.pods.iter().any(|(name, seen)| !seen.gone && !is_there(name));
            if !is_behind || tokio::time::timeout_at(until, changed).await.is_err() {
                return known;
            }
        }
    }

    /// Forgets an attempt whose objects are removed.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.state).attempts.remove(name);
    }
}

impl State {
    fn take(&mut self, stream: Stream, event: watcher::Event<DynamicObject>) {
        match event {
            watcher::Event::Init => {
                self.listed.insert(stream, HashSet::new());
            }
            watcher::Event::InitApply(object) => {
                let name = object.metadata.name.clone().unwrap_or_default();
                self.listed.entry(stream).or_default().insert(name);
                self.apply(stream, &object);
            }
            watcher::Event::InitDone => {
                // What vanished while nobody watched is not told as deleted.
                let listed = self.listed.remove(&stream).unwrap_or_default();
                self.remove_others(stream, &listed);
                self.sound.insert(stream);
                self.prune();
            }
            watcher::Event::Apply(object) => {
                self.sound.insert(stream);
                self.apply(stream, &object);
            }
            watcher::Event::Delete(object) => {
                self.sound.insert(stream);
                // Its last words: a kubelet may have said how it ended just before.
                self.apply(stream, &object);
                self.remove(stream, &object.metadata.name.unwrap_or_default());
            }
        }
    }

    fn apply(&mut self, stream: Stream, object: &DynamicObject) {
        match stream {
            Stream::Jobs | Stream::MpiJobs => {
                let Some(workload) = read::<Workload>(object) else { return };
                let known = self.attempts.entry(workload.metadata.name.clone()).or_default();
                known.object = Some(workload);
                known.stream = Some(stream);
                known.gone_since = None;
            }
            Stream::Pods => {
                let Some(pod) = read::<Pod>(object) else { return };
                let name = pod.metadata.name.clone();
                let Some(attempt) = attempt_name_in(&name) else { return };
                let known = self.attempts.entry(attempt.to_owned()).or_default();
                known.pods.insert(name, SeenPod { pod, gone: false });
            }
            Stream::Warnings => {
                let Some(event) = read::<Event>(object) else { return };
                let Some(attempt) = attempt_name_in(&event.involved_object.name) else { return };
                let known = self.attempts.entry(attempt.to_owned()).or_default();
                if known.events.len() >= MAX_EVENTS {
                    known.events.remove(0);
                }
                known.events.push(event);
                if known.object.is_none() {
                    known.gone_since.get_or_insert_with(Instant::now);
                }
            }
        }
    }

    fn remove(&mut self, stream: Stream, name: &str) {
        match stream {
            Stream::Jobs | Stream::MpiJobs => {
                if let Some(known) = self.attempts.get_mut(name) {
                    known.object = None;
                    known.gone_since = Some(Instant::now());
                }
                self.prune();
            }
            Stream::Pods => {
                let known = attempt_name_in(name).and_then(|attempt| self.attempts.get_mut(attempt));
                if let Some(seen) = known.and_then(|known| known.pods.get_mut(name)) {
                    seen.gone = true;
                }
            }
            // What was said was said; the API server forgets it after an hour.
            Stream::Warnings => {}
        }
    }

    fn remove_others(&mut self, stream: Stream, listed: &HashSet<String>) {
        for (name, known) in &mut self.attempts {
            match stream {
                Stream::Jobs | Stream::MpiJobs => {
                    if known.stream == Some(stream) && known.object.is_some() && !listed.contains(name) {
                        known.object = None;
                        known.gone_since = Some(Instant::now());
                    }
                }
                Stream::Pods => {
                    for (name, seen) in &mut known.pods {
                        seen.gone |= !listed.contains(name);
                    }
                }
                Stream::Warnings => {}
            }
        }
    }

    fn prune(&mut self) {
        self.attempts.retain(|_, known| known.gone_since.is_none_or(|since| since.elapsed() < MEMORY));
    }
}

fn read<T: DeserializeOwned>(object: &DynamicObject) -> Option<T> {
    let read = serde_json::to_value(object).and_then(kubernetes::read);
    if let Err(error) = &read {
        warn!("an object of the cluster cannot be read: {error}");
    }
    read.ok()
}
