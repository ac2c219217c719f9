//! The whole service with a Kubernetes cluster in this process (`fake_kubernetes`), whose containers are real processes: the pods fetch
//! their files from the service and send back what scripts write. A real cluster is tried with `make check-kubernetes`.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    fake_kubernetes::{FakeCluster, Options, runs_processes},
    service::{Service, data_dir, number, until},
};

/// The address that pods know the service by: it stays while services come and go, as a Kubernetes Service does.
struct Front {
    address: SocketAddr,
    behind: Arc<Mutex<Option<SocketAddr>>>,
}

impl Front {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let behind = Arc::new(Mutex::new(None));
        let target = Arc::clone(&behind);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Some(behind) = *target.lock().unwrap() else { continue };
                let Ok(server) = TcpStream::connect(behind) else { continue };
                for (mut from, mut to) in
                    [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
                {
                    std::thread::spawn(move || {
                        let _ = io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Write);
                    });
                }
            }
        });
        Self { address, behind }
    }
}

/// A service with a target on a cluster.
struct Stage {
    service: Option<Service>,
    front: Front,
    cluster: FakeCluster,
    runtime: tokio::runtime::Runtime,
    dir: tempfile::TempDir,
}

impl Stage {
    fn new() -> Option<Self> {
        if !runs_processes() {
            return None;
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let cluster = runtime.block_on(FakeCluster::start(Options::new(env!("CARGO_BIN_EXE_estimatord"))));
        let (dir, front) = (data_dir(), Front::new());
        let mut stage = Self { service: None, front, cluster, runtime, dir };
        stage.start();
        stage.put_target(&json!({}));
        Some(stage)
    }

    fn start(&mut self) {
        let options = ["--cluster-interval-seconds", "1", "--one-off-target", "cluster"];
        let service = Service::start_with(self.dir.path(), &options);
        *self.front.behind.lock().unwrap() = service.base.strip_prefix("http://").unwrap().parse().ok();
        self.service = Some(service);
    }

    fn service(&self) -> &Service {
        self.service.as_ref().expect("it runs")
    }

    /// `kill -9` of the service, and another one.
    fn kill(&mut self) {
        self.service.take().expect("it runs").kill();
        self.start();
    }

    fn put_target(&self, more: &Value) {
        let mut backend = json!({
            "kind": "kubernetes", "namespace": "runs", "kubeconfig": self.cluster.kubeconfig_file(),
            "service_url": format!("http://{}", self.front.address), "service_image": "registry.example/estimatord:test",
        });
        for (name, value) in more.as_object().expect("an object") {
            backend[name] = value.clone();
        }
        let body = json!({"type": "AmlCompute", "max_nodes": 4, "backend": backend});
        let answer = self.service().call("PUT", "/v1/compute-targets/cluster", Some(&body));
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text());
    }

    fn definition(&self, script: &str) -> Value {
        let mut definition = self.service().definition(script);
        definition["compute_target"] = json!("cluster");
        definition["use_docker"] = Value::Null;
        definition
    }

    fn text(&self, path: &str) -> String {
        self.service().call("GET", path, None).text()
    }

    /// A file that scripts can write to, and this test reads: pods share nothing else with it.
    fn note(&self, name: &str) -> String {
        self.cluster.directory().join(name).to_str().unwrap().to_owned()
    }
}

/// Says everything that it was given, and writes everything that is kept.
const WRITES: &str = "\
import os, sys
from azureml.core import Run
run = Run.get_context()
print('arguments', sys.argv[1:])
print('read', open(os.path.join(sys.argv[2], 'a.csv')).read(), open('/given/b.csv').read(), open('here/a.csv').read())
run.log('accuracy', 0.97)
os.makedirs('outputs/deep')
open('outputs/deep/model.txt', 'w').write('weights of ' + run.id)
open('logs/own.txt', 'w').write('own')
open(os.path.join(os.environ['AZUREML_DATAREFERENCE_out'], 'sent.txt'), 'w').write('sent by ' + run.id)
print('last words', end='')
";

#[test]
fn a_run_in_pods_is_like_any_other() {
    let Some(stage) = Stage::new() else { return };
    let store = data_dir();
    std::fs::create_dir(store.path().join("set")).unwrap();
    for name in ["a.csv", "b.csv"] {
        std::fs::write(store.path().join("set").join(name), name).unwrap();
    }
    let body = json!({"url": format!("file://{}", store.path().display())});
    assert_eq!(stage.service().call("PUT", "/v1/datastores/mystore", Some(&body)).status, 201);
    let reference = |name: &str, more: Value| {
        let mut reference = json!({"type": "DataReference", "datastore": "mystore", "data_reference_name": name,
            "path_on_datastore": "set"});
        for (key, value) in more.as_object().into_iter().flatten() {
            reference[key] = value.clone();
        }
        reference
    };
    let mut definition = stage.definition(WRITES);
    definition["inputs"] = json!([
        reference("copied", json!({"mode": "download", "path_on_compute": "/given"})),
        reference("here", json!({"path_on_compute": "here"})),
        reference("out", json!({"mode": "upload", "path_on_datastore": "results"})),
    ]);
    definition["script_params"] = json!({"--data": reference("train", json!({}))});
    let id = stage.service().submit(&definition);
    let run = stage.service().until_status(&id, &["Completed", "Failed"]);
    let log = stage.service().log_text(&id);
    assert_eq!(run["status"], "Completed", "{run:#}\n{log}");
    assert!(log.contains("arguments ['--data', '/estimatord/data/inputs/train/set']"), "{log}");
    assert!(log.contains("read a.csv b.csv a.csv") && log.ends_with("last words"), "{log}");
    assert_eq!(stage.text(&format!("/v1/runs/{id}/outputs/deep/model.txt")), format!("weights of {id}"));
    assert_eq!(stage.text(&format!("/v1/runs/{id}/logs/logs/own.txt")), "own");
    let metrics = stage.service().call("GET", &format!("/v1/runs/{id}/metrics"), None).json();
    assert_eq!(metrics["items"][0]["name"], "accuracy", "{metrics}");
    let sent = std::fs::read_to_string(store.path().join("results/sent.txt")).expect("sent");
    assert_eq!(sent, format!("sent by {id}"));
    let environment = &run["environment"];
    assert_eq!(environment["actual"]["image"], environment["asked"]["image"], "{run:#}");
    let events = stage.text(&format!("/v1/runs/{id}/events"));
    assert!(!events.contains("not everything"), "{events}");
    until("the cluster to be as it was", || {
        ["jobs", "pods", "secrets"].iter().all(|plural| stage.cluster.list(plural).is_empty()).then_some(())
    });
    let left = std::fs::read_dir(stage.dir.path().join("kubernetes/runs")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left on the worker's disk");
    let exchange = stage.dir.path().join("artifacts/runs").join(&id).join("1/exchange");
    assert!(!exchange.join("bundle.tar").exists(), "nor of what was exchanged");
}

#[test]
fn what_is_recorded_and_logged_is_seen_while_the_script_runs_and_a_cancel_keeps_it() {
    let Some(stage) = Stage::new() else { return };
    let script = "\
import signal, sys, time
from azureml.core import Run
def stop(*_):
    open('outputs/late.txt', 'w').write('late')
    print('stopped', flush=True)
    sys.exit(7)
signal.signal(signal.SIGTERM, stop)
Run.get_context().log('loss', 1.5)
print('begun', flush=True)
while True: time.sleep(0.1)
";
    let id = stage.service().submit(&stage.definition(script));
    stage.service().until_status(&id, &["Running"]);
    until("the metric", || {
        let metrics = stage.service().call("GET", &format!("/v1/runs/{id}/metrics"), None).json();
        (metrics["items"][0]["name"] == "loss").then_some(())
    });
    assert_eq!(stage.service().log_text(&id), "begun\n");
    assert_eq!(stage.service().call("POST", &format!("/v1/runs/{id}/cancel"), None).status, 202);
    let run = stage.service().until_status(&id, &["Canceled"]);
    assert_eq!((&run["cause"], &run["exit_code"]), (&json!("canceled_by_user"), &json!(7)), "{run:#}");
    assert!(stage.service().log_text(&id).starts_with("begun\nstopped\n"));
    assert_eq!(stage.text(&format!("/v1/runs/{id}/outputs/late.txt")), "late");
}

#[test]
fn runs_are_each_dispatched_once_though_service_and_api_server_die() {
    let Some(mut stage) = Stage::new() else { return };
    let notes = stage.note("starts");
    let script = format!(
        "import os\nfile = os.open({notes:?}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
         os.write(file, (os.environ['AZUREML_RUN_ID'] + '\\n').encode())\n"
    );
    let definition = stage.definition(&script);
    let (runs, kills) = (number("ESTIMATORD_TEST_RUNS", 16), number("ESTIMATORD_TEST_KILLS", 4));
    let pause = Duration::from_secs(number("ESTIMATORD_TEST_PAUSE_SECONDS", 3) as u64);
    let mut ids: Vec<String> = (0..runs).map(|_| stage.service().submit(&definition)).collect();
    for kill in 0..kills {
        // At moments that nobody chose.
        let random = u64::from_le_bytes(estimatord::clock::entropy());
        std::thread::sleep(Duration::from_millis(random % 1500));
        stage.kill();
        if kill == kills / 2 {
            stage.cluster.go_away();
            std::thread::sleep(pause);
            stage.runtime.block_on(stage.cluster.come_back());
        }
    }
    for id in &ids {
        let run = stage.service().until_status(id, &["Completed"]);
        assert_eq!(run["attempts"].as_array().expect("attempts").len(), 1, "{run:#}");
    }
    let text = std::fs::read_to_string(Path::new(&notes)).expect("notes");
    let mut started: Vec<&str> = text.lines().collect();
    started.sort_unstable();
    ids.sort();
    assert_eq!(started, ids, "each script was started once");
}

/// A worker without an API; it ends with the test.
struct Worker(std::process::Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A database of its own on the server of the test suite.
fn database(runtime: &tokio::runtime::Runtime) -> String {
    let server = std::env::var("DATABASE_URL").expect("scripts/with-postgres.sh sets it");
    let name = format!("kubernetes_{}", uuid::Uuid::new_v4().simple());
    runtime.block_on(async {
        let pool = sqlx::PgPool::connect(&server).await.expect("connected");
        let statement = format!("CREATE DATABASE {name}");
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&pool).await.expect("made");
    });
    let mut url = url::Url::parse(&server).expect("a URL");
    url.set_path(&name);
    url.to_string()
}

/// What a rolling update of the workers comes to: the one that had the runs goes, another one with another disk takes them over.
#[test]
fn another_worker_with_another_disk_takes_runs_over() {
    let Some(mut stage) = Stage::new() else { return };
    drop(stage.service.take());
    let url = database(&stage.runtime);
    let shared = data_dir();
    let key = shared.path().join("key");
    std::fs::write(&key, "0a".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let command = |dir: &Path, role: &str| {
        let mut command = crate::service::command(dir);
        command.args(["--cluster-interval-seconds", "1", "--role", role, "--artifacts-dir"]);
        command.arg(shared.path().join("artifacts")).arg("--secret-key-file").arg(&key);
        command.env("DATABASE_URL", &url);
        command
    };
    let serve = |stage: &mut Stage, dir: &Path, role: &str| {
        let service = Service::started(command(dir, role), dir);
        *stage.front.behind.lock().unwrap() = service.base.strip_prefix("http://").unwrap().parse().ok();
        stage.service = Some(service);
    };
    let (first, second, third) = (data_dir(), data_dir(), data_dir());
    serve(&mut stage, first.path(), "all");
    stage.put_target(&json!({}));
    let (starts, go) = (stage.note("starts"), stage.note("go"));
    let script = format!(
        "import os, time\nfile = os.open({starts:?}, os.O_WRONLY | os.O_APPEND | os.O_CREAT)\n\
         os.write(file, (os.environ['AZUREML_RUN_ID'] + '\\n').encode())\nprint('before', flush=True)\n\
         while not os.path.exists({go:?}): time.sleep(0.05)\n\
         print('after', flush=True)\nopen('outputs/model', 'w').write('weights')\n"
    );
    let definition = stage.definition(&script);
    let mut ids: Vec<String> = (0..4).map(|_| stage.service().submit(&definition)).collect();
    for id in &ids {
        stage.service().until_status(id, &["Running"]);
        until("the first line", || (stage.service().log_text(id) == "before\n").then_some(()));
    }
    let log = std::fs::File::create(second.path().join("log")).unwrap();
    let worker =
        command(second.path(), "worker").stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
    let _worker = Worker(worker);
    assert!(stage.service.take().expect("it runs").stop().success());
    serve(&mut stage, third.path(), "api");
    std::fs::write(&go, "").unwrap();
    for id in &ids {
        let run = stage.service().until_status(id, &["Completed"]);
        assert_eq!(run["attempts"].as_array().expect("attempts").len(), 1, "{run:#}");
        assert_eq!(stage.service().log_text(id), "before\nafter\n");
        assert_eq!(stage.text(&format!("/v1/runs/{id}/outputs/model")), "weights");
    }
    let text = std::fs::read_to_string(Path::new(&starts)).expect("notes");
    let mut started: Vec<&str> = text.lines().collect();
    started.sort_unstable();
    ids.sort();
    assert_eq!(started, ids, "each script was started once");
}

#[test]
fn what_a_run_waits_for_is_said_and_why_it_was_given_up() {
    let Some(stage) = Stage::new() else { return };
    stage.put_target(&json!({"pending_timeout_seconds": 3}));
    stage
        .cluster
        .play(|plays| plays.unschedulable = Some("0/2 nodes are available: 2 Insufficient cpu.".into()));
    let id = stage.service().submit(&stage.definition("print('never')"));
    let run = until("the reason", || {
        let run = stage.service().run(&id);
        (run["blocked_by"][0]["code"] == "cluster_queue").then_some(run)
    });
    assert_eq!(run["status"], "Queued", "{run:#}");
    assert!(run["blocked_by"][0]["detail"].as_str().unwrap().contains("Insufficient cpu"), "{run:#}");
    let run = stage.service().until_status(&id, &["Failed"]);
    assert_eq!(run["cause"], "dispatch_failed");
    assert!(run["detail"].as_str().unwrap().contains("Insufficient cpu"), "{run:#}");
}
