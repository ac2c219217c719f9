//! How the database answers what is asked most: from indexes. No table that grows with every run is read as a whole, and nothing reads
//! much that it has no use for.
//!
//! The plans are those of the statements that are really sent, with the parameters that are sent: the server explains each one as it
//! runs it (`auto_explain`, which comes with PostgreSQL) and tells the client.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use estimatord::{
    clock::Clock as _,
    domain::{ids::RunId, project::Project, run::Status},
    storage::{
        Storage,
        admission::Order,
        leases::{Claimant, Lease},
        runs::{RunFilter, Terms},
    },
};
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};
use uuid::Uuid;

use crate::{
    accept, answer, claimant,
    support::{self, FixedClock},
};

/// Far more than are read when an index is used, and few enough for a test.
const RUNS: u32 = 50_000;

/// How many rows a step may read and throw away: those of one experiment, or the live ones.
const SPARE: f64 = 2_000.0;

/// After so many times a server thinks of a plan that is made once, for whatever parameters come.
const TIMES: usize = 7;

/// What grows with every run.
const LARGE: [&str; 3] = ["runs", "run_events", "run_attempts"];

/// What the server tells the client.
#[derive(Clone, Default)]
struct Notices(Arc<Mutex<Vec<String>>>);

impl<S: tracing::Subscriber> Layer<S> for Notices {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "sqlx::postgres::notice" {
            event.record(&mut self.clone());
        }
    }
}

impl Visit for Notices {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.0.lock().expect("not poisoned").push(value.to_owned());
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

impl Notices {
    /// The explanations that have come since somebody asked, each with its statement.
    fn take(&self) -> Vec<Value> {
        let said = std::mem::take(&mut *self.0.lock().expect("not poisoned"));
        let plans = said.iter().filter_map(|text| text.split_once("plan:\n"));
        plans.map(|(_, plan)| serde_json::from_str(plan).expect("a plan is JSON")).collect()
    }
}

/// What is wrong with a plan.
fn faults(plan: &Value, found: &mut Vec<String>) {
    match plan {
        Value::Object(members) => {
            // Who goes first is a question to the whole queue.
            let times = members.get("Actual Loops").and_then(Value::as_f64).unwrap_or_default();
            if members.get("Node Type").is_some_and(|kind| kind == "WindowAgg") && times > 1.0 {
                found.push(format!("the queue is put in order {times} times"));
            }
            let relation = members.get("Relation Name").and_then(Value::as_str).unwrap_or_default();
            if LARGE.contains(&relation) {
                if members.get("Node Type").is_some_and(|kind| kind == "Seq Scan") {
                    found.push(format!("the whole of {relation} is read"));
                }
                let removed =
                    members.get("Rows Removed by Filter").and_then(Value::as_f64).unwrap_or_default();
                if removed > SPARE {
                    found.push(format!("{removed} rows of {relation} are read in vain"));
                }
            }
            members.values().for_each(|member| faults(member, found));
        }
        Value::Array(items) => items.iter().for_each(|item| faults(item, found)),
        _ => {}
    }
}

/// What was asked, and the plans that it was answered by.
struct Explained {
    notices: Notices,
    wrong: Vec<String>,
}

impl Explained {
    /// Looks at the plans of what was just asked; none of them is a fault of this test.
    fn look(&mut self, what: &str) {
        let plans = self.notices.take();
        assert!(!plans.is_empty(), "{what}: the server has explained nothing");
        for plan in plans {
            let mut found = Vec::new();
            faults(&plan, &mut found);
            if !found.is_empty() {
                self.wrong.push(format!("{what}: {}: {plan:#}", found.join(", ")));
            }
        }
    }
}

/// Storage on one connection whose statements are explained.
async fn explained(options: PgPoolOptions, connect: &PgConnectOptions, format: &str) -> Storage {
    let connect = connect.clone().options([
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_format", format),
        ("auto_explain.log_level", "notice"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_buffers", "on"),
        ("auto_explain.log_timing", "off"),
    ]);
    Storage::from_pool(options.max_connections(1).connect_with(connect).await.expect("connected"))
}

/// Many runs, of which the newest have not ended.
async fn fill(pool: &PgPool, runs: u32) {
    accept(&Storage::from_pool(pool.clone()), &FixedClock::default(), |_| {}).await;
    let statements = include_str!("many_runs.sql").replace(":runs", &runs.to_string());
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(pool).await.expect("filled");
    sqlx::raw_sql("VACUUM ANALYZE").execute(pool).await.expect("analyzed");
}

/// Filters one by one, and together.
fn filters() -> Vec<(&'static str, RunFilter)> {
    let tags = || [("owner".to_owned(), "ada".to_owned())].into();
    let time = || "2024-01-20T00:00:00Z".parse().expect("a time");
    let none = RunFilter::default;
    vec![
        ("all runs", none()),
        ("runs of an experiment", RunFilter { experiment_name: Some("experiment-7".to_owned()), ..none() }),
        ("runs in a frequent status", RunFilter { status: Some(Status::Completed), ..none() }),
        ("runs in a rare status", RunFilter { status: Some(Status::Running), ..none() }),
        ("runs in a status that there is not", RunFilter { status: Some(Status::Canceled), ..none() }),
        ("runs on a target that has none", RunFilter { compute_target: Some("none".to_owned()), ..none() }),
        ("runs on a target", RunFilter { compute_target: Some("batch".to_owned()), ..none() }),
        ("runs with a tag", RunFilter { tags: tags(), ..none() }),
        ("runs after a time", RunFilter { created_after: Some(time()), ..none() }),
        (
            "runs with everything",
            RunFilter {
                experiment_name: Some("experiment-7".to_owned()),
                status: Some(Status::Failed),
                compute_target: Some("local".to_owned()),
                tags: tags(),
                created_after: Some(time()),
            },
        ),
    ]
}

async fn reading(storage: &Storage, explained: &mut Explained) {
    let project = storage.of(&Default::default());
    let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_1234);
    let wanted = (Project::default(), RunId::from_uuid(id));
    let run = storage.shown_runs(&[wanted]).await.expect("read").remove(0).expect("there");
    assert!(!run.attempts.is_empty(), "it has an attempt, which is read with it");
    explained.look("a run with its attempts");
    storage.list_run_events(run.id, 0, 100).await.expect("read");
    explained.look("the events of a run");
    for (what, filter) in filters() {
        for before in [None, Some((run.created_at, id))] {
            let runs = project.list_runs(&filter, before, 51).await.expect("read");
            explained.look(what);
            let ids: Vec<Uuid> = runs.iter().map(|run| run.id.as_uuid()).collect();
            storage.waiting(&ids, None).await.expect("read");
            explained.look("why the runs of a page wait");
        }
    }
    storage.all_waiting(None).await.expect("read");
    explained.look("why any run waits");
}

async fn working(storage: &Storage, explained: &mut Explained) {
    let clock = FixedClock::default();
    let estimator = support::estimator(clock.now());
    let run = support::run(&estimator, clock.now());
    storage.queue_view().await.expect("read");
    explained.look("why a new run waits");
    let terms = Terms { max_queued: 10_000, ..support::terms(None) };
    storage.insert_run(&run, Some(&estimator), terms, || answer(&run)).await.expect("accepted");
    explained.look("a new run");
    storage.expire_queued_runs(10, clock.now()).await.expect("asked");
    explained.look("what waited too long");
    let claimant = Claimant { default_target_limit: 1_000, ..claimant("node") };
    let mut held: Vec<Lease> = Vec::new();
    for order in [Order::Priority, Order::Age] {
        let claimed = storage.admit_runs(&claimant, order, 10, clock.now()).await.expect("admitted");
        explained.look("admission");
        held.extend(claimed.iter().map(|one| one.lease));
    }
    assert!(!held.is_empty(), "somebody is admitted");
    storage.renew_leases(&held, Duration::from_secs(60)).await.expect("renewed");
    explained.look("renewal");
    storage.release_lease(&held[0], Duration::ZERO).await.expect("released");
    explained.look("release");
    assert_eq!(storage.adopt_runs(&claimant, 10).await.expect("adopted").len(), 1);
    explained.look("adoption");
}

#[sqlx::test]
async fn the_hot_statements_read_no_large_table_as_a_whole(
    options: PgPoolOptions,
    connect: PgConnectOptions,
) {
    let pool = options.clone().connect_with(connect.clone()).await.expect("connected");
    fill(&pool, RUNS).await;
    let notices = Notices::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(notices.clone()));
    let mut seen = Explained { notices, wrong: Vec::new() };
    let storage = explained(options, &connect, "json").await;
    for _ in 0..TIMES {
        reading(&storage, &mut seen).await;
        working(&storage, &mut seen).await;
    }
    storage.close().await;
    assert!(seen.wrong.is_empty(), "{}", seen.wrong.join("\n"));
}

/// The statement and the plan that the server tells of; the columns of a run are named in the code.
fn shown(notice: &str) -> String {
    let (duration, said) = notice.split_once("plan:\n").expect("a plan");
    let lines: Vec<&str> = said.lines().collect();
    let begins = lines.iter().position(|line| line.contains("(cost=")).expect("a plan says what it costs");
    let (statement, plan) = lines.split_at(begins);
    let statement = statement.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, asked) = statement.split_once("peak_memory_bytes ").expect("the last column");
    format!("SELECT … {asked}\n\n{}\n{}", plan.join("\n"), duration.trim())
}

/// Writes `docs/query-plans.md`.
#[sqlx::test]
#[ignore = "it makes a million runs, which takes minutes"]
async fn the_plans_of_hot_statements_at_a_million_runs_are_kept(
    options: PgPoolOptions,
    connect: PgConnectOptions,
) {
    let pool = options.clone().connect_with(connect.clone()).await.expect("connected");
    fill(&pool, 1_000_000).await;
    let notices = Notices::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(notices.clone()));
    let storage = explained(options, &connect, "text").await;
    let project = storage.of(&Default::default());
    let id = RunId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0001_2345));
    let mut page = String::from(PAGE);
    let mut keep = |what: &str| {
        let said = std::mem::take(&mut *notices.0.lock().expect("not poisoned"));
        // Of a statement that is asked often the server thinks of a plan that is made once: that one is kept.
        let last = said.iter().rfind(|text| text.contains("plan:\n")).expect("it was explained");
        page += &format!("\n## {what}\n\n```\n{}\n```\n", shown(last));
    };
    for _ in 0..TIMES {
        storage.shown_runs(&[(Project::default(), id)]).await.expect("read");
    }
    keep("A run with its attempts");
    for (what, filter) in filters() {
        for _ in 0..TIMES {
            project.list_runs(&filter, None, 51).await.expect("read");
        }
        keep(&format!("The first page of {what}"));
    }
    storage.close().await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/query-plans.md");
    std::fs::write(path, page).expect("written");
}

/// What the page begins with.
const PAGE: &str = "# How the database answers what is asked most

`EXPLAIN (ANALYZE, BUFFERS)` of the statements that the service sends, at a million runs, as the server explains each when it has been sent for the seventh time. Written by

```sh
scripts/with-postgres.sh cargo nextest run --locked --test storage --run-ignored only the_plans_of_hot_statements
```

`tests/storage/plans.rs` looks at the plans of these and others in every run of the tests, at fewer rows: no table that grows with every run is read as a whole.
";
