//! What a run is told of a queue of thousands, which is not counted for everybody who comes.

use estimatord::storage::MIGRATOR;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::app::TestApp;

/// Queues as many runs more as are wanted, as another service would: copies of one that is there.
async fn queue(pool: &PgPool, runs: i32) {
    let copies = "INSERT INTO runs SELECT (jsonb_populate_record(NULL::runs, to_jsonb(one) || jsonb_build_object('id', gen_random_uuid()))).*
                  FROM (SELECT * FROM runs LIMIT 1) AS one, generate_series(1, $1)";
    sqlx::query(copies).bind(runs).execute(pool).await.expect("queued");
}

/// How many a run is said to wait for.
fn ahead(run: &Value) -> u32 {
    let blocks = run["blocked_by"].as_array().expect("it says what it waits for");
    let behind = blocks.iter().find(|block| block["code"] == "behind_other_runs").expect("others go first");
    let (number, _) = behind["detail"].as_str().expect("a text").split_once(' ').expect("words");
    number.parse().expect("a number")
}

#[sqlx::test(migrator = "MIGRATOR")]
async fn a_long_queue_is_counted_beside_those_who_come(pool: PgPool) {
    let app = TestApp::new(pool.clone());
    let body = json!({"experiment_name": "e", "estimator": app.definition().await});
    let come = async || ahead(&app.post("/v1/runs", &body).await.ok(201));
    app.post("/v1/runs", &body).await.ok(201);
    queue(&pool, 4000).await;
    // What was known was of a queue so short that it is asked for each time.
    assert_eq!((come().await, come().await), (4001, 4002));
    queue(&pool, 500).await;
    assert_eq!(come().await, 4003, "nobody has looked since");
    app.clock.advance(1);
    assert_eq!(come().await, 4004, "it is answered by what is known, and somebody looks");
    let mut last = 4004;
    for _ in 0..2000 {
        last = come().await;
        if last > 4500 {
            break;
        }
    }
    assert!(last > 4500, "the next ones are told what was seen: {last}");
    queue(&pool, 100).await;
    app.clock.advance(60);
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM runs").fetch_one(&pool).await.expect("counted");
    assert_eq!(i64::from(come().await), all, "what is known is too old");
}
