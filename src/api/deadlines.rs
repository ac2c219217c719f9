//! Ends what waited too long, also where no worker is up to look at the queue.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::state::Shared;

/// How often the queue is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// How many runs are ended at once; the others are a moment later.
const AT_ONCE: u32 = 100;

/// Ends runs whose `max_queue_duration_seconds` are over, until it is told to stop.
pub(super) async fn keep(state: Shared, stop: CancellationToken) {
    let mut is_in_trouble = false;
    while !stop.is_cancelled() {
        match state.installation.expire_queued_runs(AT_ONCE, state.clock.now()).await {
            Ok(_) => is_in_trouble = false,
            Err(error) => {
                if !is_in_trouble {
                    warn!("runs that waited too long cannot be ended: {error}");
                }
                is_in_trouble = true;
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => {}
        }
    }
}
