//! The Kubernetes backend on a real API server, that of `KUBECONFIG` (`make check-kubernetes`). `ESTIMATORD_TEST_KUBERNETES_NAMESPACE` is
//! where (`estimatord-runs` when it is not set). What needs pods that run wants an image of the service that the cluster can pull, and this
//! machine's address as pods reach it; without them those tests say what they lack.

use std::{path::Path, time::Duration};

use estimatord::{
    artifacts::Artifacts,
    backend::{Attempt, Backend as _, ExitReason, Observation, kubernetes::KubernetesBackend},
    clock::{Clock as _, SystemClock},
    domain::{
        compute_target::{self, Engine},
        kubernetes::{KubernetesSettings, object_name},
    },
    vault::Vault,
};

use crate::{
    conformance,
    harness::{self, Lab, ended, scripts, until},
    kubernetes::serve_pods,
    kubernetes_shell::objects,
};

/// The server's own namespace for it.
fn namespace() -> String {
    std::env::var("ESTIMATORD_TEST_KUBERNETES_NAMESPACE").unwrap_or_else(|_| "estimatord-runs".to_owned())
}

struct Real {
    directory: tempfile::TempDir,
    artifacts: Artifacts,
    vault: Vault,
    settings: KubernetesSettings,
}

impl Real {
    async fn new() -> Self {
        let kubeconfig = std::env::var("KUBECONFIG").expect("these tests want a cluster: KUBECONFIG");
        let directory = tempfile::tempdir().unwrap();
        let artifacts =
            Artifacts::open(&directory.path().join("artifacts"), &directory.path().join("uploads")).unwrap();
        let vault = Vault::new([7; 32]);
        let address =
            std::env::var("ESTIMATORD_TEST_KUBERNETES_ADDRESS").unwrap_or_else(|_| "127.0.0.1".into());
        let port = serve_pods("0.0.0.0:0", &artifacts, &vault).await.port();
        let image = std::env::var("ESTIMATORD_TEST_KUBERNETES_IMAGE");
        let settings = KubernetesSettings {
            namespace: namespace(),
            kubeconfig: Some(kubeconfig),
            service_url: format!("http://{address}:{port}"),
            service_image: image.unwrap_or_else(|_| "registry.example/estimatord:none".into()),
            ..KubernetesSettings::default()
        };
        Self { directory, artifacts, vault, settings }
    }
}

impl Lab for Real {
    type Backend = KubernetesBackend;

    fn backend(&self) -> KubernetesBackend {
        let settings = harness::settings(self.directory.path().join("data"), Duration::from_secs(5));
        let vault = Some(self.vault.clone());
        KubernetesBackend::new(&self.settings, &settings, self.artifacts.clone(), vault).unwrap()
    }

    fn notes(&self) -> &Path {
        self.directory.path()
    }

    fn attempt(&self, script: &str, arguments: &[&str]) -> Attempt {
        let mut attempt = harness::attempt(script, arguments);
        attempt.plan.environment.interpreter_path = Some("python3".into());
        attempt.plan.environment.image = Some("python:3.11".into());
        attempt.backend = compute_target::Backend {
            engine: Engine::Kubernetes(Box::new(self.settings.clone())),
            ..compute_target::Backend::process()
        };
        attempt
    }

    fn measures(&self) -> bool {
        false
    }

    fn knows_python(&self) -> bool {
        false
    }
}

/// Asks the real `kubectl`, which shows warnings too: nothing unknown, and nothing that Pod Security would keep away.
#[tokio::test]
#[ignore = "needs a cluster: KUBECONFIG"]
async fn every_object_is_accepted_by_a_strict_dry_run() {
    let lab = Real::new().await;
    for object in objects(&lab.settings) {
        let file = lab.directory.path().join("object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        let output = std::process::Command::new("kubectl")
            .args(["create", "--dry-run=server", "--validate=strict", "--namespace", &namespace(), "-f"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{said}\n{object:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a cluster: KUBECONFIG"]
async fn what_was_made_is_adopted_and_goes_with_a_cancel() {
    let lab = Real::new().await;
    let attempt = lab.attempt("exits.py", &["0"]);
    let backend = lab.backend();
    let found = backend.reach(&attempt.backend).await.unwrap();
    println!("{found}");
    let environment = backend.prepare(&attempt, &scripts()).await.unwrap();
    backend.ensure_submitted(&attempt, &environment).await.unwrap();
    // As a worker that was killed before it could note that it had made anything.
    lab.artifacts
        .put_note(
            attempt.run_id,
            1,
            "submission",
            &serde_json::json!({"intended_at": SystemClock.now(), "uid": null}),
        )
        .await
        .unwrap();
    let successor = lab.backend();
    successor.ensure_submitted(&attempt, &environment).await.unwrap();
    let seen = until("the object", async || match successor.observe(&attempt).await.unwrap() {
        Observation::NotFound => None,
        seen => Some(seen),
    })
    .await;
    println!("{}: {seen:?}", object_name(attempt.run_id, 1));
    assert_eq!(
        successor.remaining_runs().await.unwrap().iter().filter(|run| **run == attempt.run_id).count(),
        1
    );
    successor.cancel(&attempt).await.unwrap();
    assert_eq!(ended(&successor, &attempt).await.reason, ExitReason::Canceled);
    successor.remove(&attempt).await.unwrap();
}

macro_rules! conforms {
    ($($name:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        #[ignore = "needs a cluster whose pods run: KUBECONFIG, ESTIMATORD_TEST_KUBERNETES_IMAGE, ESTIMATORD_TEST_KUBERNETES_ADDRESS"]
        async fn $name() {
            let is_set = |name: &str| std::env::var_os(name).is_some();
            if !is_set("ESTIMATORD_TEST_KUBERNETES_IMAGE") || !is_set("ESTIMATORD_TEST_KUBERNETES_ADDRESS") {
                eprintln!("left out: it wants ESTIMATORD_TEST_KUBERNETES_IMAGE and ESTIMATORD_TEST_KUBERNETES_ADDRESS");
                return;
            }
            conformance::$name(&Real::new().await).await;
        }
    )*};
}
conforms! {
    tells_the_exit_code,
    tells_the_signal,
    cancelled_before_the_start_it_never_starts,
    lists_logs_and_outputs_without_links,
    what_a_script_logs_is_recorded,
    what_cannot_start_says_so,
    what_a_run_left_can_be_removed_without_its_attempts,
}
