//! Valid values, as they are after validation.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use estimatord::{
    clock::entropy,
    domain::{
        compute_target::Backend,
        environment::{Environment, EnvironmentKind},
        ids::{EstimatorId, RunId, SnapshotId},
        plan::{Launcher, Plan},
        run::Status,
    },
    storage::{
        Storage,
        estimators::Estimator,
        idempotency::{Idempotency, Recorded},
        runs::{Run, Terms},
    },
};
use serde_json::{Map, json};

pub fn snapshot_id(n: u8) -> SnapshotId {
    SnapshotId::from_digest([n; 32])
}

fn environment() -> Environment {
    Environment {
        kind: EnvironmentKind::UserManaged,
        interpreter_path: None,
        framework: "Chainer".to_owned(),
        framework_version: None,
        python_version: None,
        docker: false,
        image: None,
        container: Default::default(),
        prebuilt_packages: Vec::new(),
        pip_packages: Vec::new(),
        pip_origins: Default::default(),
        conda_packages: Vec::new(),
        conda_channels: Vec::new(),
        environment_variables: Vec::new(),
        shm_size: None,
        hash: "sha256:0".to_owned(),
    }
}

fn plan() -> Plan {
    Plan {
        snapshot_id: snapshot_id(1),
        entry_script: "train.py".to_owned(),
        arguments: vec!["--epochs".to_owned(), "2".to_owned()],
        launcher: Launcher::Single,
        node_count: 1,
        process_count_per_node: 1,
        compute_target: "local".to_owned(),
        one_off_target: None,
        target_nodes: None,
        containers: Default::default(),
        use_gpu: false,
        gpus_per_node: 0,
        max_run_duration_seconds: None,
        data: Default::default(),
        environment: environment(),
    }
}

/// Stores the snapshot that everything here is made of.
pub async fn store_snapshot(storage: &Storage) {
    let answer = |_, _| Recorded { status: 201, location: None, body: json!({}).to_string() };
    let now = DateTime::<Utc>::UNIX_EPOCH;
    storage
        .of(&Default::default())
        .insert_snapshot(&snapshot_id(1), &[], None, now, answer)
        .await
        .expect("stored");
}

/// On which a run is accepted whatever is queued.
pub fn terms(idempotency: Option<&Idempotency>) -> Terms<'_> {
    Terms { idempotency, put_hash: None, max_queued: 1_000_000, trace_parent: None }
}

pub fn estimator(now: DateTime<Utc>) -> Estimator {
    let definition = json!({"source_directory": snapshot_id(1), "entry_script": "train.py", "compute_target": "local",
        "script_params": {"--z": 1, "--a": "2.0"}, "user_managed": true});
    Estimator {
        id: EstimatorId::generate(now, entropy()),
        framework: "Chainer".to_owned(),
        definition: definition.as_object().cloned().unwrap_or_else(Map::new),
        findings: Vec::new(),
        environment: environment(),
        rule_set_version: "2".to_owned(),
        sealed_registry_password: None,
        created_at: now,
        archived_at: None,
    }
}

pub fn run(estimator: &Estimator, now: DateTime<Utc>) -> Run {
    Run {
        id: RunId::generate(now, entropy()),
        experiment_name: "digits".to_owned(),
        display_name: None,
        estimator_id: estimator.id,
        compute_target: "local".to_owned(),
        backend: Backend::process(),
        definition: estimator.definition.clone(),
        findings: Vec::new(),
        plan: plan(),
        actual_environment: None,
        tags: BTreeMap::new(),
        priority: 0,
        max_attempts: 1,
        status: Status::Queued,
        cause: None,
        detail: None,
        exit_code: None,
        signal: None,
        attempt: 0,
        created_at: now,
        started_at: None,
        finished_at: None,
        cancel_requested_at: None,
        stop_sent_at: None,
        cancel_evidence: None,
        retry_on: Vec::new(),
        queued_at: Some(now),
        max_queue_duration_seconds: None,
        caller: String::new(),
        project: Default::default(),
        rerun_of: None,
    }
}
