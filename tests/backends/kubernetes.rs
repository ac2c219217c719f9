//! The Kubernetes backend on a cluster in this process (`fake_kubernetes`): the conformance suite with containers that are real
//! processes. What only this backend promises is in `kubernetes_facts`.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use estimatord::{
    artifacts::Artifacts,
    backend::{Attempt, kubernetes::KubernetesBackend},
    domain::{
        compute_target::{self, Engine},
        exchange::PartName,
        ids::RunId,
        kubernetes::KubernetesSettings,
    },
    vault::Vault,
};

use crate::{
    conformance,
    fake_kubernetes::{FakeCluster, Options, runs_processes},
    harness::{self, Lab, Sweeper},
};

/// A cluster, and what stands in for the API of the service: it lets the pods in by the same tokens and hands on the same files.
pub struct Kubernetes {
    // First: processes go before the directory that they write to.
    sweeper: Sweeper,
    pub cluster: FakeCluster,
    pub artifacts: Artifacts,
    vault: Vault,
    pub settings: KubernetesSettings,
    notes: PathBuf,
    data_dir: PathBuf,
    grace: Duration,
}

#[derive(Clone)]
struct Pods {
    artifacts: Artifacts,
    vault: Vault,
}

impl Pods {
    fn admits(&self, run: RunId, attempt: u32, headers: &HeaderMap) -> bool {
        let token =
            headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        token.is_some_and(|token| self.vault.is_attempt_token(run, attempt, token))
    }
}

/// `/v1/runs/{run}/attempts/{attempt}/bundle` and `…/returned/{part}`.
async fn answer(State(pods): State<Arc<Pods>>, request: Request) -> Response {
    let (path, query) =
        (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let parts: Vec<&str> = path.trim_start_matches("/v1/runs/").split('/').collect();
    let (run, attempt): (RunId, u32) = (parts[0].parse().unwrap(), parts[2].parse().unwrap());
    if !pods.admits(run, attempt, request.headers()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if parts[3] == "bundle" {
        let (_, stream) = pods.artifacts.read_bundle(run, attempt).await.unwrap();
        return Body::from_stream(stream).into_response();
    }
    let (part, is_final): (PartName, bool) = (parts[4].parse().unwrap(), query.contains("final=true"));
    let body = request.into_body().into_data_stream();
    let put = pods.artifacts.put_returned(run, attempt, &part, is_final, body, 1 << 30).await;
    if put.is_ok() { StatusCode::NO_CONTENT.into_response() } else { StatusCode::BAD_REQUEST.into_response() }
}

/// Serves pods what the API of the service does; answers where.
pub async fn serve_pods(address: &str, artifacts: &Artifacts, vault: &Vault) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pods = Pods { artifacts: artifacts.clone(), vault: vault.clone() };
    let api = Router::new().fallback(answer).with_state(Arc::new(pods));
    tokio::spawn(async move { axum::serve(listener, api).await.unwrap() });
    address
}

impl Kubernetes {
    pub async fn new() -> Self {
        Self::with(Options::new(env!("CARGO_BIN_EXE_estimatord"))).await
    }

    pub async fn with(options: Options) -> Self {
        let cluster = FakeCluster::start(options).await;
        let directory = cluster.directory();
        let notes = directory.join("notes");
        fs::create_dir(&notes).unwrap();
        let artifacts = Artifacts::open(&directory.join("artifacts"), &directory.join("uploads")).unwrap();
        let vault = Vault::new([7; 32]);
        let service_url = format!("http://{}", serve_pods("127.0.0.1:0", &artifacts, &vault).await);
        let settings = KubernetesSettings {
            namespace: "runs".into(),
            kubeconfig: Some(cluster.kubeconfig_file()),
            service_url,
            service_image: "registry.example/estimatord:test".into(),
            ..KubernetesSettings::default()
        };
        let data_dir = directory.join("data");
        let grace = Duration::from_secs(20);
        Self { sweeper: Sweeper::default(), artifacts, vault, settings, notes, data_dir, grace, cluster }
    }
}

impl Lab for Kubernetes {
    type Backend = KubernetesBackend;

    fn backend(&self) -> KubernetesBackend {
        let settings = harness::settings(self.data_dir.clone(), self.grace);
        let vault = Some(self.vault.clone());
        KubernetesBackend::new(&self.settings, &settings, self.artifacts.clone(), vault).unwrap()
    }

    fn notes(&self) -> &Path {
        &self.notes
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        let mut attempt = harness::attempt(script, arguments);
        attempt.backend = compute_target::Backend {
            engine: Engine::Kubernetes(Box::new(self.settings.clone())),
            ..compute_target::Backend::process()
        };
        self.sweeper.watch(attempt.run_id);
        attempt
    }

    fn measures(&self) -> bool {
        false
    }

    fn knows_python(&self) -> bool {
        false
    }

    /// Processes of a container know themselves by other numbers than the machine does.
    fn is_alive(&self, pid: i32) -> bool {
        let runs = self.sweeper.runs();
        fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            let status = read("status");
            let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            let inside = inside.and_then(|pids| pids.split_whitespace().nth(1)?.parse().ok());
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            inside == Some(pid)
                && !status.contains("\nState:\tZ")
                && runs.iter().any(|run| environ.contains(run))
        })
    }
}

macro_rules! conforms {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            if runs_processes() {
                conformance::$name(&Kubernetes::new().await).await;
            }
        }
    )*};
}
conformance::suite!(conforms);

#[tokio::test(flavor = "multi_thread")]
async fn who_ignores_term_is_killed_after_the_grace() {
    if !runs_processes() {
        return;
    }
    let grace = Duration::from_secs(2);
    let lab = Kubernetes { grace, ..Kubernetes::new().await };
    conformance::who_ignores_term_is_killed_after_the_grace(&lab, grace).await;
}
