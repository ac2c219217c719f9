//! Load on a service: as much as some connections can send, or as much as was planned.
//!
//! The driver is one thread, so that most of the machine is left to what it drives.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rand::RngExt as _;
use tokio::{
    sync::{Mutex, mpsc},
    task::JoinSet,
};

use crate::{
    http::{Call, Connection},
    latencies::Latencies,
};

/// What is sent: the calls in turn, over and over.
pub type Calls = Arc<[Call]>;

/// What came of it.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Requests that were answered as expected, in a second.
    pub rate: f64,
    /// How long they took.
    pub latencies: Latencies,
}

/// Each connection sends the next request when it has the answer to the last: how much goes through at most. Its latencies are
/// those of a service that nobody asks for more than it can do.
///
/// # Errors
/// When a request fails.
pub fn closed(
    address: SocketAddr,
    calls: &Calls,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Measured> {
    runtime()?.block_on(async {
        let opened = open_all(address, connections).await?;
        let (begun, mut tasks) = (Instant::now(), JoinSet::new());
        let deadline = begun + duration;
        for (number, mut connection) in opened.into_iter().enumerate() {
            let calls = Arc::clone(calls);
            tasks.spawn(async move {
                let mut taken = Vec::new();
                // Each begins somewhere else, so that not all ask for the same at once.
                let first = number * calls.len() / connections;
                for call in calls.iter().cycle().skip(first) {
                    let sent = Instant::now();
                    connection.ask(call).await?;
                    let answered = Instant::now();
                    taken.push(answered - sent);
                    if answered >= deadline {
                        break;
                    }
                }
                anyhow::Ok(taken)
            });
        }
        finish(tasks, begun).await
    })
}

/// Requests are due at moments that were chosen before, at random around a rate, whatever became of those before: what waits for a
/// connection waits on the service's account, from the moment when it was due.
///
/// # Errors
/// When a request fails.
pub fn open(
    address: SocketAddr,
    calls: &Calls,
    connections: usize,
    rate: f64,
    duration: Duration,
) -> anyhow::Result<Measured> {
    runtime()?.block_on(async {
        let opened = open_all(address, connections).await?;
        let begun = Instant::now();
        let due = schedule(begun, rate, duration);
        let mut tasks = JoinSet::new();
        for mut connection in opened {
            let (calls, due) = (Arc::clone(calls), Arc::clone(&due));
            tasks.spawn(async move {
                let mut taken = Vec::new();
                loop {
                    let next = due.lock().await.recv().await;
                    let Some((number, at)) = next else { return anyhow::Ok(taken) };
                    connection.ask(&calls[number % calls.len()]).await?;
                    taken.push(at.elapsed());
                }
            });
        }
        finish(tasks, begun).await
    })
}

type Schedule = Arc<Mutex<mpsc::UnboundedReceiver<(usize, Instant)>>>;

/// Announces each request when it is due. A thread of its own: a runtime's timers are right to a millisecond only.
fn schedule(begun: Instant, rate: f64, duration: Duration) -> Schedule {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let (mut random, mut at) = (rand::rng(), begun);
        for number in 0.. {
            // Those who come independently of one another come so.
            let pause = -(1.0 - random.random::<f64>()).ln() / rate;
            at += Duration::from_secs_f64(pause);
            if at - begun > duration {
                return;
            }
            std::thread::sleep(at.saturating_duration_since(Instant::now()));
            if sender.send((number, at)).is_err() {
                return;
            }
        }
    });
    Arc::new(Mutex::new(receiver))
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("a runtime for the driver")
}

async fn open_all(address: SocketAddr, connections: usize) -> anyhow::Result<Vec<Connection>> {
    let mut opened = Vec::with_capacity(connections);
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    Ok(opened)
}

async fn finish(
    mut tasks: JoinSet<anyhow::Result<Vec<Duration>>>,
    begun: Instant,
) -> anyhow::Result<Measured> {
    let mut all = Vec::new();
    while let Some(taken) = tasks.join_next().await {
        all.extend(taken??);
    }
    let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
    Ok(Measured { rate, latencies: all.into() })
}
