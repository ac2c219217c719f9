//! A backend that does and says what a test tells it to.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use estimatord::{
    backend::{
        ActualEnvironment, Attempt, AttemptFile, Backend, BackendError, BuiltEnvironment, PrepareError,
        ProvisionError, SourceTree, StagingArea, Substitution,
    },
    domain::{
        compute_target,
        ids::RunId,
        run::Observation,
        staging::{Place, Root},
    },
};

/// What preparing does.
#[derive(Clone, Debug)]
pub enum Prepare {
    Succeed,
    /// With the environment of this key, which was there already or not.
    SucceedWith(String, bool),
    Fail(String),
    Hang,
}

#[derive(Debug)]
struct State {
    prepare: Prepare,
    observations: HashMap<RunId, Observation>,
    for_all: Option<Observation>,
    submitted: HashMap<RunId, HashSet<u32>>,
    submissions: HashMap<RunId, u32>,
    canceled: HashSet<RunId>,
    removed: HashSet<RunId>,
    leftovers: HashSet<RunId>,
    deaf: bool,
    environments: Vec<BuiltEnvironment>,
}

#[derive(Clone)]
pub struct ScriptedBackend {
    dir: PathBuf,
    state: Arc<Mutex<State>>,
}

impl ScriptedBackend {
    pub fn new(dir: PathBuf) -> Self {
        let state = State {
            prepare: Prepare::Succeed,
            observations: HashMap::new(),
            for_all: None,
            submitted: HashMap::new(),
            submissions: HashMap::new(),
            canceled: HashSet::new(),
            removed: HashSet::new(),
            leftovers: HashSet::new(),
            deaf: false,
            environments: Vec::new(),
        };
        Self { dir, state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("not poisoned")
    }

    pub fn on_prepare(&self, prepare: Prepare) {
        self.state().prepare = prepare;
    }

    pub fn set(&self, id: RunId, observation: Observation) {
        self.state().observations.insert(id, observation);
    }

    pub fn set_for_all(&self, observation: Observation) {
        self.state().for_all = Some(observation);
    }

    pub fn keep(&self, environments: Vec<BuiltEnvironment>) {
        self.state().environments = environments;
    }

    pub fn be_deaf(&self, deaf: bool) {
        self.state().deaf = deaf;
    }

    pub fn submissions(&self, id: RunId) -> u32 {
        self.state().submissions.get(&id).copied().unwrap_or(0)
    }

    pub fn leave_behind(&self, id: RunId) {
        self.state().leftovers.insert(id);
    }

    pub fn has_left_behind(&self, id: RunId) -> bool {
        self.state().leftovers.contains(&id)
    }

    pub fn was_removed(&self, id: RunId) -> bool {
        self.state().removed.contains(&id)
    }

    pub async fn until_canceled(&self, id: RunId) {
        for _ in 0..2000 {
            if self.state().canceled.contains(&id) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{id} was not canceled in time");
    }

    pub fn write_log(&self, id: RunId, name: &str, content: &[u8]) {
        self.write(id, "logs", name, content);
    }

    pub fn write_output(&self, id: RunId, name: &str, content: &[u8]) {
        self.write(id, "outputs", name, content);
    }

    pub fn write_records(&self, id: RunId, name: &str, content: &[u8]) {
        self.write(id, "records", name, content);
    }

    fn write(&self, id: RunId, kind: &str, name: &str, content: &[u8]) {
        let file = self.dir.join(id.to_string()).join(kind).join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(file, content).expect("written");
    }

    fn list(&self, id: RunId, kind: &str) -> Vec<AttemptFile> {
        let root = self.dir.join(id.to_string()).join(kind);
        let mut found = Vec::new();
        walk(&root, &root, &mut found);
        found
    }
}

fn walk(root: &Path, dir: &Path, found: &mut Vec<AttemptFile>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            walk(root, &path, found);
            continue;
        }
        let name = path.strip_prefix(root).expect("below").to_str().expect("UTF-8").to_owned();
        let bytes = fs::metadata(&path).expect("metadata").len();
        found.push(AttemptFile { path: (&name).into(), name, root: root.to_owned(), bytes });
    }
}

impl Backend for ScriptedBackend {
    async fn provision(&self, _: &Attempt) -> Result<String, ProvisionError> {
        Ok("made for this run".to_owned())
    }

    async fn prepare(&self, _: &Attempt, _: &impl SourceTree) -> Result<ActualEnvironment, PrepareError> {
        let prepare = self.state().prepare.clone();
        let (build_key, reused) = match &prepare {
            Prepare::SucceedWith(key, reused) => (Some(key.clone()), *reused),
            _ => (None, false),
        };
        match prepare {
            Prepare::Succeed | Prepare::SucceedWith(..) => Ok(ActualEnvironment {
                kind: "virtual_environment".to_owned(),
                interpreter: "/venv/bin/python".to_owned(),
                python_version: "3.11.2".to_owned(),
                packages: Vec::new(),
                substitutions: vec![Substitution {
                    asked: "python 3.6.2".to_owned(),
                    used: Some("python 3.11.2".to_owned()),
                    reason: "nearest that works".to_owned(),
                }],
                build_key,
                reused,
                container: None,
                image: None,
            }),
            Prepare::Fail(message) => Err(PrepareError::EnvironmentBuild { message }),
            Prepare::Hang => std::future::pending().await,
        }
    }

    async fn ship(&self, _: &Attempt) -> Result<(), PrepareError> {
        Ok(())
    }

    async fn ensure_submitted(&self, attempt: &Attempt, _: &ActualEnvironment) -> Result<(), BackendError> {
        let mut state = self.state();
        if state.submitted.entry(attempt.run_id).or_default().insert(attempt.number) {
            *state.submissions.entry(attempt.run_id).or_default() += 1;
        }
        Ok(())
    }

    async fn observe(&self, attempt: &Attempt) -> Result<Observation, BackendError> {
        let state = self.state();
        if state.deaf {
            let source = io::Error::other("deaf");
            return Err(BackendError::Io { action: "asking".to_owned(), source });
        }
        let submitted = state.submitted.get(&attempt.run_id).is_some_and(|s| s.contains(&attempt.number));
        if !submitted {
            return Ok(Observation::NotFound);
        }
        let said = state.observations.get(&attempt.run_id).or(state.for_all.as_ref());
        Ok(said.cloned().unwrap_or(Observation::Starting))
    }

    async fn cancel(&self, attempt: &Attempt) -> Result<(), BackendError> {
        self.state().canceled.insert(attempt.run_id);
        Ok(())
    }

    async fn log_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        Ok(self.list(attempt.run_id, "logs"))
    }

    async fn record_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        Ok(self.list(attempt.run_id, "records"))
    }

    fn staging(&self, attempt: &Attempt) -> StagingArea {
        let root = self.dir.join(attempt.run_id.to_string());
        StagingArea { data: root.join("data"), work: root.join("work"), cache: self.dir.join("cache") }
    }

    async fn staged_files(&self, attempt: &Attempt, place: &Place) -> io::Result<Vec<AttemptFile>> {
        let root = match place.root {
            Root::Data => "data",
            Root::Work => "work",
        };
        Ok(self.list(attempt.run_id, &format!("{root}/{}", place.path)))
    }

    async fn output_files(&self, attempt: &Attempt) -> io::Result<Vec<AttemptFile>> {
        Ok(self.list(attempt.run_id, "outputs"))
    }

    async fn remove(&self, attempt: &Attempt) -> io::Result<()> {
        self.state().removed.insert(attempt.run_id);
        Ok(())
    }

    async fn tidy_environments(&self) -> io::Result<Vec<BuiltEnvironment>> {
        Ok(self.state().environments.clone())
    }

    async fn reach(&self, _: &compute_target::Backend) -> Result<String, String> {
        Err("deaf".to_owned())
    }

    async fn remaining_runs(&self) -> io::Result<Vec<RunId>> {
        Ok(self.state().leftovers.iter().copied().collect())
    }

    async fn remove_run(&self, run: RunId) -> io::Result<()> {
        self.state().leftovers.remove(&run);
        Ok(())
    }
}
