//! The model and the real database side by side: whatever is asked, both must answer the same.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use estimatord::{
    domain::{
        compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda, Containers},
        ids::RunId,
        run::{Cause, Move, Retries, Status},
    },
    storage::{
        Storage,
        admission::Order,
        cancel::Cancellation,
        idempotency::{Idempotency, Keyed, Recorded},
        leases::{self, Claimant},
        moves::Transition,
        new_runs::Insertion,
        transitions::Written,
    },
};
use serde_json::json;
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::runtime::Handle;

use crate::{
    model::Model,
    operation::History,
    store::{Claimed, LEASE_TTL_MILLISECONDS, Lease, Row, Store},
    support,
};

/// Both. Blocks: wants a thread of its own.
pub struct Twin {
    model: Model,
    runtime: Handle,
    pool: PgPool,
    storage: Storage,
    target: ComputeTarget,
    limit: u32,
    ids: Vec<RunId>,
    leases: HashMap<Lease, leases::Lease>,
}

fn target(bound: bool, limit: u32) -> ComputeTarget {
    let cluster = json!({"kind": "slurm", "shared_dir": "/shared", "max_concurrent_runs": limit});
    let backend = if bound {
        Backend { max_concurrent_runs: Some(limit), ..Backend::process() }
    } else {
        serde_json::from_value(cluster).expect("settings of a cluster")
    };
    ComputeTarget {
        name: "compute".parse().expect("a name"),
        kind: ComputeTargetType::AmlCompute,
        backend,
        max_nodes: 1,
        vm_size: Some("STANDARD_D2_V2".to_owned()),
        vm_priority: None,
        gpus_per_node: 0,
        containers: Containers::Never,
        conda: Conda::Auto,
        projects: Vec::new(),
    }
}

fn start_of_time() -> DateTime<Utc> {
    DateTime::UNIX_EPOCH + TimeDelta::days(20_000)
}

/// A connection to the database whose clock stands still until it is told to move: `now()` is found here before it is found among
/// what PostgreSQL brings.
pub async fn with_a_clock_of_its_own(pool: PgPoolOptions, connect: PgConnectOptions) -> PgPool {
    let connect = connect.options([("search_path", "simulated,public,pg_catalog")]);
    let pool = pool.connect_with(connect).await.expect("connected");
    for statement in [
        "CREATE SCHEMA simulated",
        "CREATE TABLE simulated.clock (at timestamptz NOT NULL)",
        "INSERT INTO simulated.clock VALUES ('2024-10-04T00:00:00Z')",
        "CREATE FUNCTION simulated.now() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT at FROM simulated.clock'",
    ] {
        sqlx::query(statement).execute(&pool).await.expect("made");
    }
    pool
}

impl Twin {
    /// Empties the database.
    pub fn new(runtime: Handle, pool: PgPool, history: &History) -> Self {
        let storage = Storage::from_pool(pool.clone());
        let target = target(history.bound, history.limit);
        runtime.block_on(async {
            sqlx::query("TRUNCATE runs, estimators, idempotency_keys CASCADE")
                .execute(&pool)
                .await
                .expect("emptied");
            support::store_snapshot(&storage).await;
            storage.put_compute_target(&target, start_of_time()).await.expect("stored");
        });
        let model = Model::new(history.bound, history.limit);
        Self {
            model,
            runtime,
            pool,
            storage,
            target,
            limit: history.limit,
            ids: Vec::new(),
            leases: HashMap::new(),
        }
    }

    fn claimant(&self, node: &str) -> Claimant {
        let ttl = Duration::from_millis(LEASE_TTL_MILLISECONDS.unsigned_abs());
        Claimant {
            node: node.to_owned(),
            host: node.to_owned(),
            ttl,
            default_target_limit: self.limit,
            caller_limit: None,
        }
    }

    fn place(&self, id: RunId) -> usize {
        self.ids.iter().position(|known| *known == id).expect("a run of this history")
    }

    /// What the real one claimed, in the words of the model, in the model's order.
    fn both(&mut self, mut model: Vec<Claimed>, real: &[leases::Claimed]) -> Vec<Claimed> {
        model.sort();
        let mut claimed = Vec::new();
        for one in real {
            let run = self.place(one.run.id);
            let twin = model.iter().find(|twin| twin.lease.run == run);
            let twin = twin.unwrap_or_else(|| panic!("only the real database gives run {run} away: {one:?}"));
            self.leases.insert(twin.lease, one.lease);
            claimed.push(Claimed {
                lease: twin.lease,
                status: one.run.status,
                attempt: one.run.attempt,
                cancel_requested: one.run.cancel_requested_at.is_some(),
            });
        }
        claimed.sort();
        assert_eq!(model, claimed, "the model, and the real database");
        claimed
    }
}

impl Store for Twin {
    fn submit(&mut self, key: usize, retries: Retries) -> usize {
        let place = self.model.submit(key, retries);
        let now = start_of_time() + TimeDelta::milliseconds(i64::try_from(key).expect("few"));
        let mut estimator = support::estimator(now);
        estimator.definition.insert("compute_target".to_owned(), json!("compute"));
        let mut run = support::run(&estimator, now);
        run.compute_target = "compute".to_owned();
        run.backend = self.target.backend.clone();
        run.max_attempts = retries.max_attempts;
        run.retry_on = if retries.on_script_failure { vec![Cause::ScriptFailed] } else { Vec::new() };
        let idempotency = Idempotency {
            scope: "create_run",
            caller: String::new(),
            key: key.to_string(),
            body_hash: [0; 32],
        };
        let answer = Recorded { status: 201, location: None, body: json!(run.id).to_string() };
        let inserted = self.runtime.block_on(self.storage.insert_run(
            &run,
            Some(&estimator),
            support::terms(Some(&idempotency)),
            || answer,
        ));
        match inserted.expect("the database works") {
            Insertion::Keyed(Keyed::Done(_)) => self.ids.push(run.id),
            Insertion::Keyed(Keyed::Replayed(earlier)) => {
                assert_eq!(earlier.body, json!(self.ids[place]).to_string())
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(self.ids.len(), self.model.rows().len(), "one run per key");
        place
    }

    fn cancel(&mut self, run: usize) -> bool {
        let model = self.model.cancel(run);
        let real = self
            .runtime
            .block_on(self.storage.of(&Default::default()).cancel_run(self.ids[run], start_of_time()));
        let real = matches!(real.expect("the database works"), Cancellation::Accepted(_));
        assert_eq!(model, real);
        real
    }

    fn admit(&mut self, node: &str, now: DateTime<Utc>) -> Vec<Claimed> {
        let model = self.model.admit(node, now);
        let real =
            self.runtime.block_on(self.storage.admit_runs(&self.claimant(node), Order::Priority, 100, now));
        self.both(model, &real.expect("the database works"))
    }

    fn adopt(&mut self, node: &str) -> Vec<Claimed> {
        let model = self.model.adopt(node);
        let real = self.runtime.block_on(self.storage.adopt_runs(&self.claimant(node), 100));
        self.both(model, &real.expect("the database works"))
    }

    fn renew(&mut self, held: &[Lease]) -> Vec<(usize, bool)> {
        let mut model = self.model.renew(held);
        let leases: Vec<leases::Lease> = held.iter().map(|lease| self.leases[lease]).collect();
        let ttl = Duration::from_millis(LEASE_TTL_MILLISECONDS.unsigned_abs());
        let real =
            self.runtime.block_on(self.storage.renew_leases(&leases, ttl)).expect("the database works");
        let mut real: Vec<(usize, bool)> =
            real.iter().map(|one| (self.place(one.run_id), one.cancel_requested)).collect();
        model.sort_unstable();
        model.dedup();
        real.sort_unstable();
        real.dedup();
        assert_eq!(model, real);
        real
    }

    fn release(&mut self, lease: Lease) {
        self.model.release(lease);
        self.runtime
            .block_on(self.storage.release_lease(&self.leases[&lease], Duration::ZERO))
            .expect("the database works");
    }

    fn release_all_of(&mut self, node: &str) {
        self.model.release_all_of(node);
        self.runtime.block_on(self.storage.release_leases_of(node)).expect("the database works");
    }

    fn move_run(&mut self, lease: Lease, from: Status, steps: &[Move], now: DateTime<Utc>) -> Written {
        let model = self.model.move_run(lease, from, steps, now);
        let transition = Transition { lease: self.leases[&lease], from, steps: steps.to_vec(), now };
        let real = self.runtime.block_on(self.storage.move_runs(&[transition]));
        let real = real.expect("the database takes every move that a course decides");
        assert_eq!([model].as_slice(), real, "{steps:?}");
        model
    }

    fn record_stop(&mut self, lease: Lease, now: DateTime<Utc>) -> Written {
        let model = self.model.record_stop(lease, now);
        let real = self.runtime.block_on(self.storage.record_stop_sent(&self.leases[&lease], now));
        let real = real.expect("the database works");
        assert_eq!(model, real);
        real
    }

    fn pass(&mut self, milliseconds: i64) {
        self.model.pass(milliseconds);
        let later = sqlx::query("UPDATE simulated.clock SET at = at + make_interval(secs => $1)")
            .bind(TimeDelta::milliseconds(milliseconds).as_seconds_f64())
            .execute(&self.pool);
        self.runtime.block_on(later).expect("the database works");
    }

    fn rows(&mut self) -> Vec<Row> {
        let model = self.model.rows();
        let real = sqlx::query_as::<_, (String, Option<String>, Option<i32>, Option<i32>, i32, bool)>(
            "SELECT status, cause, exit_code, signal, attempt, lease_token IS NOT NULL FROM runs ORDER BY created_at",
        )
        .fetch_all(&self.pool);
        let real = self.runtime.block_on(real).expect("the database works");
        let real: Vec<Row> = real
            .into_iter()
            .map(|(status, cause, exit_code, signal, attempt, is_leased)| Row {
                status: status.parse().expect("a status"),
                cause: cause.map(|word| word.parse().expect("a cause")),
                exit_code,
                signal,
                attempt: u32::try_from(attempt).expect("a number"),
                is_leased,
            })
            .collect();
        assert_eq!(model, real, "the model, and the real database");
        real
    }
}
