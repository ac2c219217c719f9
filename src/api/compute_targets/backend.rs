//! The `backend` of a compute target: read member by member, so that everything wrong is said at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    body::{MAX_GPUS, short_text},
    kubernetes,
};
use crate::{
    api::findings::{Members, error_at, escaped, kind_of, nearest},
    domain::{
        compute_target::{Backend, Engine, SlurmCommands, SlurmSettings},
        finding::Finding,
        node_size::{NodeSize, NodeSizes},
    },
};

/// More runs at once than one worker holds.
const MAX_CONCURRENT_RUNS: i64 = 10_000;
/// No machine has more of them.
const MAX_CORES: i64 = 65_536;
const MAX_MEMORY_MIB: i64 = i32::MAX as i64;
const MAX_SIZE_CHARACTERS: usize = 255;
const KINDS: [&str; 3] = ["process", "slurm", "kubernetes"];
const COMMANDS: [&str; 5] = ["sbatch", "squeue", "scancel", "scontrol", "sacct"];

/// Reads it; none when something is wrong with it, which the members then say.
pub(super) fn read(members: &mut Members<'_>) -> Option<Backend> {
    let engine = engine(members);
    let max_concurrent_runs = members
        .integer("max_concurrent_runs", 1..=MAX_CONCURRENT_RUNS)
        .and_then(|number| u32::try_from(number).ok());
    let python = short_text(members, "python");
    Some(Backend { engine: engine?, max_concurrent_runs, python })
}

fn engine(members: &mut Members<'_>) -> Option<Engine> {
    let before = members.findings.len();
    match members.text("kind") {
        Some("process") => Some(Engine::Process),
        Some("slurm") => slurm(members).map(|settings| Engine::Slurm(Box::new(settings))),
        Some("kubernetes") => {
            kubernetes::read(members).map(|settings| Engine::Kubernetes(Box::new(settings)))
        }
        Some(word) => {
            let fix = format!("write `{}`", nearest(word, &KINDS).unwrap_or(KINDS[0]));
            let message = format!("there are these kinds of backend: `{}`", KINDS.join("`, `"));
            members.refuse("backend-not-available", "kind", message, fix);
            None
        }
        None => {
            if members.findings.len() == before {
                members.missing("kind", "`process`, `slurm` or `kubernetes`");
            }
            None
        }
    }
}

fn slurm(members: &mut Members<'_>) -> Option<SlurmSettings> {
    let before = members.findings.len();
    let shared_dir = short_text(members, "shared_dir");
    match &shared_dir {
        None if members.findings.len() == before => {
            members.missing(
                "shared_dir",
                "the absolute path of a directory that the service and every node see",
            );
        }
        Some(path) if !is_plain_path(path) => {
            let message = "`shared_dir` must be an absolute path without `..`, spaces at its ends or control characters: \
                           the same on the service's machine and on every node";
            members.refuse("invalid-path", "shared_dir", message, "write e.g. `/shared/estimatord`");
        }
        _ => {}
    }
    let settings = SlurmSettings {
        shared_dir: shared_dir?,
        partition: word(members, "partition"),
        account: word(members, "account"),
        qos: word(members, "qos"),
        low_priority_qos: word(members, "low_priority_qos"),
        vm_sizes: vm_sizes(members, Cluster::Slurm),
        mpi: word(members, "mpi"),
        commands: commands(members),
    };
    (members.findings.len() == before).then_some(settings)
}

/// By what a cluster tells nodes apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    Slurm,
    Kubernetes,
}

pub(super) fn vm_sizes(backend: &mut Members<'_>, cluster: Cluster) -> NodeSizes {
    let Some(map) = backend.object("vm_sizes") else { return NodeSizes::default() };
    let at = backend.pointer("vm_sizes");
    let mut sizes: Vec<(String, NodeSize)> = Vec::new();
    for (name, value) in map {
        let pointer = format!("{at}/{}", escaped(name));
        let twin = sizes.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        let fault = if name.is_empty() || name.chars().count() > MAX_SIZE_CHARACTERS {
            Some((
                "invalid-word",
                format!("the name of a size has 1 to {MAX_SIZE_CHARACTERS} characters"),
                "write e.g. `STANDARD_D2_V2`".to_owned(),
            ))
        } else {
            twin.map(|(known, _)| {
                let message =
                    format!("this is `{known}` again: names of sizes are compared in any case of letters");
                ("conflicting-parameters", message, "leave one of them out".to_owned())
            })
        };
        match (fault, value) {
            (Some((rule, message, fix)), _) => backend.findings.push(error_at(rule, &pointer, message, fix)),
            (None, Value::Object(members)) => {
                sizes.push((name.clone(), node_size(members, &pointer, cluster, &mut backend.findings)));
            }
            (None, other) => {
                let form = "an object such as {\"cores\": 2, \"memory_mib\": 7168}";
                let message = format!("a size is {}; it must be {form}", kind_of(other));
                backend.findings.push(error_at("wrong-type", &pointer, message, format!("write {form}")));
            }
        }
    }
    sizes.into_iter().collect()
}

fn node_size(map: &Map<String, Value>, at: &str, cluster: Cluster, findings: &mut Vec<Finding>) -> NodeSize {
    let mut members = Members::new(map, at);
    let mut number =
        |name, least, most| members.integer(name, least..=most).and_then(|number| u32::try_from(number).ok());
    let (cores, memory_mib, gpus) =
        (number("cores", 1, MAX_CORES), number("memory_mib", 1, MAX_MEMORY_MIB), number("gpus", 0, MAX_GPUS));
    // Of the two, the one that is another cluster's is unknown here.
    let constraint = if cluster == Cluster::Slurm { word(&mut members, "constraint") } else { None };
    let node_selector = match cluster {
        Cluster::Slurm => BTreeMap::new(),
        Cluster::Kubernetes => kubernetes::labels(&mut members, "node_selector"),
    };
    findings.append(&mut members.finish());
    NodeSize { cores, memory_mib, gpus, constraint, node_selector }
}

fn commands(backend: &mut Members<'_>) -> SlurmCommands {
    let Some(map) = backend.object("commands") else { return SlurmCommands::default() };
    let mut members = Members::new(map, backend.pointer("commands"));
    let [sbatch, squeue, scancel, scontrol, sacct] = COMMANDS.map(|name| {
        let path = short_text(&mut members, name)?;
        if is_plain_path(&path) {
            return Some(path);
        }
        let message = format!("`{name}` must be the absolute path of a program on the service's machine");
        members.refuse(
            "invalid-path",
            name,
            message,
            format!("write e.g. `/opt/slurm/bin/{name}`, or leave it out"),
        );
        None
    });
    backend.findings.append(&mut members.finish());
    SlurmCommands { sbatch, squeue, scancel, scontrol, sacct }
}

/// What Slurm takes in an option: no spaces and no quotes, and not the beginning of another option.
fn word(members: &mut Members<'_>, name: &'static str) -> Option<String> {
    let text = short_text(members, name)?;
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "_-.,:/&|()[]*+=@".contains(c);
    if text.starts_with('-') || !text.chars().all(is_fine) {
        let message = format!(
            "`{name}` must be a word as Slurm's options take it: letters, digits and `_-.,:/&|()[]*+=@`"
        );
        members.refuse(
            "invalid-word",
            name,
            message,
            format!("write the {name} as `sinfo` or `sacctmgr` shows it"),
        );
        return None;
    }
    Some(text)
}

pub(super) fn is_plain_path(path: &str) -> bool {
    path.starts_with('/')
        && path.trim() == path
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| part != "..")
}
