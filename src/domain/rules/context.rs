//! What a rule may look at: the body as it was read, and what is known of the world.

use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::grammar::{conda::CondaSpec, paths, requirements::Line};
use crate::domain::{
    compute_target::{ComputeTargetType, Conda, Containers, Engine},
    definition::{Draft, Given},
    facts::Facts,
    plan::TargetNodes,
    python::Module,
    rules::grammar::{conda, pip, requirements},
};

/// The compute that a definition would run on, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its name, or the size of the one-off target.
    pub(crate) label: String,
    pub(crate) kind: ComputeTargetType,
    /// None when there is no bound: a one-off target on the worker's machine has as many nodes as are asked for.
    pub(crate) max_nodes: Option<u32>,
    /// None when the size is unknown.
    pub(crate) gpus_per_node: Option<u32>,
    pub(crate) containers: Containers,
    pub(crate) conda: Conda,
    /// Whether it is reached as a Kubernetes cluster, whatever Azure's word for it.
    pub(crate) on_kubernetes: bool,
    /// What a registered target says of its nodes.
    pub(crate) nodes: Option<TargetNodes>,
}

/// A file that a parameter names.
#[derive(Clone, Debug)]
pub(crate) enum FileState<T> {
    /// Not named, or not to be looked up: a faulty value, a path that escapes, an unknown snapshot.
    NotLookedUp,
    /// No such file.
    Missing,
    /// There, and not what it should be; the text says why.
    Invalid(String),
    /// There, and read.
    Sound(T),
}

impl<T> FileState<T> {
    /// What was read.
    pub(crate) const fn sound(&self) -> Option<&T> {
        match self {
            Self::Sound(content) => Some(content),
            _ => None,
        }
    }
}

/// What a rule may look at.
pub(crate) struct Context<'a> {
    pub(crate) body: &'a Map<String, Value>,
    pub(crate) draft: &'a Draft,
    pub(crate) facts: &'a Facts,
    pub(crate) target: Option<Target>,
    pub(crate) conda_file: FileState<CondaSpec>,
    pub(crate) pip_file: FileState<Vec<Line>>,
    /// The entries of `pip_packages` that are texts: each with its place, and read, or why it cannot be.
    pub(crate) pip_packages: Vec<(usize, Result<pip::Entry, String>)>,
    script: OnceCell<FileState<Module>>,
}

impl<'a> Context<'a> {
    /// Brings together what a body says and what is known.
    pub(crate) fn new(body: &'a Map<String, Value>, draft: &'a Draft, facts: &'a Facts) -> Self {
        Self {
            body,
            draft,
            facts,
            target: target(draft, facts),
            conda_file: file(draft.conda_file().1, facts, conda::parse),
            pip_file: file(draft.pip_file().1, facts, requirements::parse),
            pip_packages: pip_packages(draft),
            script: OnceCell::new(),
        }
    }

    /// The entry script, parsed when the definition asks for it; the first rule that looks pays for it.
    pub(crate) fn script(&self) -> &FileState<Module> {
        self.script.get_or_init(|| {
            if !self.draft.parses_script() {
                return FileState::NotLookedUp;
            }
            let read = |bytes: &[u8]| Module::parse(bytes).map_err(|error| error.to_string());
            file(&self.draft.entry_script, self.facts, read)
        })
    }

    /// Whether the snapshot is known.
    pub(crate) const fn has_snapshot(&self) -> bool {
        self.facts.snapshot.is_some()
    }

    /// Whether a file of the snapshot is there; nothing when the snapshot is unknown.
    pub(crate) fn has_file(&self, path: &str) -> Option<bool> {
        let snapshot = self.facts.snapshot.as_ref()?;
        Some(paths::normalized(path).is_some_and(|path| snapshot.files.contains_key(&path)))
    }

    /// Whether the environment comes from `environment_definition`.
    pub(crate) const fn has_environment(&self) -> bool {
        self.draft.environment_definition.is_given()
    }

    /// A value of the body as it was sent, when it is more than null.
    pub(crate) fn sent(&self, name: &str) -> bool {
        self.body.contains_key(name)
    }
}

fn pip_packages(draft: &Draft) -> Vec<(usize, Result<pip::Entry, String>)> {
    let entries = draft.pip_packages.value().into_iter().flatten().enumerate();
    entries.filter_map(|(place, entry)| Some((place, pip::parse(entry.as_ref()?)))).collect()
}

fn target(draft: &Draft, facts: &Facts) -> Option<Target> {
    if draft.compute_target.is_given() {
        let name = draft.compute_target.text()?;
        let found = facts.registered(name)?;
        let nodes = TargetNodes { vm_size: found.vm_size.clone(), vm_priority: found.vm_priority.clone() };
        return Some(Target {
            label: name.to_owned(),
            kind: found.kind,
            max_nodes: Some(found.max_nodes),
            gpus_per_node: Some(found.gpus_per_node),
            containers: found.containers,
            conda: found.conda,
            on_kubernetes: matches!(found.backend.engine, Engine::Kubernetes(_)),
            nodes: (nodes.vm_size.is_some() || nodes.vm_priority.is_some()).then_some(nodes),
        });
    }
    let size = draft.vm_size.text()?;
    let lender = facts.one_off_target.as_ref().and_then(|name| facts.registered(name.as_str()));
    let found = facts.one_off_backend().and_then(|backend| backend.size(size));
    Some(Target {
        label: size.to_owned(),
        kind: ComputeTargetType::AmlCompute,
        max_nodes: lender.map(|target| target.max_nodes),
        gpus_per_node: found.map(|size| size.gpus.unwrap_or(0)),
        containers: lender.map_or(Containers::Auto, |target| target.containers),
        conda: lender.map_or(Conda::Auto, |target| target.conda),
        on_kubernetes: lender.is_some_and(|target| matches!(target.backend.engine, Engine::Kubernetes(_))),
        nodes: None,
    })
}

fn file<T>(path: &Given<String>, facts: &Facts, read: fn(&[u8]) -> Result<T, String>) -> FileState<T> {
    let (Some(path), Some(snapshot)) = (path.text(), &facts.snapshot) else {
        return FileState::NotLookedUp;
    };
    if paths::escapes(path) {
        return FileState::NotLookedUp;
    }
    let known = paths::normalized(path).filter(|path| snapshot.files.contains_key(path));
    let Some(path) = known else {
        return FileState::Missing;
    };
    match snapshot.contents.get(&path) {
        None => FileState::Invalid("it is larger than 1 MiB and was not read".to_owned()),
        Some(bytes) => match read(bytes) {
            Ok(content) => FileState::Sound(content),
            Err(why) => FileState::Invalid(why),
        },
    }
}
