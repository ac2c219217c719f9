//! Where the parameters of a stored estimator go.

use estimatord::storage::MIGRATOR;
use serde_json::json;
use sqlx::PgPool;

use crate::app::TestApp;

#[sqlx::test(migrator = "MIGRATOR")]
async fn every_given_parameter_is_reported(pool: PgPool) {
    let app = TestApp::new(pool);
    let mut definition = app.definition().await;
    definition["max_run_duration_seconds"] = json!(60);
    definition["source_directory_data_store"] = json!("");
    let created = app.post("/v1/estimators", &definition).await;
    let path = format!("{}/migration", created.header("location"));
    let report = app.get(&path).await.ok(200);
    assert_eq!(report["class"]["class"], "azureml.train.dnn.Chainer");
    let parameters = report["parameters"].as_array().expect("parameters");
    let of = |name: &str| parameters.iter().find(|parameter| parameter["parameter"] == name);
    let duration = of("max_run_duration_seconds").expect("it was given");
    assert_eq!(
        duration["azureml_v2"],
        json!({"place": "limits.timeout", "equivalence": "exact", "note": null})
    );
    assert_eq!(
        of("source_directory").expect("it was given")["script_run_config"]["equivalence"],
        "approximate"
    );
    assert!(of("source_directory_data_store").is_none(), "an empty text is not given");
    assert!(of("vm_size").is_none());
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_is_refused_today_has_no_report(pool: PgPool) {
    let app = TestApp::new(pool);
    let target = json!({"type": "AmlCompute", "backend": {"kind": "process"}, "max_nodes": 2});
    app.put("/v1/compute-targets/gone-soon", &target).await.ok(201);
    let mut definition = app.definition().await;
    definition["compute_target"] = json!("gone-soon");
    let created = app.post("/v1/estimators", &definition).await;
    let path = format!("{}/migration", created.header("location"));
    app.get(&path).await.ok(200);
    assert_eq!(app.delete("/v1/compute-targets/gone-soon").await.status, 204);
    let problem = app.get(&path).await.problem(422, "invalid-definition");
    let findings = problem["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|finding| finding["rule"] == "compute-target-not-found"), "{problem}");
    let nobody = "/v1/estimators/01890a5d-ac96-774b-bcce-b302099a8057/migration";
    app.get(nobody).await.problem(404, "not-found");
}
