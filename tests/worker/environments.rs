//! The list of built environments, as the worker keeps it.

use std::time::Duration;

use estimatord::{
    backend::BuiltEnvironment,
    domain::{built_environment::EnvironmentKey, run::Status},
    storage::{Storage, environments::StoredEnvironment},
};
use sqlx::PgPool;

use crate::{Stage, exited, scripted::Prepare};

fn built(key: &EnvironmentKey) -> BuiltEnvironment {
    BuiltEnvironment {
        key: key.clone(),
        kind: "virtual_environment".to_owned(),
        python_version: "3.11.2".to_owned(),
        packages: vec!["six==1.16.0".to_owned()],
        bytes: 4096,
    }
}

/// Waits until the environment is recorded as wanted: counting comes after the run's own next status.
async fn until(
    storage: &Storage,
    key: &EnvironmentKey,
    wanted: impl Fn(Option<&StoredEnvironment>) -> bool,
) -> Option<StoredEnvironment> {
    for _ in 0..2000 {
        let found = storage.get_environment(key).await.expect("read");
        if wanted(found.as_ref()) {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not in time");
}

#[sqlx::test]
async fn uses_are_counted_and_what_is_evicted_is_forgotten(pool: PgPool) {
    let stage = Stage::new(pool);
    let [key, other]: [EnvironmentKey; 2] = ["a", "b"].map(|digit| digit.repeat(64).parse().expect("a key"));
    let worker = stage.start_worker("a");
    stage.backend.set_for_all(exited(0));
    stage.backend.keep(vec![built(&key)]);
    for (reused, uses) in [(false, (0, 1)), (true, (1, 1))] {
        stage.backend.on_prepare(Prepare::SucceedWith(key.to_string(), reused));
        let run = stage.accept(|_| {}).await;
        assert_eq!(stage.until_ended(run).await.status, Status::Completed);
        let used = until(&stage.storage, &key, |found| {
            found.is_some_and(|found| (found.hits, found.misses) == uses)
        });
        let used = used.await.expect("recorded");
        assert_eq!((used.nodes, used.bytes), (vec!["a".to_owned()], 4096));
    }
    // Building the next one, the backend evicts the first.
    stage.backend.keep(vec![built(&other)]);
    stage.backend.on_prepare(Prepare::SucceedWith(other.to_string(), false));
    let run = stage.accept(|_| {}).await;
    stage.until_ended(run).await;
    until(&stage.storage, &key, |found| found.is_none()).await;
    assert_eq!(until(&stage.storage, &other, |found| found.is_some()).await.expect("there").misses, 1);
    worker.stop().await;
}

#[sqlx::test]
async fn a_worker_that_starts_lists_what_it_finds(pool: PgPool) {
    let stage = Stage::new(pool);
    let key: EnvironmentKey = "c".repeat(64).parse().expect("a key");
    stage.backend.keep(vec![built(&key)]);
    let worker = stage.start_worker("a");
    let found = until(&stage.storage, &key, |found| found.is_some()).await.expect("there");
    assert_eq!((found.hits, found.misses), (0, 0));
    worker.stop().await;
    // What was deleted by hand is forgotten too.
    stage.backend.keep(Vec::new());
    let worker = stage.start_worker("a");
    until(&stage.storage, &key, |found| found.is_none()).await;
    worker.stop().await;
}
