//! Nothing lost, nothing doubled, nothing stuck: histories of everything that can happen, in a world that a seed decides.
//!
//! The decisions are the real ones (`domain::run::Course`). The database and the compute are models; `twin.rs` does the same on a
//! real PostgreSQL and demands the same answers. A history that breaks something shrinks, and its seed is kept in
//! `regressions.txt`: add it to the commit that mends it.
//!
//! `SIMULATION_HISTORIES` and `SIMULATION_SEED` make more of them, and others.

#[path = "../support/values.rs"]
mod support;

mod compute;
mod invariants;
mod model;
mod operation;
mod store;
mod twin;
mod worker;
mod world;

use std::env;

use operation::{History, history};
use proptest::{
    prelude::*,
    test_runner::{Config, FileFailurePersistence, RngAlgorithm, TestError, TestRng, TestRunner},
};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::{model::Model, store::Store, twin::Twin, world::World};

/// How many, unless the environment says.
const HISTORIES: u32 = 100_000;
/// They are made by so many tests, for the sake of as many cores.
const PARTS: u32 = 4;
/// How many things happen in one, at most.
const LONGEST: usize = 40;

fn number(name: &str, or: u32) -> u32 {
    match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => or,
    }
}

/// Lets `histories` histories happen, the same ones every time.
fn simulate<S: Store>(
    part: u32,
    histories: u32,
    store: impl Fn(&History) -> S,
) -> Result<(), TestError<History>> {
    // What the broken fence breaks is no regression.
    let seeds = FileFailurePersistence::Direct("tests/simulation/regressions.txt");
    let is_kept = !cfg!(feature = "sabotage");
    let config = Config {
        cases: histories,
        max_shrink_iters: if cfg!(feature = "sabotage") { 256 } else { 4_096 },
        failure_persistence: is_kept.then(|| Box::new(seeds) as _),
        ..Config::default()
    };
    let mut seed = [0; 32];
    seed[..4].copy_from_slice(&number("SIMULATION_SEED", 1).to_le_bytes());
    seed[4..8].copy_from_slice(&part.to_le_bytes());
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    runner.run(&history(LONGEST), |history| {
        let outcome = World::new(&history, store(&history)).live(&history);
        outcome.map_err(|violation| TestCaseError::fail(violation.to_string()))
    })
}

fn in_memory(part: u32, histories: u32) -> Result<(), TestError<History>> {
    simulate(part, histories, |history| Model::new(history.bound, history.limit))
}

#[cfg(not(feature = "sabotage"))]
mod nothing_is_ever_broken {
    use super::*;

    fn part(part: u32) {
        let histories = number("SIMULATION_HISTORIES", HISTORIES).div_ceil(PARTS);
        if let Err(error) = in_memory(part, histories) {
            panic!("{error}");
        }
    }

    #[test]
    fn in_the_first_quarter_of_histories() {
        part(0);
    }

    #[test]
    fn in_the_second_quarter_of_histories() {
        part(1);
    }

    #[test]
    fn in_the_third_quarter_of_histories() {
        part(2);
    }

    #[test]
    fn in_the_last_quarter_of_histories() {
        part(3);
    }

    /// How many are done on a real database as well.
    const TWINS: u32 = 40;

    async fn on_postgres(pool: PgPoolOptions, connect: PgConnectOptions) -> Result<(), TestError<History>> {
        let pool = twin::with_a_clock_of_its_own(pool, connect).await;
        let runtime = tokio::runtime::Handle::current();
        let twins = number("SIMULATION_TWINS", TWINS);
        let simulated = tokio::task::spawn_blocking(move || {
            simulate(PARTS, twins, |history| Twin::new(runtime.clone(), pool.clone(), history))
        });
        simulated.await.expect("the simulation does not panic")
    }

    #[sqlx::test]
    async fn and_a_real_database_answers_the_same(pool: PgPoolOptions, connect: PgConnectOptions) {
        let found = on_postgres(pool, connect).await;
        if let Err(error) = found {
            panic!("{error}");
        }
    }
}

/// With the feature `sabotage` every claim gets the same token, in the model and in the real storage, so that whoever was overtaken
/// writes on. The simulation is worth something only if it finds that.
#[cfg(feature = "sabotage")]
mod a_broken_fence_is_found {
    use super::*;

    /// The smallest history that was found to break something.
    fn in_memory_within_a_part_of_the_histories() -> History {
        let found = in_memory(0, number("SIMULATION_HISTORIES", HISTORIES).div_ceil(PARTS));
        let Err(TestError::Fail(why, history)) = found else { panic!("not found: {found:?}") };
        println!("found: {why}\n{history:#?}");
        history
    }

    /// The same history breaks the real storage, whose claims are broken in the same way.
    #[sqlx::test]
    async fn in_memory_and_on_a_real_database(pool: PgPoolOptions, connect: PgConnectOptions) {
        // A panic is how some of it is found, hundreds of times while a history shrinks.
        std::panic::set_hook(Box::new(|_| {}));
        let history = tokio::task::spawn_blocking(in_memory_within_a_part_of_the_histories).await;
        let _ = std::panic::take_hook();
        let history = history.expect("found in memory");
        let pool = twin::with_a_clock_of_its_own(pool, connect).await;
        let runtime = tokio::runtime::Handle::current();
        let lived = tokio::task::spawn_blocking(move || {
            World::new(&history, Twin::new(runtime, pool, &history)).live(&history)
        });
        let lived = lived.await;
        assert!(!matches!(lived, Ok(Ok(()))), "found in memory and not on a real database");
        println!("on a real database: {lived:?}");
    }
}
