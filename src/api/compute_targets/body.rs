//! The body of `PUT /v1/compute-targets/{name}`: read member by member, so that everything wrong is said at once.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::backend;
use crate::{
    api::findings::{Members, nearest},
    domain::{
        compute_target::{
            Backend, ComputeTarget, ComputeTargetName, ComputeTargetType, Conda, Containers, Engine,
        },
        finding::Finding,
        project::{NoProject, Project},
    },
};

/// The largest cluster that Slurm is built for has fewer nodes; no machine has more GPUs.
const MAX_NODES: i64 = 100_000;
pub(super) const MAX_GPUS: i64 = 1024;
const MAX_TEXT_CHARACTERS: usize = 255;

const PRIORITIES: [&str; 2] = ["dedicated", "lowpriority"];
/// The spellings that are read besides the word itself.
const SYNONYMS: [(&str, ComputeTargetType); 2] =
    [("KubernetesCompute", ComputeTargetType::Kubernetes), ("AKS", ComputeTargetType::AksCompute)];

// It documents the body; `read` reads it.
/// A compute target as it is put.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 4,
    "vm_size": null, "vm_priority": null, "gpus_per_node": 0
}))]
pub struct ComputeTargetBody {
    /// Azure ML's word for it. `KubernetesCompute` is read as `Kubernetes`, `AKS` as `AksCompute`.
    #[serde(rename = "type")]
    pub kind: ComputeTargetType,
    /// How this service reaches it.
    pub backend: Backend,
    /// The most nodes that one run may ask for.
    #[schema(minimum = 1, maximum = 100_000, default = 1, required = false)]
    pub max_nodes: u32,
    /// The size of its nodes: on a cluster with an entry for it in `vm_sizes` what jobs ask for, elsewhere for information.
    #[schema(max_length = 255)]
    pub vm_size: Option<String>,
    /// `dedicated` or `lowpriority`: on a cluster whose backend says what low priority is (`low_priority_qos`, `low_priority`), the
    /// latter is that; elsewhere for information.
    pub vm_priority: Option<String>,
    /// How many GPUs each of its nodes has.
    #[schema(minimum = 0, maximum = 1024, default = 0, required = false)]
    pub gpus_per_node: u32,
    /// Which container runtime it has; `never` refuses definitions that name an image. A Slurm partition always has none.
    #[schema(default = "auto", required = false)]
    pub containers: Containers,
    /// Whether it has conda; `never` refuses definitions that ask for conda packages.
    #[schema(default = "auto", required = false)]
    pub conda: Conda,
    /// The projects that may see and use it; all when there are none.
    #[schema(required = false)]
    pub projects: Vec<String>,
}

/// Reads the body, or says everything that is wrong with it.
///
/// # Errors
/// With every finding.
pub(super) fn read(
    name: &ComputeTargetName,
    body: &Map<String, Value>,
) -> Result<ComputeTarget, Vec<Finding>> {
    let mut members = Members::new(body, "");
    if let Some(given) = members.text("name")
        && given != name.as_str()
    {
        let message = format!("the path names the target `{name}`; a name in the body must be the same");
        members.refuse("conflicting-parameters", "name", message, "leave `name` out of the body");
    }
    let kind = kind(&mut members);
    let mut inner = Vec::new();
    let backend = match members.object("backend") {
        Some(map) => {
            let mut nested = Members::new(map, "/backend");
            let backend = backend::read(&mut nested);
            inner = nested.finish();
            backend
        }
        None => {
            if body.get("backend").is_none_or(Value::is_null) {
                members.missing("backend", "an object such as {\"kind\": \"process\"}");
            }
            None
        }
    };
    members.findings.append(&mut inner);
    let max_nodes = members.integer("max_nodes", 1..=MAX_NODES).unwrap_or(1);
    let vm_size = short_text(&mut members, "vm_size");
    let vm_priority = short_text(&mut members, "vm_priority");
    if let Some(word) = &vm_priority
        && !PRIORITIES.contains(&word.as_str())
    {
        let message = "`vm_priority` must be `dedicated` or `lowpriority`";
        let fix = format!("write `{}`", nearest(word, &PRIORITIES).unwrap_or(PRIORITIES[0]));
        members.refuse("vm-priority-unknown", "vm_priority", message, fix);
    }
    let gpus_per_node = members.integer("gpus_per_node", 0..=MAX_GPUS).unwrap_or(0);
    let mut containers = word(&mut members, "containers", Containers::ALL.map(|word| (word.as_str(), word)));
    let conda = word(&mut members, "conda", Conda::ALL.map(|word| (word.as_str(), word)));
    if let Some(Engine::Slurm(_)) = backend.as_ref().map(|backend| &backend.engine) {
        fits_slurm(&mut members, kind, containers);
        containers = Containers::Never;
    }
    if let Some(Engine::Kubernetes(_)) = backend.as_ref().map(|backend| &backend.engine) {
        fits_kubernetes(&mut members, kind, containers);
    }
    let projects = projects(&mut members);
    let findings = members.finish();
    match (kind, backend) {
        (Some(kind), Some(backend)) if findings.is_empty() => Ok(ComputeTarget {
            name: name.clone(),
            kind,
            backend,
            max_nodes: u32::try_from(max_nodes).unwrap_or(1),
            vm_size,
            vm_priority,
            gpus_per_node: u32::try_from(gpus_per_node).unwrap_or(0),
            containers,
            conda,
            projects,
        }),
        _ => Err(findings),
    }
}

/// The projects that a target is for.
fn projects(members: &mut Members<'_>) -> Vec<Project> {
    let form = "a list of names of projects, such as [\"vision\"]";
    let mut projects: Vec<Project> = Vec::new();
    for entry in members.list("projects").into_iter().flatten() {
        match entry.as_str().map(str::parse) {
            Some(Ok(project)) if !projects.contains(&project) => projects.push(project),
            Some(Ok(_)) => {}
            Some(Err(why)) => {
                let why: NoProject = why;
                members.refuse(
                    "malformed-value",
                    "projects",
                    format!("`{entry}`: {why}"),
                    format!("write {form}"),
                );
            }
            None => members.refuse(
                "malformed-value",
                "projects",
                format!("`projects` must be {form}"),
                format!("write {form}"),
            ),
        }
    }
    projects
}

/// What only a target of another kind can be.
fn fits_slurm(members: &mut Members<'_>, kind: Option<ComputeTargetType>, containers: Containers) {
    if kind.is_some_and(|kind| kind != ComputeTargetType::AmlCompute) {
        let message = "a Slurm partition is a cluster: its type is `AmlCompute`";
        members.refuse("conflicting-parameters", "type", message, "write `AmlCompute`");
    }
    if matches!(containers, Containers::Docker | Containers::Podman) {
        let message = "jobs of Slurm are started as processes, not in containers";
        members.refuse("conflicting-parameters", "containers", message, "write `never`, or leave it out");
    }
}

/// Azure's words for a cluster of containers; `AmlCompute` is the one whose runs may have several nodes.
fn fits_kubernetes(members: &mut Members<'_>, kind: Option<ComputeTargetType>, containers: Containers) {
    use ComputeTargetType::{AksCompute, AmlCompute, Kubernetes};
    if kind.is_some_and(|kind| !matches!(kind, AksCompute | AmlCompute | Kubernetes)) {
        let message = "a Kubernetes cluster is of type `Kubernetes`, `AksCompute` or, where runs may have several nodes, `AmlCompute`";
        members.refuse("conflicting-parameters", "type", message, "write `AmlCompute`");
    }
    if containers != Containers::Auto {
        let message = "pods are containers, and which runtime starts them is the cluster's own";
        members.refuse("conflicting-parameters", "containers", message, "leave it out");
    }
}

fn kind(members: &mut Members<'_>) -> Option<ComputeTargetType> {
    let form = "one of Azure ML's words for compute, e.g. `AmlCompute`";
    let before = members.findings.len();
    let Some(word) = members.text("type") else {
        if members.findings.len() == before {
            members.missing("type", form);
        }
        return None;
    };
    let synonym = SYNONYMS.into_iter().find(|(text, _)| *text == word).map(|(_, kind)| kind);
    let found = ComputeTargetType::ALL.into_iter().find(|kind| kind.as_str() == word).or(synonym);
    if found.is_none() {
        let words = ComputeTargetType::ALL.map(ComputeTargetType::as_str);
        let fix = match nearest(word, &words) {
            Some(near) => format!("write `{near}`"),
            None => format!("write one of `{}`", words.join("`, `")),
        };
        members.refuse("compute-target-type-unknown", "type", format!("`type` must be {form}"), fix);
    }
    found
}

/// One of a few words; the default when none is given or what is given is refused.
fn word<T: Copy + Default, const N: usize>(
    members: &mut Members<'_>,
    name: &'static str,
    words: [(&'static str, T); N],
) -> T {
    let Some(given) = members.text(name).filter(|text| !text.is_empty()) else { return T::default() };
    if let Some((_, value)) = words.into_iter().find(|(word, _)| *word == given) {
        return value;
    }
    let known = words.map(|(word, _)| word);
    let form = format!("one of `{}`", known.join("`, `"));
    let fix =
        nearest(given, &known).map_or_else(|| format!("write {form}"), |near| format!("write `{near}`"));
    members.refuse("unknown-word", name, format!("`{name}` must be {form}"), fix);
    T::default()
}

/// A text of moderate length; the empty one counts as not given.
pub(super) fn short_text(members: &mut Members<'_>, name: &'static str) -> Option<String> {
    let text = members.text(name).filter(|text| !text.is_empty())?;
    if text.chars().count() > MAX_TEXT_CHARACTERS {
        let form = format!("at most {MAX_TEXT_CHARACTERS} characters");
        members.refuse("too-long", name, format!("`{name}` must have {form}"), format!("write {form}"));
        return None;
    }
    Some(text.to_owned())
}
