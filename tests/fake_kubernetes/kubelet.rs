//! The fake kubelet: takes pods through their lives as a real one does, with containers that are real processes or that a test plays.

use std::{
    collections::HashMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::SecondsFormat;
use estimatord::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    logs::Logs,
    process::{self, Running},
    store::{Store, is_deleted, name_of},
};

/// How the containers of a test run.
#[derive(Clone, Debug, Default)]
pub struct Plays {
    /// What a container does by its name, instead of running: lines of its log, and its exit code; one without a code runs until it
    /// is told to end, and ends with 143.
    pub scripted: HashMap<&'static str, Play>,
    /// Images that cannot be pulled.
    pub missing_images: Vec<String>,
    /// No node has room: this is what the scheduler says.
    pub unschedulable: Option<String>,
    /// Directory of a claim.
    pub claims: HashMap<String, PathBuf>,
}

/// What a container does.
#[derive(Clone, Debug, Default)]
pub struct Play {
    pub lines: Vec<&'static str>,
    pub exit_code: Option<i32>,
    /// It waits for ever with this reason and message.
    pub waits: Option<(&'static str, &'static str)>,
    /// It cannot be started, with this reason and message.
    pub start_error: Option<&'static str>,
}

pub struct Kubelet {
    pub store: Arc<Store>,
    pub logs: Arc<Logs>,
    pub plays: Arc<Mutex<Plays>>,
    pub directory: PathBuf,
    /// The program of the service, which every image has here.
    pub service_program: PathBuf,
    /// A directory of further programs that every image has.
    pub programs: PathBuf,
    /// Ends containers that a test plays, by pod and container: the exit code.
    pub told: watch::Sender<HashMap<(String, String), i32>>,
}

fn timestamp() -> String {
    SystemClock.now().to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// How a container is, as its status has it.
fn set_state(store: &Store, pod: &str, list: &str, name: &str, state: Value) {
    store.update("pods", pod, |pod| {
        if !pod["status"][list].is_array() {
            pod["status"][list] = json!([]);
        }
        let ready = !state["running"].is_null();
        let status = json!({"name": name, "state": state, "ready": ready, "restartCount": 0, "image": "", "imageID": ""});
        let Some(all) = pod["status"][list].as_array_mut() else { return };
        match all.iter_mut().find(|one| one["name"] == name) {
            Some(one) => *one = status,
            None => all.push(status),
        }
    });
}

fn set_phase(store: &Store, pod: &str, phase: &str) {
    store.update("pods", pod, |pod| {
        pod["status"]["phase"] = json!(phase);
        let ready = if phase == "Running" { "True" } else { "False" };
        let scheduled = json!({"type": "PodScheduled", "status": "True"});
        let kept = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let others = kept.into_iter().filter(|one| one["type"] != "Ready" && one["type"] != "PodScheduled");
        let mut conditions: Vec<Value> = others.collect();
        conditions.extend([scheduled, json!({"type": "Ready", "status": ready})]);
        pod["status"]["conditions"] = json!(conditions);
    });
}

/// A container that runs, really or as a test plays it.
enum Container {
    Real(Box<Running>),
    Played,
}

impl Kubelet {
    /// Takes one pod through its life.
    pub async fn run(self: Arc<Self>, pod: Value) {
        let name = name_of(&pod);
        if !self.schedule(&name).await {
            self.store.remove("pods", &name);
            return;
        }
        let directory = self.directory.join(&name);
        fs::create_dir_all(&directory).unwrap();
        let ended = self.containers(&name, &pod).await;
        let _ = fs::remove_dir_all(&directory);
        if ended.is_none() {
            set_phase(&self.store, &name, "Failed");
        }
        // What was deleted goes when its controller has seen how it ended: a finalizer sees to that.
        self.until_ending(&name).await;
        self.store
            .update("pods", &name, |pod| pod["metadata"]["annotations"]["kubelet/ended"] = json!("true"));
    }

    fn is_ending(&self, pod: &str) -> bool {
        self.store.get("pods", pod).is_none_or(|pod| is_deleted(&pod))
    }

    /// Waits until there is something new to look at.
    async fn until_ending(&self, pod: &str) {
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            if self.is_ending(pod) || changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn schedule(&self, name: &str) -> bool {
        let mut changes = self.store.changes();
        loop {
            changes.mark_unchanged();
            if self.is_ending(name) {
                return false;
            }
            let Some(said) = self.plays.lock().unwrap().unschedulable.clone() else { return true };
            let condition = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}]);
            let pod = self.store.update("pods", name, |pod| pod["status"]["conditions"] = condition);
            if let Some(pod) = pod
                && !self.store.list("events").iter().any(|event| event["involvedObject"]["name"] == name)
            {
                self.store.event(&pod, "Warning", "Pod", "FailedScheduling", &said);
            }
            if changes.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Runs all containers; none where the pod was deleted before its end.
    async fn containers(&self, name: &str, pod: &Value) -> Option<()> {
        set_phase(&self.store, name, "Pending");
        let grace = Duration::from_secs(pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30));
        let empty = Vec::new();
        let mut sidecars: Vec<(String, Container)> = Vec::new();
        let mut failed = false;
        for spec in pod["spec"]["initContainers"].as_array().unwrap_or(&empty) {
            let container = spec["name"].as_str().unwrap_or_default().to_owned();
            let Some(started) = self.start(name, pod, spec, "initContainerStatuses").await else {
                self.end_all(name, sidecars, "initContainerStatuses", Duration::from_secs(2)).await;
                return None;
            };
            if spec["restartPolicy"] == "Always" {
                let probe = &spec["startupProbe"]["exec"]["command"];
                if let Container::Real(running) = &started
                    && !probe.is_null()
                {
                    while !running.exec(probe).await {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                sidecars.push((container, started));
                continue;
            }
            let code =
                self.finish(name, &container, started, "initContainerStatuses", grace, &Value::Null).await;
            failed = code != 0;
            if failed {
                break;
            }
        }
        let mut codes = Vec::new();
        if !failed {
            let mut mains = Vec::new();
            for spec in pod["spec"]["containers"].as_array().unwrap_or(&empty) {
                let container = spec["name"].as_str().unwrap_or_default().to_owned();
                match self.start(name, pod, spec, "containerStatuses").await {
                    Some(started) => mains.push((
                        container,
                        started,
                        spec["lifecycle"]["preStop"]["exec"]["command"].clone(),
                    )),
                    None => {
                        self.end_all(name, sidecars, "initContainerStatuses", grace).await;
                        return None;
                    }
                }
            }
            set_phase(&self.store, name, "Running");
            for (container, started, hook) in mains {
                codes.push(self.finish(name, &container, started, "containerStatuses", grace, &hook).await);
            }
        }
        self.end_all(name, sidecars, "initContainerStatuses", grace.max(Duration::from_secs(2))).await;
        let succeeded = !failed && codes.iter().all(|code| *code == 0);
        set_phase(&self.store, name, if succeeded { "Succeeded" } else { "Failed" });
        Some(())
    }

    /// Starts a container when its image and its volumes are there; none where the pod is to end before that.
    async fn start(&self, pod: &str, spec: &Value, container: &Value, list: &str) -> Option<Container> {
        let name = container["name"].as_str().unwrap_or_default();
        let image = container["image"].as_str().unwrap_or_default().to_owned();
        let mut changes = self.store.changes();
        let mounts = loop {
            changes.mark_unchanged();
            if self.is_ending(pod) {
                return None;
            }
            let plays = self.plays.lock().unwrap().clone();
            let play = plays.scripted.get(name).cloned().unwrap_or_default();
            let waits = if plays.missing_images.contains(&image) {
                Some(("ImagePullBackOff", format!("Back-off pulling image \"{image}\"")))
            } else {
                play.waits.map(|(reason, message)| (reason, message.to_owned()))
            };
            match (waits, self.mounts(pod, &spec["spec"], container, &plays)) {
                (None, Ok(mounts)) => break mounts,
                (Some((reason, message)), _) => {
                    set_state(
                        &self.store,
                        pod,
                        list,
                        name,
                        json!({"waiting": {"reason": reason, "message": message}}),
                    );
                }
                (None, Err(missing)) => {
                    set_state(
                        &self.store,
                        pod,
                        list,
                        name,
                        json!({"waiting": {"reason": "ContainerCreating"}}),
                    );
                    let said = format!("MountVolume.SetUp failed for volume: secret \"{missing}\" not found");
                    let is_said =
                        self.store.list("events").iter().any(|event| event["message"] == said.as_str());
                    if let Some(object) = self.store.get("pods", pod).filter(|_| !is_said) {
                        self.store.event(&object, "Warning", "Pod", "FailedMount", &said);
                    }
                }
            }
            let _ = changes.changed().await;
        };
        let play = self.plays.lock().unwrap().scripted.get(name).cloned();
        self.logs.open(pod, name);
        if let Some(play) = play {
            if let Some(message) = play.start_error {
                let ended = json!({"exitCode": 128, "reason": "StartError", "message": message, "startedAt": "1970-01-01T00:00:00Z", "finishedAt": timestamp()});
                set_state(&self.store, pod, list, name, json!({"terminated": ended}));
            } else {
                set_state(&self.store, pod, list, name, json!({"running": {"startedAt": timestamp()}}));
            }
            for line in &play.lines {
                self.logs.line(pod, name, format!("{line}\n").as_bytes());
            }
            return Some(Container::Played);
        }
        let root = self.directory.join(pod).join(format!("root-{name}"));
        let mut running = process::start(
            pod,
            container,
            |name, key| self.secret(name, key),
            &root,
            &mounts,
            (&self.service_program, &self.programs),
            Arc::clone(&self.logs),
        );
        running.entered().await;
        set_state(&self.store, pod, list, name, json!({"running": {"startedAt": timestamp()}}));
        Some(Container::Real(Box::new(running)))
    }

    /// Waits for a container's end; tells it to end when the pod is to. Answers its exit code.
    async fn finish(
        &self,
        pod: &str,
        name: &str,
        container: Container,
        list: &str,
        grace: Duration,
        hook: &Value,
    ) -> i32 {
        let code = match container {
            Container::Played => self.played(pod, name).await,
            Container::Real(mut running) => {
                let mut kill_at: Option<Instant> = None;
                loop {
                    tokio::select! {
                        code = running.wait() => break code,
                        () = self.until_ending(pod), if kill_at.is_none() => {
                            kill_at = Some(Instant::now() + grace);
                            if !hook.is_null() {
                                running.exec(hook).await;
                            }
                            running.terminate();
                        }
                        () = tokio::time::sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => {
                            running.kill();
                            kill_at = Some(Instant::now() + Duration::from_secs(3600));
                        }
                    }
                }
            }
        };
        self.ended(pod, name, list, code);
        code
    }

    async fn played(&self, pod: &str, name: &str) -> i32 {
        let mut told = self.told.subscribe();
        let mut changes = self.store.changes();
        let key = (pod.to_owned(), name.to_owned());
        loop {
            // Before anything is looked at: what changes while it is looked at wakes this again.
            changes.mark_unchanged();
            let play = self.plays.lock().unwrap().scripted.get(name).cloned().unwrap_or_default();
            if play.start_error.is_some() {
                return 128;
            }
            if let Some(code) = play.exit_code.or_else(|| told.borrow_and_update().get(&key).copied()) {
                return code;
            }
            if self.is_ending(pod) {
                return 143;
            }
            tokio::select! {
                _ = told.changed() => {}
                _ = changes.changed() => {}
            }
        }
    }

    fn ended(&self, pod: &str, name: &str, list: &str, code: i32) {
        self.logs.close(pod, name);
        let reason = if code == 0 { "Completed" } else { "Error" };
        let message = if code == 0 { String::new() } else { self.logs.tail(pod, name) };
        self.store.update("pods", pod, |pod| {
            for one in pod["status"][list].as_array_mut().into_iter().flatten().filter(|one| one["name"] == name) {
                if one["state"]["terminated"].is_null() {
                    let started = one["state"]["running"]["startedAt"].clone();
                    one["state"] = json!({"terminated": {
                        "exitCode": code, "reason": reason, "message": message, "startedAt": started, "finishedAt": timestamp(),
                    }});
                    one["ready"] = json!(false);
                }
            }
        });
    }

    /// Ends sidecars in the reverse order of their start, all within the grace.
    async fn end_all(&self, pod: &str, sidecars: Vec<(String, Container)>, list: &str, grace: Duration) {
        let kill_at = Instant::now() + grace;
        for (name, container) in sidecars.into_iter().rev() {
            let code = match container {
                Container::Played => self
                    .plays
                    .lock()
                    .unwrap()
                    .scripted
                    .get(name.as_str())
                    .and_then(|play| play.exit_code)
                    .unwrap_or(0),
                Container::Real(mut running) => {
                    running.terminate();
                    tokio::select! {
                        code = running.wait() => code,
                        () = tokio::time::sleep_until(kill_at) => {
                            running.kill();
                            running.wait().await
                        }
                    }
                }
            };
            self.ended(pod, &name, list, code);
        }
    }

    /// A part of a secret that is there.
    fn secret(&self, name: &str, key: &str) -> String {
        let object = self.store.get("secrets", name).unwrap_or_else(|| panic!("there is no secret {name}"));
        let data = object["data"][key].as_str().unwrap_or_else(|| panic!("{name} has no {key}"));
        String::from_utf8(BASE64_STANDARD.decode(data).unwrap()).unwrap()
    }

    /// Where each of a container's volumes is on this machine; the name of a secret that is missing.
    fn mounts(
        &self,
        pod: &str,
        spec: &Value,
        container: &Value,
        plays: &Plays,
    ) -> Result<Vec<(PathBuf, String)>, String> {
        for variable in container["env"].as_array().into_iter().flatten() {
            if let Some(secret) = variable["valueFrom"]["secretKeyRef"]["name"].as_str() {
                self.store.get("secrets", secret).ok_or_else(|| secret.to_owned())?;
            }
        }
        let mut mounts = Vec::new();
        for mount in container["volumeMounts"].as_array().into_iter().flatten() {
            let name = mount["name"].as_str().unwrap_or_default();
            let volume =
                spec["volumes"].as_array().into_iter().flatten().find(|volume| volume["name"] == name);
            let volume = volume.unwrap_or_else(|| panic!("{name} is no volume of {pod}"));
            let mut place = self.directory.join(pod).join("volumes").join(name);
            if let Some(claim) = volume["persistentVolumeClaim"]["claimName"].as_str() {
                place =
                    plays.claims.get(claim).unwrap_or_else(|| panic!("there is no claim {claim}")).clone();
            }
            fs::create_dir_all(&place).unwrap();
            if let Some(secret) = volume["secret"]["secretName"].as_str() {
                let object = self.store.get("secrets", secret).ok_or_else(|| secret.to_owned())?;
                for (key, value) in object["data"].as_object().into_iter().flatten() {
                    let value = BASE64_STANDARD.decode(value.as_str().unwrap_or_default()).unwrap();
                    fs::write(place.join(key), value).unwrap();
                }
            }
            if let Some(sub_path) = mount["subPath"].as_str() {
                place = place.join(sub_path);
                if !place.exists() {
                    fs::create_dir_all(&place).unwrap();
                }
            }
            mounts.push((place, mount["mountPath"].as_str().unwrap_or_default().to_owned()));
        }
        Ok(mounts)
    }
}
