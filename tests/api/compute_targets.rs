//! Compute targets.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

const CLUSTER: &str = "/v1/compute-targets/cpu-cluster";

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_target_is_made_replaced_and_deleted(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = json!({"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 4,
                      "vm_size": null, "vm_priority": null, "gpus_per_node": 0});
    let made = app.put(CLUSTER, &body).await;
    assert_eq!((made.header("location"), made.header("etag").len()), (CLUSTER, 66));
    let made = made.ok(201);
    assert_eq!((&made["name"], made["max_nodes"].to_string()), (&json!("cpu-cluster"), "4".to_owned()));
    app.clock.advance(5);
    let least =
        json!({"type": "KubernetesCompute", "backend": {"kind": "process", "max_concurrent_runs": 2}});
    let replaced = app.put(CLUSTER, &least).await.ok(200);
    assert_eq!(
        (&replaced["type"], replaced["max_nodes"].to_string()),
        (&json!("Kubernetes"), "1".to_owned())
    );
    assert_eq!(replaced["created_at"], made["created_at"]);
    let names = app.get("/v1/compute-targets").await.ok(200);
    assert_eq!(
        (&names["items"][0]["name"], &names["items"][1]["name"]),
        (&json!("cpu-cluster"), &json!("local"))
    );
    assert_eq!(app.delete(CLUSTER).await.status, 204);
    app.get(CLUSTER).await.problem(404, "not-found");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn everything_wrong_is_said_at_once(pool: PgPool) {
    let app = TestApp::new(pool);
    let body = json!({"type": "AmlCompte", "backend": {"kind": "kubernets", "max_concurrent_runs": 0, "pyhton": "x"},
                      "max_nodes": 1.0, "gpus_per_node": 5000, "vm_priority": "low", "max_node": 3});
    let answer = app.put(CLUSTER, &body).await;
    answer.problem(422, "invalid-compute-target");
    let mut errors = answer.errors();
    errors.sort();
    let expected = [
        ("backend-not-available", "/backend/kind"),
        ("compute-target-type-unknown", "/type"),
        ("out-of-range", "/backend/max_concurrent_runs"),
        ("out-of-range", "/gpus_per_node"),
        ("unknown-parameter", "/backend/pyhton"),
        ("unknown-parameter", "/max_node"),
        ("vm-priority-unknown", "/vm_priority"),
        ("wrong-type", "/max_nodes"),
    ];
    assert_eq!(errors, expected.map(|(rule, pointer)| (rule.to_owned(), pointer.to_owned())));
    let text = answer.text();
    for fix in ["`AmlCompute`", "`python`", "`max_nodes`", "`kubernetes`"] {
        assert!(text.contains(fix), "{fix} in {text}");
    }
    let empty = app.put(CLUSTER, &json!({})).await.errors();
    assert_eq!(empty.iter().map(|(_, pointer)| pointer.as_str()).collect::<Vec<_>>(), ["/type", "/backend"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_namespace_of_kubernetes_is_a_target_and_what_it_cannot_be_is_said(pool: PgPool) {
    let app = TestApp::new(pool);
    let least = json!({"kind": "kubernetes", "namespace": "runs", "service_url": "http://estimatord.estimatord.svc",
                       "service_image": "registry.example/estimatord:0.1.0"});
    let target = app.put(CLUSTER, &json!({"type": "Kubernetes", "backend": least})).await.ok(201);
    assert_eq!((&target["backend"], &target["containers"]), (&least, &json!("auto")));
    let backend = json!({"kind": "kubernetes", "namespace": "runs", "kubeconfig": "/etc/estimatord/kubeconfig", "context": "lab",
        "service_url": "https://estimatord.example/below", "service_image": "registry.example:5000/e@sha256:00",
        "images": {"7.0.0": "registry.example/chainer:7"}, "queue": "team-a", "service_account": "estimatord-run",
        "cache_claim": "environments", "vm_sizes": {"STANDARD_D2_V2": {"cores": 2, "node_selector": {"pool/name": "d2"}}},
        "low_priority": {"priority_class": "preemptible", "node_selector": {"pool": "spot"},
            "tolerations": [{"key": "kubernetes.azure.com/scalesetpriority", "value": "spot", "effect": "NoSchedule"}]},
        "pending_timeout_seconds": 600, "max_concurrent_runs": 5});
    let target =
        app.put(CLUSTER, &json!({"type": "AmlCompute", "backend": backend, "max_nodes": 8})).await.ok(200);
    assert_eq!(target["backend"], backend);
    assert_eq!(app.get(CLUSTER).await.ok(200)["backend"], backend);
    let mut in_cluster = least.clone();
    in_cluster["kubeconfig"] = json!("in-cluster");
    let target = app.put(CLUSTER, &json!({"type": "AksCompute", "backend": in_cluster})).await.ok(200);
    assert_eq!(target["backend"], least, "the pod's own account is what is used where no file is named");
    let faulty = json!({"type": "RemoteCompute", "containers": "docker", "backend": {"kind": "kubernetes", "namespace": "Runs.a",
        "kubeconfig": "~/.kube/config", "service_url": "ftp://user:pw@x", "service_image": "a b", "images": {"6.0.0": "x", "7.0.0": 1},
        "queue": "-a", "vm_sizes": {"a": {"constraint": "x", "node_selector": {"a b": "c", "d": "e f"}}},
        "low_priority": {"node_selector": [], "tolerations": [1, {"key": "a b", "effect": "Never", "opertor": "x"}, {"value": "v"}]},
        "pending_timeout_seconds": 0, "shared_dir": "/x"}});
    let mut errors = app.put(CLUSTER, &faulty).await.errors();
    errors.sort();
    let expected = [
        ("framework-version-unsupported", "/backend/images/6.0.0"),
        ("image-reference-invalid", "/backend/service_image"),
        ("invalid-path", "/backend/kubeconfig"),
        ("invalid-url", "/backend/service_url"),
        ("invalid-word", "/backend/low_priority/tolerations/1/key"),
        ("invalid-word", "/backend/low_priority/tolerations/2/value"),
        ("invalid-word", "/backend/namespace"),
        ("invalid-word", "/backend/queue"),
        ("invalid-word", "/backend/vm_sizes/a/node_selector/a b"),
        ("invalid-word", "/backend/vm_sizes/a/node_selector/d"),
        ("out-of-range", "/backend/pending_timeout_seconds"),
        ("unknown-parameter", "/backend/low_priority/tolerations/1/opertor"),
        ("unknown-parameter", "/backend/shared_dir"),
        ("unknown-parameter", "/backend/vm_sizes/a/constraint"),
        ("unknown-word", "/backend/low_priority/tolerations/1/effect"),
        ("wrong-type", "/backend/images/7.0.0"),
        ("wrong-type", "/backend/low_priority/node_selector"),
        ("wrong-type", "/backend/low_priority/tolerations/0"),
    ];
    let seen: Vec<(&str, &str)> =
        errors.iter().map(|(rule, pointer)| (rule.as_str(), pointer.as_str())).collect();
    assert!(expected.iter().all(|one| seen.contains(one)), "{seen:#?}");
    let errors = app
        .put(CLUSTER, &json!({"type": "RemoteCompute", "containers": "docker", "backend": least}))
        .await
        .errors();
    assert_eq!(
        errors.iter().map(|(_, pointer)| pointer.as_str()).collect::<Vec<_>>(),
        ["/type", "/containers"]
    );
    let missing =
        app.put(CLUSTER, &json!({"type": "Kubernetes", "backend": {"kind": "kubernetes"}})).await.errors();
    let missing: Vec<&str> = missing.iter().map(|(_, pointer)| pointer.as_str()).collect();
    assert_eq!(missing, ["/backend/namespace", "/backend/service_url", "/backend/service_image"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_partition_of_slurm_is_a_target_and_what_it_cannot_be_is_said(pool: PgPool) {
    let app = TestApp::new(pool);
    let backend = json!({"kind": "slurm", "shared_dir": "/shared", "partition": "main", "account": "lab", "qos": "normal",
                         "low_priority_qos": "scavenger", "vm_sizes": {"lab-big": {"cores": 2, "constraint": "a&b"}},
                         "commands": {"sbatch": "/opt/slurm/bin/sbatch"}, "max_concurrent_runs": 5});
    let target =
        app.put(CLUSTER, &json!({"type": "AmlCompute", "backend": backend, "max_nodes": 8})).await.ok(201);
    assert_eq!((&target["backend"], &target["containers"]), (&backend, &json!("never")));
    assert_eq!(app.get(CLUSTER).await.ok(200)["backend"], backend);
    let faulty = json!({"type": "Kubernetes", "containers": "docker", "backend": {"kind": "slurm", "shared_dir": "shared/../x",
        "partition": "-p x", "vm_sizes": {"a": {"cores": 0, "core": 1}, "A": {"constraint": "x y"},
            "b": 5, "B": {}, "a/b": {"gpus": 2000}}, "commands": {"sbatch": "sbatch", "qsub": "/bin/qsub"}}});
    let mut errors = app.put(CLUSTER, &faulty).await.errors();
    errors.sort();
    let expected = [
        ("conflicting-parameters", "/backend/vm_sizes/A"),
        ("invalid-path", "/backend/commands/sbatch"),
        ("invalid-path", "/backend/shared_dir"),
        ("invalid-word", "/backend/partition"),
        ("out-of-range", "/backend/vm_sizes/a/cores"),
        ("out-of-range", "/backend/vm_sizes/a~1b/gpus"),
        ("unknown-parameter", "/backend/commands/qsub"),
        ("unknown-parameter", "/backend/vm_sizes/a/core"),
        ("wrong-type", "/backend/vm_sizes/b"),
    ];
    assert_eq!(errors, expected.map(|(rule, pointer)| (rule.to_owned(), pointer.to_owned())));
    let other = json!({"type": "Kubernetes", "containers": "docker", "backend": backend});
    let mut errors = app.put(CLUSTER, &other).await.errors();
    errors.sort();
    let expected = [("conflicting-parameters", "/containers"), ("conflicting-parameters", "/type")];
    assert_eq!(errors, expected.map(|(rule, pointer)| (rule.to_owned(), pointer.to_owned())));
    let missing =
        app.put(CLUSTER, &json!({"type": "AmlCompute", "backend": {"kind": "slurm"}})).await.errors();
    assert_eq!(missing, [("missing-member".to_owned(), "/backend/shared_dir".to_owned())]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn local_stays_local(pool: PgPool) {
    let app = TestApp::new(pool);
    let path = "/v1/compute-targets/local";
    let limits = json!({"type": "local", "backend": {"kind": "process", "max_concurrent_runs": 3}, "gpus_per_node": 2});
    assert_eq!(app.put(path, &limits).await.ok(200)["gpus_per_node"].to_string(), "2");
    let other = json!({"type": "AmlCompute", "backend": {"kind": "process"}});
    app.put(path, &other).await.problem(409, "conflict");
    app.delete(path).await.problem(409, "conflict");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_target_with_live_runs_is_not_deleted(pool: PgPool) {
    let app = TestApp::new(pool);
    app.put(CLUSTER, &json!({"type": "AmlCompute", "backend": {"kind": "process"}})).await.ok(201);
    let definition = app.definition().await;
    let body = json!({"experiment_name": "e", "estimator": definition, "compute_target": "cpu-cluster"});
    let run = app.post("/v1/runs", &body).await.ok(201);
    app.delete(CLUSTER).await.problem(409, "conflict");
    app.post(&format!("/v1/runs/{}/cancel", run["id"].as_str().expect("an id")), &json!({})).await.ok(202);
    assert_eq!(app.delete(CLUSTER).await.status, 204);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn entity_tags_guard_changes(pool: PgPool) {
    let app = TestApp::new(pool);
    let path = "/v1/compute-targets/local";
    let tag = app.get(path).await.header("etag").to_owned();
    let held = app.with_headers("GET", path, &[("if-none-match", &tag)], Body::empty()).await;
    assert_eq!((held.status.as_u16(), held.body.len(), held.header("etag")), (304, 0, tag.as_str()));

    let body = json!({"type": "local", "backend": {"kind": "process"}, "gpus_per_node": 1}).to_string();
    let put = |tag: String| {
        let (app, body) = (&app, body.clone());
        async move {
            let headers = [("content-type", "application/json"), ("if-match", tag.as_str())];
            app.with_headers("PUT", path, &headers, Body::from(body)).await
        }
    };
    put(tag.clone()).await.ok(200);
    put(tag).await.problem(412, "precondition-failed");
    let headers = [("content-type", "application/json"), ("if-match", "*")];
    let answer = app.with_headers("PUT", CLUSTER, &headers, Body::from(body)).await;
    answer.problem(412, "precondition-failed");
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_size_gets_a_target_on_the_cluster_that_the_operator_chose(pool: PgPool) {
    let app = TestApp::with_one_off_target(pool, "cpu-cluster");
    let mut definition = app.definition().await;
    definition["compute_target"] = Value::Null;
    definition["vm_size"] = json!("lab-big");
    let submit = |definition: &Value| json!({"experiment_name": "e", "estimator": definition});
    let refused = |rule: &str, pointer: &str| vec![(rule.to_owned(), pointer.to_owned())];

    // Nobody has registered it yet; and then it has no such size.
    let answer = app.post("/v1/runs", &submit(&definition)).await;
    assert_eq!(answer.errors(), refused("one-off-target-not-available", "/estimator/vm_size"));
    let mut backend = json!({"kind": "slurm", "shared_dir": "/shared", "max_concurrent_runs": 7});
    let put = |backend: &Value| json!({"type": "AmlCompute", "max_nodes": 2, "backend": backend});
    app.put(CLUSTER, &put(&backend)).await.ok(201);
    let answer = app.post("/v1/runs", &submit(&definition)).await;
    assert_eq!(answer.errors(), refused("vm-size-unknown", "/estimator/vm_size"));

    backend["vm_sizes"] = json!({"Lab-Big": {"cores": 2, "gpus": 3}});
    app.put(CLUSTER, &put(&backend)).await.ok(200);
    definition["use_gpu"] = json!(true);
    let run = app.post("/v1/runs", &submit(&definition)).await.ok(201);
    let name = run["compute_target"].as_str().expect("a name");
    let made = app.get(&format!("/v1/compute-targets/{name}")).await.ok(200);
    assert!(name.starts_with("one-off-"));
    assert_eq!(
        (&made["backend"], &made["gpus_per_node"], &made["containers"]),
        (&backend, &json!(3), &json!("never"))
    );
    assert_eq!(run["plan"]["gpus_per_node"], 3);

    definition["vm_priority"] = json!("lowpriority");
    let answer = app.post("/v1/runs", &submit(&definition)).await;
    assert_eq!(answer.errors(), refused("one-off-target-not-available", "/estimator/vm_priority"));
    backend["low_priority_qos"] = json!("scavenger");
    app.put(CLUSTER, &put(&backend)).await.ok(200);
    app.post("/v1/runs", &submit(&definition)).await.ok(201);

    definition["use_docker"] = Value::Null;
    definition["custom_docker_image"] = json!("debian:12");
    definition["node_count"] = json!(3);
    definition["distributed_training"] = json!({"type": "Mpi"});
    let mut errors = app.post("/v1/runs", &submit(&definition)).await.errors();
    errors.sort();
    assert_eq!(
        errors[0],
        ("container-not-available".to_owned(), "/estimator/custom_docker_image".to_owned())
    );
    assert_eq!(errors[1], ("node-count-exceeds-target".to_owned(), "/estimator/node_count".to_owned()));
}
