//! A Kubernetes cluster in this process: an API server over HTTP with controllers, a scheduler and a kubelet, which do what real ones
//! were seen to do. Nothing of it is real but the HTTP and, where a test wants them, the containers' processes.

mod controllers;
mod http;
mod kubelet;
mod logs;
mod process;
mod store;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

pub use self::{
    controllers::Admission,
    http::{Fault, FaultKind, Seen},
    kubelet::{Play, Plays},
    process::expanded,
    store::{Propagation, name_of},
};
use self::{http::Server, kubelet::Kubelet, logs::Logs, store::Store};

/// Whether containers can be real processes here; says so where not. CI has to have it.
pub fn runs_processes() -> bool {
    let output = std::process::Command::new("unshare").args(["--mount", "--pid", "--fork", "true"]).output();
    let can = output.is_ok_and(|output| output.status.success());
    assert!(can || std::env::var_os("CI").is_none(), "these tests need to be root, and unshare");
    if !can {
        eprintln!("left out: containers need root, and unshare");
    }
    can
}

/// How a cluster is.
#[derive(Clone, Debug)]
pub struct Options {
    /// `rules` of a Role that requests are held against.
    pub rules: Option<Value>,
    pub has_mpi: bool,
    pub admission: Admission,
    /// The program that containers have as `estimatord`.
    pub service_program: PathBuf,
}

impl Options {
    pub fn new(service_program: impl Into<PathBuf>) -> Self {
        let service_program = service_program.into();
        // What the manifest gives the workers has to be enough for whatever a test has them do.
        let role = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/runs/role.yaml");
        let text = std::fs::read_to_string(role).unwrap();
        let documents = yaml_serde::Deserializer::from_str(&text);
        let mut documents =
            documents.map(|document| <Value as serde::Deserialize>::deserialize(document).unwrap());
        let rules = documents.find(|document| document["kind"] == "Role").map(|role| role["rules"].clone());
        Self { rules, has_mpi: true, admission: Admission::default(), service_program }
    }
}

/// A cluster; it and all its containers end when it is dropped.
pub struct FakeCluster {
    server: Arc<Server>,
    pub plays: Arc<Mutex<Plays>>,
    pub admission: Arc<Mutex<Admission>>,
    told: watch::Sender<HashMap<(String, String), i32>>,
    port: u16,
    inner: std::net::SocketAddr,
    front: Mutex<Option<JoinSet<()>>>,
    tasks: JoinSet<()>,
    directory: tempfile::TempDir,
}

impl FakeCluster {
    pub async fn start(options: Options) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let (store, logs) = (Arc::new(Store::default()), Arc::new(Logs::default()));
        let server = Arc::new(Server {
            store: Arc::clone(&store),
            logs: Arc::clone(&logs),
            faults: Mutex::default(),
            seen: Mutex::default(),
            rules: options.rules,
            has_mpi: options.has_mpi.into(),
            restricted: options.admission.restricted,
            epoch: watch::channel(0).0,
        });
        let mut tasks = JoinSet::new();
        let back = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let inner = back.local_addr().unwrap();
        let router = http::router(Arc::clone(&server));
        tasks.spawn(async move { axum::serve(back, router).await.unwrap() });
        let plays = Arc::new(Mutex::new(Plays::default()));
        let admission = Arc::new(Mutex::new(options.admission));
        let told = watch::channel(HashMap::new()).0;
        let kubelet = Arc::new(Kubelet {
            store: Arc::clone(&store),
            logs,
            plays: Arc::clone(&plays),
            directory: directory.path().to_owned(),
            service_program: options.service_program,
            programs: directory.path().join("programs"),
            told: told.clone(),
        });
        tasks.spawn(control(Arc::clone(&store), Arc::clone(&admission), kubelet));
        let front = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = front.local_addr().unwrap().port();
        let cluster =
            Self { server, plays, admission, told, port, inner, front: Mutex::new(None), tasks, directory };
        cluster.serve(front);
        cluster
    }

    fn serve(&self, listener: TcpListener) {
        let inner = self.inner;
        let mut front = JoinSet::new();
        front.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                connections.spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(inner).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        *self.front.lock().unwrap() = Some(front);
    }

    /// Nobody listens any more, and every connection breaks.
    pub fn go_away(&self) {
        *self.front.lock().unwrap() = None;
    }

    /// The same server at the same address again.
    pub async fn come_back(&self) {
        let listener = loop {
            match TcpListener::bind(("127.0.0.1", self.port)).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        self.serve(listener);
    }

    pub fn kubeconfig(&self) -> String {
        let server = format!("http://127.0.0.1:{}", self.port);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "fake",
            "clusters": [{"name": "fake", "cluster": {"server": server}}],
            "users": [{"name": "fake", "user": {"token": "fake"}}],
            "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake", "namespace": "runs"}}],
        })
        .to_string()
    }

    /// A program that every image has from now on.
    pub fn program(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.directory.path().join("programs").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Writes the kubeconfig to a file that lives as long as the cluster.
    pub fn kubeconfig_file(&self) -> String {
        let path = self.directory.path().join("kubeconfig");
        std::fs::write(&path, self.kubeconfig()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub fn list(&self, plural: &str) -> Vec<Value> {
        self.server.store.list(plural)
    }

    pub fn get(&self, plural: &str, name: &str) -> Option<Value> {
        self.server.store.get(plural, name)
    }

    pub fn update(&self, plural: &str, name: &str, change: impl FnOnce(&mut Value)) -> Option<Value> {
        self.server.store.update(plural, name, change)
    }

    pub fn create(&self, plural: &str, object: Value) -> Value {
        self.server.store.create(plural, object).unwrap()
    }

    pub fn delete(&self, plural: &str, name: &str, how: Propagation) {
        self.server.store.delete(plural, name, how, None).unwrap();
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.server.seen.lock().unwrap().clone()
    }

    pub fn fault(&self, fault: Fault) {
        self.server.faults.lock().unwrap().push(fault);
    }

    /// Whether the server knows MPIJobs.
    pub fn set_mpi(&self, known: bool) {
        self.server.has_mpi.store(known, std::sync::atomic::Ordering::Relaxed);
    }

    /// Nothing goes wrong any more.
    pub fn forget_faults(&self) {
        self.server.faults.lock().unwrap().clear();
    }

    /// Every watch ends.
    pub fn drop_watches(&self) {
        self.server.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Every stream of a log breaks off.
    pub fn break_logs(&self) {
        self.server.logs.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// Watches that begin at an old version are told that it is gone.
    pub fn expire(&self) {
        self.server.store.forget_history();
        self.drop_watches();
    }

    /// Changes how containers go on, and has everything look at it.
    pub fn play(&self, change: impl FnOnce(&mut Plays)) {
        change(&mut self.plays.lock().unwrap());
        self.server.store.poke();
    }

    /// Ends a container that a test plays.
    pub fn end(&self, pod: &str, container: &str, code: i32) {
        self.told.send_modify(|told| {
            told.insert((pod.to_owned(), container.to_owned()), code);
        });
    }

    /// A line in the log of a container that a test plays.
    pub fn log(&self, pod: &str, container: &str, text: &str) {
        self.server.logs.line(pod, container, text.as_bytes());
    }

    /// Takes a pod away for a reason of the cluster's.
    pub fn disrupt(&self, pod: &str, reason: &str) {
        self.server.store.update("pods", pod, |pod| {
            let condition = json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": format!("{reason} by a test")});
            if let Some(all) = pod["status"]["conditions"].as_array_mut() {
                all.push(condition);
            } else {
                pod["status"]["conditions"] = json!([condition]);
            }
        });
        self.delete("pods", pod, Propagation::Background);
    }

    /// Waits until something can be found.
    pub async fn until<T>(&self, what: &str, mut found: impl FnMut(&Self) -> Option<T>) -> T {
        let mut changes = self.server.store.changes();
        let forever = async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = found(self) {
                    return found;
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        match tokio::time::timeout(Duration::from_secs(60), forever).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}: {:#?}", self.list("pods")),
        }
    }

    /// The pod of an attempt's script, once there is one.
    pub async fn pod(&self, attempt: &str) -> String {
        self.until("the pod", |cluster| {
            let pods = cluster.list("pods");
            pods.iter().map(name_of).find(|name| name.starts_with(attempt))
        })
        .await
    }

    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }
}

impl Drop for FakeCluster {
    fn drop(&mut self) {
        self.tasks.abort_all();
    }
}

/// Runs the controllers whenever something changes, and starts a kubelet's work for every new pod.
async fn control(store: Arc<Store>, admission: Arc<Mutex<Admission>>, kubelet: Arc<Kubelet>) {
    let mut changes = store.changes();
    let mut pods = JoinSet::new();
    let mut started = HashSet::new();
    loop {
        changes.mark_unchanged();
        let admission = admission.lock().unwrap().clone();
        controllers::reconcile(&store, &admission);
        for pod in store.list("pods") {
            if started.insert(store::uid_of(&pod)) {
                pods.spawn(Arc::clone(&kubelet).run(pod));
            }
        }
        tokio::select! {
            _ = changes.changed() => {}
            // Deadlines come without a change.
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
    }
}
