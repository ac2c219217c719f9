//! Runs by the ten thousand, put into the database without the service: one by its storage, and copies of that.

#[path = "../../tests/support/values.rs"]
mod values;

use estimatord::{
    clock::{Clock as _, SystemClock},
    domain::{
        compute_target::{Backend, ComputeTarget, ComputeTargetType},
        ids::RunId,
    },
    storage::{Storage, idempotency::Recorded},
};
use serde_json::{Value, json};
use sqlx::PgPool;

/// The columns that a copy has as its original does.
const COPIED: &str = "experiment_name, display_name, estimator_id, compute_target, backend, definition, findings, plan, tags, \
    priority, max_attempts, retry_on, caller, project";

/// Makes a target with this backend, puts a run on it into the queue, and copies that until there are `count` of it.
///
/// # Errors
/// When the database fails.
pub async fn fill(
    storage: &Storage,
    pool: &PgPool,
    target: &str,
    backend: Value,
    count: u32,
) -> anyhow::Result<RunId> {
    let original = insert_one(storage, target, backend).await?;
    let copy = format!(
        "WITH copied AS (
             INSERT INTO runs (id, {COPIED}, status, created_at, queued_at, next_step_at, event_count)
             SELECT uuid_v7(), {COPIED}, status, created_at + make_interval(secs => n * 1e-6), queued_at, next_step_at, 1
             FROM runs, generate_series(1, $2) AS n WHERE id = $1
             RETURNING id, created_at
         )
         INSERT INTO run_events (run_id, sequence, occurred_at, attempt, kind, status)
         SELECT id, 1, created_at, 0, 'status', 'Queued' FROM copied"
    );
    let copies = i32::try_from(count.saturating_sub(1))?;
    sqlx::query(sqlx::AssertSqlSafe(copy)).bind(original.as_uuid()).bind(copies).execute(pool).await?;
    Ok(original)
}

/// Adds copies of a run that are running, and whose worker has died: the next one takes them over.
///
/// # Errors
/// When the database fails.
pub async fn add_running(pool: &PgPool, original: RunId, count: u32) -> anyhow::Result<()> {
    let copy = format!(
        "WITH copied AS (
             INSERT INTO runs (id, {COPIED}, status, created_at, started_at, next_step_at, event_count, attempt, actual_environment)
             SELECT uuid_v7(), {COPIED}, 'Running', created_at, now(), '-infinity', 4, 1, $3
             FROM runs, generate_series(1, $2) WHERE id = $1
             RETURNING id, created_at
         ), attempts AS (
             INSERT INTO run_attempts (run_id, number, node, created_at, started_at)
             SELECT id, 1, 'bench', created_at, now() FROM copied
         )
         INSERT INTO run_events (run_id, sequence, occurred_at, attempt, kind, status)
         SELECT id, sequence, created_at, 1, 'status', status FROM copied,
             (VALUES (1, 'Queued'), (2, 'Preparing'), (3, 'Starting'), (4, 'Running')) AS history (sequence, status)"
    );
    let copies = i32::try_from(count)?;
    let statement = sqlx::query(sqlx::AssertSqlSafe(copy)).bind(original.as_uuid()).bind(copies);
    statement.bind(environment()).execute(pool).await?;
    Ok(())
}

/// What a built environment is recorded as: the worker has it in its memory for as long as it has the run.
fn environment() -> Value {
    let packages: Vec<String> = (0..40).map(|n| format!("a-package-of-python-{n}==1.{n}.0")).collect();
    json!({"kind": "virtual_environment", "interpreter": "/shared/environments/0123456789abcdef/venv/bin/python",
        "python_version": "3.8.20", "packages": packages, "substitutions": [], "build_key": "0123456789abcdef",
        "reused": true, "container": null})
}

async fn insert_one(storage: &Storage, target: &str, backend: Value) -> anyhow::Result<RunId> {
    let backend: Backend = serde_json::from_value(backend)?;
    let now = SystemClock.now();
    let target = ComputeTarget {
        name: target.parse()?,
        kind: ComputeTargetType::AmlCompute,
        backend: backend.clone(),
        max_nodes: 1,
        vm_size: None,
        vm_priority: None,
        gpus_per_node: 0,
        containers: Default::default(),
        conda: Default::default(),
        projects: Vec::new(),
    };
    storage.put_compute_target(&target, now).await?;
    values::store_snapshot(storage).await;
    let estimator = values::estimator(now);
    let mut run = values::run(&estimator, now);
    run.compute_target = target.name.to_string();
    run.plan.compute_target.clone_from(&run.compute_target);
    run.backend = backend;
    let answer = || Recorded { status: 201, location: None, body: json!({}).to_string() };
    storage.insert_run(&run, Some(&estimator), values::terms(None), answer).await?;
    Ok(run.id)
}
