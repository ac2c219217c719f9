//! What an object has beside what is rendered for people, where this service makes it: the files come and go by the service, the
//! end of the script is in order, and the operator says where pods go.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{Parts, data, job, literal, mpi_job, name, pod};
use crate::domain::{
    environment::{EnvironmentKind, Substitution},
    ids::RunId,
    kubernetes::{
        ATTEMPT_LABEL, HAND_OVER, KubernetesSettings, LowPriority, MANAGED_BY, QUEUE_LABEL, RUN_LABEL,
        SCRIPT_TOKEN, STAGE, Toleration, object_name, registry_secret, token_secret,
    },
    node_size::NodeSize,
    plan::{InputMode, Launcher, Plan},
    render::{
        Subject,
        notes::Notes,
        packages::{self, Remark},
    },
    staging::{self, Area, Place, Root},
};

/// Where the service's own files of an attempt are in a pod: data, records, the module for scripts.
pub const HOME: &str = "/estimatord";
/// Where the token is, in the containers that need it and no others.
const TOKEN: &str = "/estimatord-token";
/// There once the container that hands over hears when it is to end.
const HAND_OVER_READY: &str = "/estimatord/.hand-over-ready";
/// Where the volume with installed packages is, if there is one.
pub(super) const CACHE: &str = "/environments";
/// How long what the script wrote may take on its way to the service after its end, in seconds.
pub const HAND_OVER_SECONDS: u64 = 600;
/// How long an object stays on the cluster after its end, with its logs, should nobody collect it: a week.
const KEPT_SECONDS: u64 = 7 * 24 * 60 * 60;
/// What fetching files and installing packages may take before the cluster ends it, in seconds: longer than the service waits.
const ALLOWANCE_SECONDS: u64 = 2 * 60 * 60;

/// Steers what a container runs: says so when there is nothing to run, passes TERM on to all of its processes, and kills them when
/// their grace is over. `sh` is the first process, which no signal ends or reaches that it has not asked for: it says when it has.
/// What waits for the grace is started by a process of its own, so that `$!` is the script's whenever TERM comes.
pub(super) const STEERED: &str = r#"grace=$1 script= stopped=
shift
all() { if [ $$ = 1 ]; then kill -s "$1" -- -1; else kill -s "$1" "$script"; fi 2>/dev/null; }
stop() { trap '' TERM; stopped=1; all TERM; ( { sleep "$grace"; all KILL; } & ); }
trap stop TERM
: >/tmp/.estimatord-steered
command -v "$1" >/dev/null 2>&1 || { printf 'estimatord: cannot start: there is no %s in the image\n' "$1" >&2; exit 127; }
[ -z "$stopped" ] || exit 143
"$@" &
script=$!
[ -z "$stopped" ] || all TERM
while wait "$script" 2>/dev/null; code=$?; kill -0 "$script" 2>/dev/null; do :; done
wait "$script" 2>/dev/null
last=$?
[ "$last" = 127 ] || code=$last
exit "$code""#;

/// Has the cluster wait with TERM until it can be heard: [`STEERED`] may not have got so far.
const HEARD: &str = "until test -e /tmp/.estimatord-steered; do sleep 1; done";

/// What this service adds to a plan.
#[derive(Clone, Debug)]
pub struct Service<'a> {
    /// The run.
    pub run_id: RunId,
    /// The attempt's number.
    pub attempt: u32,
    /// How the cluster is used.
    pub settings: &'a KubernetesSettings,
    /// The interpreter of an environment that is not installed by the pod.
    pub interpreter: &'a str,
    /// What the script is told of its run.
    pub variables: &'a [(String, String)],
    /// Between TERM and KILL, in seconds.
    pub grace_seconds: u64,
}

impl Service<'_> {
    pub(super) fn name(&self) -> String {
        object_name(self.run_id, self.attempt)
    }

    /// The image in place of the documented base image, where the operator has one.
    pub(super) fn image(&self, plan: &Plan) -> Option<String> {
        let version = plan.environment.framework_version.as_ref()?;
        let is_documented = plan.environment.image.as_deref().is_none_or(|image| {
            [crate::domain::framework::BASE_IMAGE_CPU, crate::domain::framework::BASE_IMAGE_GPU]
                .contains(&image)
        });
        self.settings.images.get(version).filter(|_| is_documented).cloned()
    }

    pub(super) fn labels(&self) -> Value {
        json!({
            "app.kubernetes.io/name": "estimatord-run",
            MANAGED_BY.0: MANAGED_BY.1,
            RUN_LABEL: self.run_id.to_string(),
            ATTEMPT_LABEL: self.attempt.to_string(),
        })
    }

    /// The labels of the object itself: by one more of them Kueue queues it.
    pub(super) fn object_labels(&self) -> Value {
        let mut labels = self.labels();
        if let Some(queue) = &self.settings.queue {
            labels[QUEUE_LABEL] = json!(queue);
        }
        labels
    }

    /// When the cluster itself ends what nobody looks after any more, in seconds after its start: the service's own clock counts
    /// from the script's beginning and comes first.
    pub(super) fn deadline(&self, seconds: u64) -> u64 {
        let waiting = u64::from(self.settings.pending_timeout());
        let whole = seconds.saturating_add(waiting).saturating_add(ALLOWANCE_SECONDS);
        // The longest that Kubernetes' integers have.
        whole.saturating_add(self.grace_seconds).min(i64::MAX.unsigned_abs())
    }

    pub(super) const fn kept_seconds() -> u64 {
        KEPT_SECONDS
    }

    /// What a node has to have.
    pub(super) fn size(&self, plan: &Plan) -> NodeSize {
        self.settings.vm_sizes.asked_by(plan)
    }

    /// How long a pod may take to end: the script's grace, and what is handed over after it.
    pub(super) const fn termination_seconds(&self) -> u64 {
        self.grace_seconds.saturating_add(HAND_OVER_SECONDS).saturating_add(5)
    }

    /// A command whose end is in order.
    pub(super) fn steered(&self, command: &[String]) -> Vec<String> {
        let mut words = ["sh", "-c", STEERED, "sh"].map(ToOwned::to_owned).to_vec();
        words.push(self.grace_seconds.to_string());
        words.extend_from_slice(command);
        words
    }

    /// What such a container has beside its command.
    pub(super) fn steering() -> Value {
        json!({"preStop": {"exec": {"command": ["sh", "-c", HEARD]}}})
    }

    /// Where pods go, and as whom.
    pub(super) fn place(&self, plan: &Plan, pod: &mut Map<String, Value>) {
        let settings = self.settings;
        if let Some(account) = &settings.service_account {
            pod.insert("serviceAccountName".to_owned(), json!(account));
        }
        let mut selector: BTreeMap<String, String> = self.size(plan).node_selector;
        if plan.is_low_priority()
            && let Some(LowPriority { priority_class, node_selector, tolerations }) = &settings.low_priority
        {
            selector.extend(node_selector.clone());
            if let Some(class) = priority_class {
                pod.insert("priorityClassName".to_owned(), json!(class));
            }
            if !tolerations.is_empty() {
                let list: Vec<Value> = tolerations.iter().map(toleration).collect();
                pod.insert("tolerations".to_owned(), json!(list));
            }
        }
        if !selector.is_empty() {
            pod.insert("nodeSelector".to_owned(), json!(selector));
        }
    }

    pub(super) fn registry_secret(&self) -> String {
        registry_secret(&self.name())
    }

    /// How the script reaches the service: its token is in a secret, of which it sees this part alone.
    pub(super) fn access(&self) -> [Value; 2] {
        let token = json!({"secretKeyRef": {"name": token_secret(&self.name()), "key": SCRIPT_TOKEN}});
        [
            json!({"name": "ESTIMATORD_URL", "value": literal(&self.settings.service_url)}),
            json!({"name": "ESTIMATORD_TOKEN", "valueFrom": token}),
        ]
    }

    fn token_mount() -> Value {
        json!({"name": "token", "mountPath": TOKEN, "readOnly": true})
    }

    /// Its volumes, beside the working directory and those of the environment.
    pub(super) fn volumes(&self) -> Vec<Value> {
        let mut list = vec![
            json!({"name": "home", "emptyDir": {}}),
            json!({"name": "token", "secret": {"secretName": token_secret(&self.name()), "defaultMode": 0o440}}),
        ];
        if let Some(claim) = &self.settings.cache_claim {
            list.push(json!({"name": "cache", "persistentVolumeClaim": {"claimName": claim}}));
        }
        list
    }

    /// Where the script has them.
    pub(super) fn mounts(&self, plan: &Plan) -> Vec<Value> {
        let mut list = vec![json!({"name": "home", "mountPath": HOME})];
        for input in &plan.data.inputs {
            if let Some(wanted) = staging::wanted_in_container(input) {
                let Place { root, path } = staging::place(input);
                let sub_path = match root {
                    Root::Data => format!("data/{path}"),
                    Root::Work => continue,
                };
                let read_only = matches!(input.mode, InputMode::Mount | InputMode::Direct);
                list.push(
                    json!({"name": "home", "mountPath": wanted, "subPath": sub_path, "readOnly": read_only}),
                );
            }
        }
        list
    }

    fn told(&self, subcommand: &str) -> Vec<String> {
        let run = self.run_id.to_string();
        let attempt = self.attempt.to_string();
        let token = format!("{TOKEN}/token");
        [
            "estimatord",
            subcommand,
            "--service",
            &self.settings.service_url,
            "--run",
            &run,
            "--attempt",
            &attempt,
            "--token-file",
            &token,
            "--work",
            pod::WORK,
            "--home",
            HOME,
        ]
        .map(ToOwned::to_owned)
        .to_vec()
    }

    /// Fetches source tree and data.
    pub(super) fn stage(&self) -> Value {
        json!({
            "name": STAGE,
            "image": self.settings.service_image,
            "command": pod::words(&self.told("stage")),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": pod::container_security(true),
            "volumeMounts": [pod::mount("work", pod::WORK), pod::mount("home", HOME), pod::mount("tmp", "/tmp"),
                             Self::token_mount()],
        })
    }

    /// Sends back what the script writes: a sidecar, which the cluster ends after the script's container.
    pub(super) fn hand_over(&self, plan: &Plan) -> Value {
        let mut command = self.told("hand-over");
        command.extend(["--part".to_owned(), "$(POD_NAME)".to_owned()]);
        command.extend(["--final-timeout".to_owned(), (HAND_OVER_SECONDS - 30).to_string()]);
        for input in plan.data.inputs.iter().filter(|input| input.mode == InputMode::Upload) {
            let Place { root, path } = staging::place(input);
            let root = match root {
                Root::Data => "home/data",
                Root::Work => "work",
            };
            command.extend(["--upload".to_owned(), format!("{root}/{path}")]);
        }
        let words = command.iter().map(|word| {
            // Of all that is written here this alone is to be replaced.
            Value::String(if word == "$(POD_NAME)" { word.clone() } else { literal(word) })
        });
        json!({
            "name": HAND_OVER,
            "image": self.settings.service_image,
            "restartPolicy": "Always",
            "command": words.collect::<Value>(),
            "env": [{"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
            // The script may be done before this can hear that it is to end.
            "startupProbe": {"exec": {"command": ["test", "-e", HAND_OVER_READY]}, "periodSeconds": 1, "failureThreshold": 120},
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "securityContext": pod::container_security(true),
            "volumeMounts": [pod::mount("work", pod::WORK), pod::mount("home", HOME), pod::mount("tmp", "/tmp"),
                             Self::token_mount()],
        })
    }
}

fn toleration(asked: &Toleration) -> Value {
    let mut toleration = Map::new();
    let operator = if asked.value.is_some() { "Equal" } else { "Exists" };
    toleration.insert("operator".to_owned(), json!(operator));
    let members = [("key", &asked.key), ("value", &asked.value), ("effect", &asked.effect)];
    for (name, value) in members {
        if let Some(value) = value {
            toleration.insert(name.to_owned(), json!(value));
        }
    }
    Value::Object(toleration)
}

/// Where the data of an attempt is in its pods.
#[must_use]
pub fn area() -> Area<'static> {
    Area { data: "/estimatord/data", work: pod::WORK, in_container: true }
}

/// The interpreter of what a pod installs; none where the image's own is used.
#[must_use]
pub fn installed_interpreter(subject: &Subject<'_>, service: &Service<'_>) -> Option<String> {
    let is_managed = subject.plan.environment.kind == EnvironmentKind::Managed;
    is_managed.then(|| pod::interpreter(&parts(subject, Some(service))))
}

/// The image of an attempt's pods.
#[must_use]
pub fn image(subject: &Subject<'_>, service: &Service<'_>) -> String {
    pod::image(&parts(subject, Some(service)))
}

/// What the pods install in place of what was asked for.
#[must_use]
pub fn substitutions(subject: &Subject<'_>) -> Vec<Substitution> {
    let remarks = parts(subject, None).packages.remarks.into_iter();
    remarks.map(|Remark { text, asked, used }| Substitution { asked, used, reason: text }).collect()
}

pub(super) fn parts<'a>(subject: &'a Subject<'a>, service: Option<&'a Service<'a>>) -> Parts<'a> {
    // What is not expressed is for people who are shown a text.
    let packages = packages::packages(subject, true, &mut Notes::new(subject));
    let name = service.map_or_else(|| name(subject), Service::name);
    Parts { subject, packages, claims: data::claims(&subject.plan.data), name, service }
}

/// The `Job` or `MPIJob` of an attempt.
#[must_use]
pub fn object(subject: &Subject<'_>, service: &Service<'_>) -> Value {
    let parts = parts(subject, Some(service));
    match subject.plan.launcher {
        Launcher::Single => job::manifest(&parts),
        Launcher::Mpi => mpi_job::manifest(&parts),
    }
}
