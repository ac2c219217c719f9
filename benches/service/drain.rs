//! A queue of runs whose scripts do nothing, from the start of a worker to the last end, beside job queues on the same server.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use estimatord::storage::Storage;
use serde_json::json;
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::{
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    latencies::median,
    null_backend::{NullBackend, Script},
    null_worker::{MOST_RUNS, NullWorker},
    peers::{Peer, Peers},
    queue,
};

/// What the row is called.
pub const NAME: &str = "drain";

/// How many statuses a run goes through that nothing happens to: Queued, Preparing, Starting, Running, Finalizing, Completed.
const STATUSES: i64 = 6;

/// Drains in turn, each time in a fresh database of the same server.
///
/// # Errors
/// When anything that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let (jobs, rounds) = if context.short { (500, 1) } else { (20_000, 3) };
    let peers = Peers::install(context)?;
    let database = Database::start(context)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let (mut ours, mut graphile, mut pg_boss) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let fresh = |name: &str| {
            let name = format!("{name}_{round}");
            database.create(&name)?;
            // What the one before wrote is not for this one to bring to the disk.
            database.checkpoint()?;
            anyhow::Ok(database.url(&name))
        };
        ours.push(runtime.block_on(drain(context, &fresh("estimatord")?, jobs))?);
        graphile.push(peers.drain(Peer::Graphile, &fresh("graphile")?, jobs)?);
        pg_boss.push(peers.drain(Peer::PgBoss, &fresh("pgboss")?, jobs)?);
    }
    let rate = |seconds: &[f64]| f64::from(jobs) / median(seconds);
    let (ours, graphile, pg_boss) = (rate(&ours), rate(&graphile), rate(&pg_boss));
    Ok(vec![Figure {
        what: format!("{jobs} runs that do nothing, from a worker's start to the last `Completed`"),
        ours: format!("{ours:.0} runs/s"),
        peer: format!(
            "{} {graphile:.0} jobs/s, {} {pg_boss:.0} jobs/s",
            Peer::Graphile.name(),
            Peer::PgBoss.name()
        ),
        outcomes: vec![Outcome {
            of: "rate",
            value: ours / graphile.max(pg_boss),
            unit: "×",
            goal: Goal::AtLeast(1.0),
            floor: Some(Goal::AtLeast(0.01)),
        }],
    }])
}

/// How long our worker takes, in seconds. Afterwards the whole history has to be there.
async fn drain(context: &Context, url: &str, runs: u32) -> anyhow::Result<f64> {
    let options: PgConnectOptions = url.parse()?;
    let pool = PgPool::connect_with(options.clone()).await?;
    let storage = Storage::connect(options).await?;
    let target = json!({"kind": "process", "max_concurrent_runs": MOST_RUNS});
    queue::fill(&storage, &pool, "nothing", target, runs).await?;
    sqlx::query("VACUUM (ANALYZE)").execute(&pool).await?;

    let backend = NullBackend::new(Script::EndsAtOnce);
    let began = Instant::now();
    let worker = NullWorker::start(storage.clone(), backend.clone(), &context.directory)?;
    backend.until_collected(runs).await?;
    until_ended(&pool).await?;
    let seconds = began.elapsed().as_secs_f64();

    worker.stop().await?;
    storage.close().await;
    check(&pool, i64::from(runs)).await?;
    pool.close().await;
    Ok(seconds)
}

/// Looks as the scripts of the others look.
async fn until_ended(pool: &PgPool) -> anyhow::Result<()> {
    let live = "SELECT EXISTS (SELECT FROM runs WHERE status NOT IN ('Completed', 'Failed', 'Canceled'))";
    while sqlx::query_scalar::<_, bool>(live).fetch_one(pool).await? {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

async fn check(pool: &PgPool, runs: i64) -> anyhow::Result<()> {
    let (completed, events, attempts): (i64, i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM runs WHERE status = 'Completed' AND lease_token IS NULL),
                (SELECT count(*) FROM run_events), (SELECT count(*) FROM run_attempts WHERE finished_at IS NOT NULL)",
    )
    .fetch_one(pool)
    .await
    .context("cannot count what was drained")?;
    ensure!(
        (completed, events, attempts) == (runs, runs * STATUSES, runs),
        "of {runs} runs {completed} are completed, with {events} events and {attempts} attempts"
    );
    Ok(())
}
