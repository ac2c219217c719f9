//! Compute targets.

use chrono::{DateTime, TimeDelta, Utc};
use estimatord::{
    domain::compute_target::{Backend, ComputeTarget, ComputeTargetType, Conda, Containers},
    storage::{Storage, compute_targets::Deletion},
};
use sqlx::PgPool;

use crate::support::FixedClock;

fn cluster() -> ComputeTarget {
    ComputeTarget {
        name: "cpu-cluster".parse().expect("a name"),
        kind: ComputeTargetType::AmlCompute,
        backend: Backend { max_concurrent_runs: Some(3), ..Backend::process() },
        max_nodes: 4,
        vm_size: Some("STANDARD_D2_V2".to_owned()),
        vm_priority: None,
        gpus_per_node: 0,
        containers: Containers::Never,
        conda: Conda::Auto,
        projects: Vec::new(),
    }
}

#[sqlx::test]
async fn local_exists_from_the_start(pool: PgPool) {
    let targets = Storage::from_pool(pool).list_compute_targets().await.expect("read");
    assert_eq!(targets.len(), 1);
    let local = &targets[0].target;
    assert_eq!((local.name.as_str(), local.kind, local.max_nodes), ("local", ComputeTargetType::Local, 1));
}

#[sqlx::test]
async fn a_target_is_made_read_replaced_and_deleted(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let (made, new) = storage.put_compute_target(&cluster(), now).await.expect("made");
    assert!(new);
    assert_eq!(storage.get_compute_target("cpu-cluster").await.expect("read"), Some(made));
    let changed = ComputeTarget { max_nodes: 8, conda: Conda::Never, ..cluster() };
    let later = now + TimeDelta::seconds(1);
    let (replaced, new) = storage.put_compute_target(&changed, later).await.expect("replaced");
    assert!(!new);
    assert_eq!((replaced.target.max_nodes, replaced.created_at, replaced.updated_at), (8, now, later));
    assert_eq!(storage.delete_compute_target("cpu-cluster").await.expect("deleted"), Deletion::Deleted);
    assert_eq!(storage.delete_compute_target("cpu-cluster").await.expect("asked"), Deletion::NotFound);
}

#[sqlx::test]
async fn a_target_with_live_runs_stays(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let clock = FixedClock::default();
    crate::accept(&storage, &clock, |_| {}).await;
    assert_eq!(storage.delete_compute_target("local").await.expect("asked"), Deletion::InUse { runs: 1 });
}

#[sqlx::test]
async fn health_keeps_the_time_since_when(pool: PgPool) {
    let storage = Storage::from_pool(pool);
    let now = DateTime::<Utc>::UNIX_EPOCH;
    storage.record_process_health(true, "here", 2, now).await.expect("recorded");
    storage.record_process_health(true, "there", 2, now + TimeDelta::seconds(5)).await.expect("recorded");
    let local = storage.get_compute_target("local").await.expect("read").expect("local exists");
    let health = local.health.expect("known");
    assert_eq!((health.reachable, health.since, health.detail.as_deref()), (true, now, Some("there")));
}
