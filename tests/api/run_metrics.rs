//! What scripts logged, as it is shown.

use axum::http::StatusCode;
use estimatord::{
    clock::{Clock as _, SystemClock},
    domain::record::{Record, read_batch},
    storage::MIGRATOR,
    storage::run_metrics::{RecordFile, RecordPart},
};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

fn records(lines: &[Value]) -> Vec<Record> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut last = chrono::DateTime::UNIX_EPOCH;
    let batch = read_batch(text.as_bytes(), 0, true, &mut last);
    assert_eq!(batch.fault, None);
    batch.records
}

fn scalar(name: &str, value: &Value) -> Value {
    json!({"type": "metric", "time": 1.5, "name": name, "kind": "scalar", "value": value, "step": 2})
}

async fn logged(app: &TestApp, lines: &[Value], rank: i32) -> String {
    let run = app.run("e").await;
    let claimed = app.admit().await;
    let file = RecordFile { name: format!("{rank}-1-a.jsonl"), bytes: 1, fault: None };
    let records = records(lines);
    let part = RecordPart { attempt: 1, file: &file, rank, records: &records };
    app.storage.take_records(&claimed.lease, &part, SystemClock.now()).await.expect("taken");
    format!("/v1/runs/{}", run["id"].as_str().expect("an id"))
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn metrics_are_listed_in_one_call(pool: PgPool) {
    let app = TestApp::new(pool);
    let row = json!({"type": "metric", "time": 2, "name": "r", "kind": "row", "value": {"x": 1, "y": [2]},
        "description": "both"});
    let run = logged(&app, &[scalar("accuracy", &json!(0.97)), row, scalar("loss", &json!("NaN"))], 3).await;
    let answer = app.get(&format!("{run}/metrics")).await;
    assert_eq!(answer.status, StatusCode::OK);
    let items = &answer.json()["items"];
    assert_eq!(
        items[0],
        json!({"sequence": 1, "name": "accuracy", "kind": "scalar", "value": 0.97, "step": 2, "rank": 3, "attempt": 1,
            "time": "1970-01-01T00:00:01.500Z", "description": null, "child": null})
    );
    assert_eq!((&items[1]["value"], &items[1]["description"]), (&json!({"x": 1, "y": [2]}), &json!("both")));
    assert_eq!(items[2]["value"], "NaN");
    let only = app.get(&format!("{run}/metrics?name=loss&rank=3&attempt=1")).await;
    assert_eq!(only.json()["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(app.get(&format!("{run}/metrics?attempt=2")).await.json()["items"], json!([]));
    for list in ["metrics", "logs", "outputs"] {
        for attempt in ["0", "-1", "4294967296"] {
            app.get(&format!("{run}/{list}?attempt={attempt}")).await.problem(400, "malformed-request");
        }
    }
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn pages_of_metrics_follow_each_other(pool: PgPool) {
    let app = TestApp::new(pool);
    let lines: Vec<Value> = (0..5).map(|n| scalar("m", &json!(n))).collect();
    let run = logged(&app, &lines, 0).await;
    let (mut seen, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = app.get(&format!("{run}/metrics?{query}")).await.json();
        seen.extend(page["items"].as_array().expect("items").iter().map(|item| item["value"].clone()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=2&cursor={cursor}");
    }
    assert_eq!(seen, [json!(0), json!(1), json!(2), json!(3), json!(4)]);
    assert_eq!(app.get(&format!("{run}/metrics?limit=10001")).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(app.get(&format!("{run}/metrics?limit=10000")).await.status, StatusCode::OK);
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn tags_and_properties_that_a_script_sets_are_shown(pool: PgPool) {
    let app = TestApp::new(pool);
    let lines = [
        json!({"type": "tag", "time": 1, "name": "stage", "value": "one"}),
        json!({"type": "property", "time": 1, "name": "data", "value": "v3"}),
    ];
    let run = logged(&app, &lines, 0).await;
    let shown = app.get(&run).await.json();
    assert_eq!((&shown["tags"]["stage"], &shown["properties"]), (&json!("one"), &json!({"data": "v3"})));
    let listed = app.get("/v1/runs").await.json();
    assert_eq!(listed["items"][0]["properties"], json!({"data": "v3"}));
    assert_eq!(app.get("/v1/runs?tag.stage=one").await.json()["items"].as_array().map(Vec::len), Some(1));
}
