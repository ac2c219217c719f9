//! A worker that holds ten thousand runs, with a hundred thousand in the queue: what it and the database take while nothing happens.

use std::{
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use estimatord::storage::Storage;
use serde_json::json;
use sqlx::{PgPool, postgres::PgConnectOptions};

use crate::{
    context::Context,
    database::Database,
    figure::{Figure, Goal, Outcome},
    null_backend::{NullBackend, Script},
    null_worker::{MOST_RUNS, NullWorker},
    process::Process,
    queue, usage,
};

/// What the row is called.
pub const NAME: &str = "many";

/// The hidden command that holds the runs in a process of its own: [`hold`].
pub const HOLD: &str = "--hold-runs";

/// How long it may take until the worker has them.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the database counts: rows of runs that were written, and transactions.
#[derive(Clone, Copy, Debug)]
struct Written {
    runs: i64,
    transactions: i64,
}

/// Lets a process hold the runs, and looks at it.
///
/// # Errors
/// When anything that is needed fails.
pub fn measure(context: &Context) -> anyhow::Result<Vec<Figure>> {
    let (running, queued, seconds) = if context.short { (200, 2_000, 5) } else { (MOST_RUNS, 100_000, 30) };
    let database = Database::start(context)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    database.create(NAME)?;
    let url = database.url(NAME);
    let (pool, server) = runtime.block_on(prepare(&url, running, queued))?;
    let mut holder = Command::new(std::env::current_exe()?);
    // It ends by itself when nobody holds the other end of its standard input any more.
    holder.arg(HOLD).arg(&url).arg(&context.directory).stdin(Stdio::piped());
    let holder = Process::start(&mut holder)?;
    runtime.block_on(until_held(&pool, running))?;
    // What it did to get there is over.
    std::thread::sleep(Duration::from_secs(if context.short { 1 } else { 20 }));

    let look = || {
        let written = runtime.block_on(written(&pool))?;
        anyhow::Ok((
            Instant::now(),
            usage::cpu_seconds(holder.id())?,
            usage::cpu_seconds_of_tree(server)?,
            written,
        ))
    };
    let (began, cpu, database_cpu, before) = look()?;
    std::thread::sleep(Duration::from_secs(seconds));
    let (ended, cpu_then, database_cpu_then, after) = look()?;
    let memory = usage::memory(holder.id())?;
    runtime.block_on(until_held(&pool, running))?;
    runtime.block_on(pool.close());

    let seconds = (ended - began).as_secs_f64();
    let share = |from: f64, to: f64| (to - from) / seconds * 100.0;
    let (cpu, database_cpu) = (share(cpu, cpu_then), share(database_cpu, database_cpu_then));
    let (renewed, transactions) = (after.runs - before.runs, after.transactions - before.transactions);
    Ok(vec![Figure {
        what: format!("{running} running and {queued} queued runs held by one worker for {seconds:.0} s"),
        ours: format!(
            "{:.0} MiB resident ({:.0} MiB at most), {cpu:.1} % of a core; {renewed} leases renewed in at most {transactions} transactions",
            memory.resident, memory.peak
        ),
        peer: format!("PostgreSQL meanwhile: {database_cpu:.1} % of a core"),
        outcomes: vec![
            Outcome {
                of: "resident memory",
                value: memory.resident,
                unit: "MiB",
                goal: Goal::AtMost(256.0),
                floor: Some(Goal::AtMost(256.0)),
            },
            Outcome {
                of: "idle CPU",
                value: cpu,
                unit: "% of a core",
                goal: Goal::AtMost(5.0),
                floor: Some(Goal::AtMost(50.0)),
            },
            // Were each lease renewed by itself there would be fewer than one in a transaction.
            Outcome {
                of: "leases renewed in a transaction",
                value: ratio(renewed, transactions),
                unit: "",
                goal: Goal::AtLeast(100.0),
                // In a few seconds they are renewed once, or not yet.
                floor: None,
            },
        ],
    }])
}

fn ratio(of: i64, to: i64) -> f64 {
    let number = |n: i64| i32::try_from(n).map_or(f64::MAX, f64::from);
    number(of) / number(to.max(1))
}

/// Runs on a cluster, since those are looked at as seldom as a cluster is; and the process of the server.
async fn prepare(url: &str, running: u32, queued: u32) -> anyhow::Result<(PgPool, u32)> {
    let options: PgConnectOptions = url.parse()?;
    let pool = PgPool::connect_with(options.clone()).await?;
    let storage = Storage::connect(options).await?;
    // All of its places are taken: the queue stays as it is.
    let cluster =
        json!({"kind": "slurm", "shared_dir": "/shared/estimatord", "max_concurrent_runs": running});
    let original = queue::fill(&storage, &pool, "cluster", cluster, queued).await?;
    queue::add_running(&pool, original, running).await?;
    sqlx::query("VACUUM (ANALYZE)").execute(&pool).await?;
    storage.close().await;
    let connection: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&pool).await?;
    let server = usage::parent(u32::try_from(connection)?)?;
    Ok((pool, server))
}

async fn until_held(pool: &PgPool, running: u32) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let held: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM runs WHERE status = 'Running' AND lease_expires_at > now()",
        )
        .fetch_one(pool)
        .await?;
        if held == i64::from(running) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "only {held} of {running} runs are held");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn written(pool: &PgPool) -> anyhow::Result<Written> {
    let (runs, transactions) = sqlx::query_as(
        "SELECT (SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'runs'),
                (SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database())",
    )
    .fetch_one(pool)
    .await
    .context("cannot read what the database counts")?;
    Ok(Written { runs, transactions })
}

/// Holds runs until standard input ends: the other process of this measurement. Its arguments are the URL of the database and a
/// directory.
///
/// # Errors
/// When the database cannot be reached.
pub fn hold(arguments: &[String]) -> anyhow::Result<()> {
    let [url, directory] = arguments else { bail!("two arguments are wanted") };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let worker = runtime.block_on(async {
        let storage = Storage::connect(url.parse()?).await?;
        NullWorker::start(storage, NullBackend::new(Script::RunsOn), Path::new(directory))
    })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    runtime.block_on(worker.stop())
}
