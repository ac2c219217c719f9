//! Compute targets.

use axum::body::Body;
use estimatord::storage::MIGRATOR;
use serde_json::json;
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
    let body = json!({"type": "AmlCompte", "backend": {"kind": "kubernetes", "max_concurrent_runs": 0, "pyhton": "x"},
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
    for fix in ["`AmlCompute`", "`python`", "`max_nodes`", "`process`"] {
        assert!(text.contains(fix), "{fix} in {text}");
    }
    let empty = app.put(CLUSTER, &json!({})).await.errors();
    assert_eq!(empty.iter().map(|(_, pointer)| pointer.as_str()).collect::<Vec<_>>(), ["/type", "/backend"]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_partition_of_slurm_is_a_target_and_what_it_cannot_be_is_said(pool: PgPool) {
    let app = TestApp::new(pool);
    let backend = json!({"kind": "slurm", "shared_dir": "/shared", "partition": "main", "account": "lab", "qos": "normal",
                         "commands": {"sbatch": "/opt/slurm/bin/sbatch"}, "max_concurrent_runs": 5});
    let target =
        app.put(CLUSTER, &json!({"type": "AmlCompute", "backend": backend, "max_nodes": 8})).await.ok(201);
    assert_eq!(target["backend"], backend);
    assert_eq!(app.get(CLUSTER).await.ok(200)["backend"], backend);
    let faulty = json!({"type": "Kubernetes", "containers": "docker", "backend": {"kind": "slurm", "shared_dir": "shared/../x",
        "partition": "-p x", "vm_sizes": {}, "commands": {"sbatch": "sbatch", "qsub": "/bin/qsub"}}});
    let mut errors = app.put(CLUSTER, &faulty).await.errors();
    errors.sort();
    let expected = [
        ("invalid-path", "/backend/commands/sbatch"),
        ("invalid-path", "/backend/shared_dir"),
        ("invalid-word", "/backend/partition"),
        ("unknown-parameter", "/backend/commands/qsub"),
        ("unknown-parameter", "/backend/vm_sizes"),
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
