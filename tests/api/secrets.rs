//! What callers send and nobody may read again.

use estimatord::{
    storage::MIGRATOR,
    vault::{Vault, purposes},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

const CANARY: &str = "canary-7f3b9d-sings";

/// Everything that is in the database, as text; bytes as hexadecimal digits.
async fn dump(pool: &PgPool) -> String {
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
            .fetch_all(pool)
            .await
            .expect("the tables");
    assert!(tables.len() > 10, "{tables:?}");
    let mut text = String::new();
    for table in tables {
        let query = sqlx::AssertSqlSafe(format!("SELECT t::text FROM \"{table}\" AS t"));
        let rows: Vec<String> = sqlx::query_scalar(query).fetch_all(pool).await.expect("the rows");
        text.push_str(&rows.join("\n"));
    }
    text
}

fn with_registry(mut definition: Value, password: &str) -> Value {
    definition["use_docker"] = json!(true);
    definition["custom_docker_image"] = json!("registry.example.com/own:1");
    definition["user_managed"] = json!(true);
    definition["image_registry_details"] =
        json!({"address": "registry.example.com", "username": "robot", "password": password});
    definition
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_secret_is_in_no_answer_and_no_table(pool: PgPool) {
    let app = TestApp::new(pool.clone());
    let store =
        json!({"url": "s3://bucket", "credentials": {"access_key_id": "AKIA1", "secret_access_key": CANARY}});
    let put = app.put("/v1/datastores/remote", &store).await;
    assert_eq!(put.clone().ok(201)["has_credentials"], true);
    let definition = with_registry(app.definition().await, CANARY);
    let created = app.post("/v1/estimators", &definition).await;
    let id = created.clone().ok(201)["id"].as_str().expect("an id").to_owned();
    let run = app.post("/v1/runs", &json!({"experiment_name": "e", "estimator": definition})).await;
    let run_id = run.clone().ok(201)["id"].as_str().expect("an id").to_owned();
    let mut answers = vec![put, created, run];
    for path in [
        "/v1/datastores".to_owned(),
        "/v1/datastores/remote".to_owned(),
        "/v1/estimators".to_owned(),
        format!("/v1/estimators/{id}"),
        format!("/v1/estimators/{id}/migration"),
        "/v1/runs".to_owned(),
        format!("/v1/runs/{run_id}"),
        format!("/v1/runs/{run_id}/events"),
        "/metrics".to_owned(),
    ] {
        answers.push(app.get(&path).await);
    }
    for format in ["script-run-config", "azureml-v2", "sbatch", "kubernetes"] {
        answers.push(
            app.post("/v1/estimators/render", &json!({"format": format, "estimator": definition})).await,
        );
    }
    for answer in &answers {
        assert!(!answer.text().contains(CANARY), "{}", answer.text());
    }
    let dump = dump(&pool).await;
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(dump.contains("registry.example.com"), "the dump has the rest");
    assert!(!dump.contains(CANARY) && !dump.contains(&hex));
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn what_was_sent_can_be_opened_by_its_key(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = with_registry(app.definition().await, CANARY);
    let id = app.post("/v1/estimators", &definition).await.ok(201)["id"].clone();
    let id = id.as_str().expect("an id").parse().expect("an id");
    let sealed = app.storage.sealed_registry_password(id).await.expect("read").expect("kept");
    let password = Vault::new([7; 32]).open(&purposes::registry_password(id), &sealed).expect("opened");
    assert_eq!(password.expose(), CANARY);
    let put = json!({"url": "s3://b", "credentials": {"access_key_id": "a", "secret_access_key": CANARY}});
    app.put("/v1/datastores/remote", &put).await.ok(201);
    let access =
        app.storage.datastore_access(&Default::default(), &["remote".to_owned()]).await.expect("read");
    assert!(access[0].sealed_credentials.is_some());
    // Put again without, it has none any more.
    let again = app.put("/v1/datastores/remote", &json!({"url": "s3://b"})).await.ok(200);
    assert_eq!(again["has_credentials"], false);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn the_marker_in_place_of_a_password_is_no_password(pool: PgPool) {
    let app = TestApp::new(pool);
    let definition = with_registry(app.definition().await, "[redacted]");
    let answer = app.post("/v1/estimators", &definition).await;
    answer.problem(422, "invalid-definition");
    let place = "/image_registry_details/password".to_owned();
    assert_eq!(answer.errors(), [("registry-incomplete".to_owned(), place.clone())]);
    let run = app.post("/v1/runs", &json!({"experiment_name": "e", "estimator": definition})).await;
    assert_eq!(run.errors(), [("registry-incomplete".to_owned(), format!("/estimator{place}"))]);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn without_a_key_secrets_are_refused(pool: PgPool) {
    let app = TestApp::without_vault(pool);
    let store =
        json!({"url": "s3://bucket", "credentials": {"access_key_id": "a", "secret_access_key": CANARY}});
    let answer = app.put("/v1/datastores/remote", &store).await;
    assert_eq!(answer.errors(), [("secret-key-missing".to_owned(), "/credentials".to_owned())]);
    app.put("/v1/datastores/remote", &json!({"url": "s3://bucket"})).await.ok(201);
    let answer = app.post("/v1/estimators", &with_registry(app.definition().await, CANARY)).await;
    let place = "/image_registry_details/password".to_owned();
    assert_eq!(answer.errors(), [("secret-key-missing".to_owned(), place)]);
}
