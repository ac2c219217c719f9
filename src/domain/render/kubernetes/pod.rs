//! What pods are made of.

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{
    PULL_SECRET, Parts, SOURCE_CLAIM, literal,
    service::{self, CACHE},
};
use crate::domain::{
    environment::EnvironmentKind,
    kubernetes::PACKAGES,
    plan::{InputMode, Launcher},
    render::{resources::resources, shell::quoted},
    staging,
};

/// The working directory: a copy of the source files.
pub(super) const WORK: &str = "/work";
/// Where the packages are installed.
const ENVIRONMENT: &str = "/environment";
/// Stands in where a definition wants no container, which a pod cannot be without.
const PLAIN_IMAGE: &str = "python:3.11";
/// The user of every container: any but root.
const USER: u64 = 1000;

pub(super) fn image(parts: &Parts<'_>) -> String {
    let environment = &parts.subject.plan.environment;
    if let Some(image) = parts.service.and_then(|service| service.image(parts.subject.plan)) {
        return image;
    }
    match &environment.image {
        Some(image) => image.clone(),
        None if environment.container.base_dockerfile.is_some() => format!("{}:latest", parts.name),
        None => PLAIN_IMAGE.to_owned(),
    }
}

pub(super) fn labels(parts: &Parts<'_>) -> Value {
    if let Some(service) = parts.service {
        return service.labels();
    }
    json!({"app.kubernetes.io/name": parts.name, "app.kubernetes.io/managed-by": "estimatord"})
}

pub(super) fn object_labels(parts: &Parts<'_>) -> Value {
    parts.service.map_or_else(|| labels(parts), |service| service.object_labels())
}

/// How many seconds after its start the cluster ends it.
pub(super) fn deadline(parts: &Parts<'_>) -> Option<u64> {
    let seconds = parts.subject.plan.max_run_duration_seconds?;
    Some(parts.service.map_or(seconds, |service| service.deadline(seconds)))
}

pub(super) fn annotations(parts: &Parts<'_>) -> Value {
    let plan = parts.subject.plan;
    json!({"estimatord/snapshot": plan.snapshot_id.as_str(), "estimatord/environment": plan.environment.hash})
}

/// The interpreter that runs the script.
pub(super) fn interpreter(parts: &Parts<'_>) -> String {
    let environment = &parts.subject.plan.environment;
    match environment.kind {
        EnvironmentKind::Managed => format!("{}/python/bin/python", directory(parts)),
        EnvironmentKind::UserManaged if parts.service.is_some() => {
            parts.service.map_or_else(String::new, |service| service.interpreter.to_owned())
        }
        EnvironmentKind::UserManaged => {
            environment.interpreter_path.clone().unwrap_or_else(|| "python3".to_owned())
        }
    }
}

/// Where the packages are installed: where they are kept for others, a place of their own for each image and each set of them.
fn directory(parts: &Parts<'_>) -> String {
    if !is_cached(parts) {
        return ENVIRONMENT.to_owned();
    }
    let environment = &parts.subject.plan.environment;
    let image: String =
        Sha256::digest(image(parts)).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{CACHE}/{}-{image}", parts.packages.key(environment))
}

/// Whether the packages are kept for others: not those that are made of the source tree.
fn is_cached(parts: &Parts<'_>) -> bool {
    parts.service.is_some_and(|service| service.settings.cache_claim.is_some()) && !parts.packages.local
}

/// The script and its arguments.
pub(super) fn script(parts: &Parts<'_>) -> Vec<String> {
    let plan = parts.subject.plan;
    let mut words = vec![plan.entry_script_word()];
    if parts.service.is_some() {
        words.extend(staging::arguments(plan, &service::area()));
        return words;
    }
    for (index, argument) in plan.arguments.iter().enumerate() {
        words.push(match (plan.data_argument(index), &plan.data.resume_from) {
            (Some(Some(input)), _) => parts.claims.input(input),
            (Some(None), Some(checkpoint)) => parts.claims.path(&checkpoint.datastore, &checkpoint.path),
            (Some(None), None) | (None, _) => argument.clone(),
        });
    }
    words
}

/// Variables as the definition wants them, those of the run and of its data included.
pub(super) fn variables(parts: &Parts<'_>) -> Vec<(String, String)> {
    let plan = parts.subject.plan;
    let mut list: Vec<(String, String)> = vec![("PYTHONUNBUFFERED".to_owned(), "1".to_owned())];
    let mut set = |name: &str, value: String| {
        list.retain(|(there, _)| there != name);
        list.push((name.to_owned(), value));
    };
    if parts.service.is_none() {
        for input in &plan.data.inputs {
            set(&input.variable, parts.claims.input(input));
        }
    }
    for variable in &plan.environment.environment_variables {
        set(&variable.name, variable.value.clone());
    }
    if let Some(service) = parts.service {
        let own =
            plan.environment.environment_variables.iter().find(|variable| variable.name == "PYTHONPATH");
        for (name, value) in staging::variables(plan, &service::area()) {
            set(&name, value);
        }
        for (name, value) in service.variables {
            // What the definition adds to the path of Python comes after what scripts are given.
            let own = own.filter(|own| own.name == *name);
            set(name, own.map_or_else(|| value.clone(), |own| format!("{value}:{}", own.value)));
        }
        return list;
    }
    set("AZUREML_RUN_ID", parts.name.clone());
    set("AZUREML_ARM_PROJECT_NAME", parts.name.clone());
    list
}

pub(super) fn env(variables: &[(String, String)]) -> Vec<Value> {
    variables.iter().map(|(name, value)| json!({"name": name, "value": literal(value)})).collect()
}

pub(super) fn words(words: &[String]) -> Value {
    words.iter().map(|word| Value::String(literal(word))).collect()
}

/// What the pod of the standard `restricted` has to say for each container.
pub(super) fn container_security(read_only: bool) -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// The resources of one node.
pub(super) fn node_resources(parts: &Parts<'_>) -> Option<Value> {
    let resources = resources(parts.subject);
    let mut all = Map::new();
    if let Some(service) = parts.service {
        let size = service.size(parts.subject.plan);
        let cpu = size.cores.map(|cores| ("cpu", json!(cores.to_string())));
        let memory = size.memory_mib.map(|mib| ("memory", json!(format!("{mib}Mi"))));
        let asked: Map<String, Value> =
            cpu.into_iter().chain(memory).map(|(name, value)| (name.to_owned(), value)).collect();
        if !asked.is_empty() {
            all.insert("requests".to_owned(), Value::Object(asked));
        }
        if resources.gpus > 0 {
            all.insert("limits".to_owned(), json!({"nvidia.com/gpu": resources.gpus.to_string()}));
        }
        return (!all.is_empty()).then_some(Value::Object(all));
    }
    if let Some((cpus, memory)) = resources.size {
        all.insert("requests".to_owned(), json!({"cpu": cpus.to_string(), "memory": format!("{memory}Mi")}));
    }
    if resources.gpus > 0 {
        all.insert("limits".to_owned(), json!({"nvidia.com/gpu": resources.gpus.to_string()}));
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

/// Docker's sizes are binary, in the way of Kubernetes `Ki`, `Mi`, `Gi`.
fn quantity(shm_size: &str) -> String {
    let digits = shm_size.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match shm_size[digits.len()..].to_ascii_lowercase().as_str() {
        "k" => "Ki",
        "m" => "Mi",
        "g" => "Gi",
        _ => "",
    };
    format!("{digits}{unit}")
}

pub(super) fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

/// Where the container that runs the script has its volumes.
pub(super) fn mounts(parts: &Parts<'_>) -> Value {
    let environment = &parts.subject.plan.environment;
    let mut list = vec![mount("work", WORK), mount("tmp", "/tmp")];
    if environment.kind == EnvironmentKind::Managed {
        list.push(environment_mount(parts));
    }
    if environment.shm_size.is_some() {
        list.push(mount("shm", "/dev/shm"));
    }
    if let Some(service) = parts.service {
        list.extend(service.mounts(parts.subject.plan));
        return Value::Array(list);
    }
    for (index, claim) in parts.claims.list.iter().enumerate() {
        let name = format!("data-{index}");
        let mut whole = mount(&name, &claim.mount);
        whole["readOnly"] = Value::Bool(claim.read_only);
        list.push(whole);
        for input in parts.claims.placed.iter().filter(|input| input.datastore == claim.datastore) {
            let mut part = mount(&name, input.path_on_compute.as_deref().unwrap_or_default());
            if !input.path.is_empty() {
                part["subPath"] = json!(input.path.trim_start_matches('/'));
            }
            part["readOnly"] = Value::Bool(input.mode != InputMode::Upload);
            list.push(part);
        }
    }
    Value::Array(list)
}

fn environment_mount(parts: &Parts<'_>) -> Value {
    if is_cached(parts) { mount("cache", CACHE) } else { mount("environment", ENVIRONMENT) }
}

fn volumes(parts: &Parts<'_>) -> Value {
    let environment = &parts.subject.plan.environment;
    let mut list = vec![json!({"name": "work", "emptyDir": {}}), json!({"name": "tmp", "emptyDir": {}})];
    match parts.service {
        Some(service) => list.extend(service.volumes()),
        None => list.insert(
            0,
            json!({"name": "source", "persistentVolumeClaim": {"claimName": SOURCE_CLAIM, "readOnly": true}}),
        ),
    }
    if environment.kind == EnvironmentKind::Managed && !is_cached(parts) {
        list.push(json!({"name": "environment", "emptyDir": {}}));
    }
    if let Some(size) = &environment.shm_size {
        list.push(json!({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(size)}}));
    }
    if parts.service.is_some() {
        return Value::Array(list);
    }
    for (index, claim) in parts.claims.list.iter().enumerate() {
        let source = json!({"claimName": claim.name, "readOnly": claim.read_only});
        list.push(json!({"name": format!("data-{index}"), "persistentVolumeClaim": source}));
    }
    Value::Array(list)
}

/// A pod without its containers: what every pod of a run has in common.
pub(super) fn base(parts: &Parts<'_>) -> Map<String, Value> {
    let mut pod = Map::new();
    let mut set = |name: &str, value: Value| pod.insert(name.to_owned(), value);
    // That of the replicas counts for an MPIJob, and its operator warns of another one here.
    if parts.subject.plan.launcher == Launcher::Single {
        set("restartPolicy", json!("Never"));
    }
    set("automountServiceAccountToken", json!(false));
    set("enableServiceLinks", json!(false));
    let grace = parts.service.map_or(30, |service| service.termination_seconds());
    set("terminationGracePeriodSeconds", json!(grace));
    set(
        "securityContext",
        json!({
            "runAsNonRoot": true,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }),
    );
    pod
}

pub(super) fn pull_secrets(parts: &Parts<'_>, pod: &mut Map<String, Value>) {
    if parts.subject.plan.environment.container.registry_username.is_some() {
        let own = parts.service.map(|service| service.registry_secret());
        let name = own.unwrap_or_else(|| PULL_SECRET.to_owned());
        pod.insert("imagePullSecrets".to_owned(), json!([{ "name": name }]));
    }
}

/// A pod that runs the script, or ranks of it, in `container`.
pub(super) fn with_source(parts: &Parts<'_>, container: Value) -> Value {
    let mut pod = base(parts);
    pull_secrets(parts, &mut pod);
    let plan = parts.subject.plan;
    if let Some(service) = parts.service {
        service.place(plan, &mut pod);
        let mut first = vec![service.stage()];
        if plan.environment.kind == EnvironmentKind::Managed {
            first.push(installation(parts));
        }
        first.push(service.hand_over(plan));
        pod.insert("initContainers".to_owned(), Value::Array(first));
        pod.insert("containers".to_owned(), json!([container]));
        pod.insert("volumes".to_owned(), volumes(parts));
        return Value::Object(pod);
    }
    let one_off = plan.one_off_target.as_ref();
    if one_off.is_some_and(|target| target.vm_priority == "lowpriority") {
        let key = "kubernetes.azure.com/scalesetpriority";
        pod.insert("nodeSelector".to_owned(), json!({ key: "spot" }));
        let toleration = json!({"key": key, "operator": "Equal", "value": "spot", "effect": "NoSchedule"});
        pod.insert("tolerations".to_owned(), json!([toleration]));
    }
    let mut first = vec![source(parts)];
    if plan.environment.kind == EnvironmentKind::Managed {
        first.push(installation(parts));
    }
    pod.insert("initContainers".to_owned(), Value::Array(first));
    pod.insert("containers".to_owned(), json!([container]));
    pod.insert("volumes".to_owned(), volumes(parts));
    Value::Object(pod)
}

/// Copies the source files: the script may write beside them.
fn source(parts: &Parts<'_>) -> Value {
    let text = format!(
        "cp -R /source/. {WORK}/ && mkdir -p {WORK}/outputs {WORK}/logs && cd {WORK} && {{ test -f \"$0\" || {{ printf \
         'The claim {SOURCE_CLAIM} has no %s.\\n' \"$0\" >&2; exit 1; }}; }}"
    );
    json!({
        "name": "source",
        "image": image(parts),
        "command": ["sh", "-c", literal(&text), literal(&script(parts)[0])],
        "securityContext": container_security(true),
        "volumeMounts": [{"name": "source", "mountPath": "/source", "readOnly": true}, mount("work", WORK)],
    })
}

/// Installs the packages on top of what is in the image.
fn installation(parts: &Parts<'_>) -> Value {
    let packages = &parts.packages;
    let mut steps = vec!["set -e".to_owned()];
    let directory = directory(parts);
    let python = format!("{directory}/python");
    if is_cached(parts) {
        steps.extend(once_for_all(&directory));
    }
    if packages.conda.is_empty() {
        steps.push(format!(
            "\"$(command -v python3 || command -v python)\" -m venv --system-site-packages {python}"
        ));
    } else {
        let mut words = vec!["conda create --yes --prefix".to_owned(), python.clone()];
        if !packages.channels.is_empty() {
            words.push("--override-channels".to_owned());
        }
        for channel in &packages.channels {
            words.push(format!("--channel {}", quoted(channel)));
        }
        words.push(quoted(&packages.conda_python()));
        words.push("pip".to_owned());
        words.extend(packages.conda.iter().map(|package| quoted(package)));
        steps.push(words.join(" "));
    }
    let file = |name: &str, lines: &[String]| {
        let lines: Vec<String> = lines.iter().map(|line| quoted(line)).collect();
        format!("printf '%s\\n' {} >{name}", lines.join(" "))
    };
    if !packages.requirements.is_empty() {
        let mut options = String::new();
        if !packages.constraints.is_empty() {
            steps.push(file(&format!("{directory}/constraints.txt"), &packages.constraints));
            steps.push(format!("export PIP_CONSTRAINT={directory}/constraints.txt"));
            // Since 25.3 pip has an option for its builds, and does not take the variable over to them any more.
            steps.push(format!(
                "if {python}/bin/python -m pip install --help | grep -q -- --build-constraint; then export \
                 PIP_BUILD_CONSTRAINT={directory}/constraints.txt; fi"
            ));
            options = format!(" -c {directory}/constraints.txt");
        }
        // Lines about files are read from where the requirements file is.
        let folder = if packages.local { WORK } else { directory.as_str() };
        steps.push(format!("cd {folder}"));
        steps.push(file("estimatord-requirements.txt", &packages.requirements));
        steps.push(format!(
            "{python}/bin/python -m pip install --no-cache-dir{options} -r estimatord-requirements.txt"
        ));
    }
    if is_cached(parts) {
        steps.push(format!("touch {directory}/complete"));
    }
    let mut container = json!({
        "name": PACKAGES,
        "image": image(parts),
        "command": ["sh", "-c", literal(&steps.join("\n"))],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "securityContext": container_security(true),
        "volumeMounts": [environment_mount(parts), mount("work", WORK), mount("tmp", "/tmp")],
    });
    if parts.service.is_some() {
        container["terminationMessagePolicy"] = json!("FallbackToLogsOnError");
    }
    container
}

/// One installs at a time, and who finds it done is done. The lock is the open file's: it ends with the container, also with one
/// that is killed, and what that one left is removed.
fn once_for_all(directory: &str) -> Vec<String> {
    vec![
        format!("exec 9>{directory}.lock"),
        "\"$(command -v python3 || command -v python)\" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'"
            .to_owned(),
        format!("if test -f {directory}/complete; then echo 'installed before: {directory}'; exit; fi"),
        format!("rm -rf {directory}"),
        format!("mkdir -p {directory}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::quantity;

    #[test]
    fn sizes_are_binary() {
        for (docker, kubernetes) in
            [("2g", "2Gi"), ("512M", "512Mi"), ("64k", "64Ki"), ("1024b", "1024"), ("7", "7")]
        {
            assert_eq!(quantity(docker), kubernetes);
        }
    }
}
