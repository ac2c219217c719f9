//! What pods are made of.

use serde_json::{Map, Value, json};

use super::{PULL_SECRET, Parts, SOURCE_CLAIM, literal};
use crate::domain::{
    environment::EnvironmentKind,
    plan::InputMode,
    render::{resources::resources, shell::quoted},
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
    match &environment.image {
        Some(image) => image.clone(),
        None if environment.container.base_dockerfile.is_some() => format!("{}:latest", parts.name),
        None => PLAIN_IMAGE.to_owned(),
    }
}

pub(super) fn labels(parts: &Parts<'_>) -> Value {
    json!({"app.kubernetes.io/name": parts.name, "app.kubernetes.io/managed-by": "estimatord"})
}

pub(super) fn annotations(parts: &Parts<'_>) -> Value {
    let plan = parts.subject.plan;
    json!({"estimatord/snapshot": plan.snapshot_id.as_str(), "estimatord/environment": plan.environment.hash})
}

/// The interpreter that runs the script.
pub(super) fn interpreter(parts: &Parts<'_>) -> String {
    let environment = &parts.subject.plan.environment;
    match environment.kind {
        EnvironmentKind::Managed => format!("{ENVIRONMENT}/python/bin/python"),
        EnvironmentKind::UserManaged => {
            environment.interpreter_path.clone().unwrap_or_else(|| "python3".to_owned())
        }
    }
}

/// The script and its arguments.
pub(super) fn script(parts: &Parts<'_>) -> Vec<String> {
    let plan = parts.subject.plan;
    let mut words = vec![plan.entry_script_word()];
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
    for input in &plan.data.inputs {
        set(&input.variable, parts.claims.input(input));
    }
    for variable in &plan.environment.environment_variables {
        set(&variable.name, variable.value.clone());
    }
    set("AZUREML_RUN_ID", parts.name.clone());
    set("AZUREML_ARM_PROJECT_NAME", parts.name.clone());
    list
}

pub(super) fn env(variables: &[(String, String)]) -> Value {
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

fn mount(name: &str, path: &str) -> Value {
    json!({"name": name, "mountPath": path})
}

/// Where the container that runs the script has its volumes.
pub(super) fn mounts(parts: &Parts<'_>) -> Value {
    let environment = &parts.subject.plan.environment;
    let mut list = vec![mount("work", WORK), mount("tmp", "/tmp")];
    if environment.kind == EnvironmentKind::Managed {
        list.push(mount("environment", ENVIRONMENT));
    }
    if environment.shm_size.is_some() {
        list.push(mount("shm", "/dev/shm"));
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

fn volumes(parts: &Parts<'_>) -> Value {
    let environment = &parts.subject.plan.environment;
    let mut list = vec![
        json!({"name": "source", "persistentVolumeClaim": {"claimName": SOURCE_CLAIM, "readOnly": true}}),
        json!({"name": "work", "emptyDir": {}}),
        json!({"name": "tmp", "emptyDir": {}}),
    ];
    if environment.kind == EnvironmentKind::Managed {
        list.push(json!({"name": "environment", "emptyDir": {}}));
    }
    if let Some(size) = &environment.shm_size {
        list.push(json!({"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": quantity(size)}}));
    }
    for (index, claim) in parts.claims.list.iter().enumerate() {
        let source = json!({"claimName": claim.name, "readOnly": claim.read_only});
        list.push(json!({"name": format!("data-{index}"), "persistentVolumeClaim": source}));
    }
    Value::Array(list)
}

/// A pod without its containers: what every pod of a run has in common.
pub(super) fn base() -> Map<String, Value> {
    let mut pod = Map::new();
    let mut set = |name: &str, value: Value| pod.insert(name.to_owned(), value);
    set("restartPolicy", json!("Never"));
    set("automountServiceAccountToken", json!(false));
    set("enableServiceLinks", json!(false));
    set("terminationGracePeriodSeconds", json!(30));
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
        pod.insert("imagePullSecrets".to_owned(), json!([{ "name": PULL_SECRET }]));
    }
}

/// A pod that runs the script, or ranks of it, in `container`.
pub(super) fn with_source(parts: &Parts<'_>, container: Value) -> Value {
    let mut pod = base();
    pull_secrets(parts, &mut pod);
    let one_off = parts.subject.plan.one_off_target.as_ref();
    if one_off.is_some_and(|target| target.vm_priority == "lowpriority") {
        let key = "kubernetes.azure.com/scalesetpriority";
        pod.insert("nodeSelector".to_owned(), json!({ key: "spot" }));
        let toleration = json!({"key": key, "operator": "Equal", "value": "spot", "effect": "NoSchedule"});
        pod.insert("tolerations".to_owned(), json!([toleration]));
    }
    let mut first = vec![source(parts)];
    if parts.subject.plan.environment.kind == EnvironmentKind::Managed {
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
    let python = format!("{ENVIRONMENT}/python");
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
            steps.push(file(&format!("{ENVIRONMENT}/constraints.txt"), &packages.constraints));
            steps.push(format!("export PIP_CONSTRAINT={ENVIRONMENT}/constraints.txt"));
            // Since 25.3 pip has an option for its builds, and does not take the variable over to them any more.
            steps.push(format!(
                "if {python}/bin/python -m pip install --help | grep -q -- --build-constraint; then export \
                 PIP_BUILD_CONSTRAINT={ENVIRONMENT}/constraints.txt; fi"
            ));
            options = format!(" -c {ENVIRONMENT}/constraints.txt");
        }
        // Lines about files are read from where the requirements file is.
        let folder = if packages.local { WORK } else { ENVIRONMENT };
        steps.push(format!("cd {folder}"));
        steps.push(file("estimatord-requirements.txt", &packages.requirements));
        steps.push(format!(
            "{python}/bin/python -m pip install --no-cache-dir{options} -r estimatord-requirements.txt"
        ));
    }
    json!({
        "name": "packages",
        "image": image(parts),
        "command": ["sh", "-c", literal(&steps.join("\n"))],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "securityContext": container_security(true),
        "volumeMounts": [mount("environment", ENVIRONMENT), mount("work", WORK), mount("tmp", "/tmp")],
    })
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
