//! Tokens that were never seen are looked up one after the other, a few at a time: however many somebody makes up, the database has
//! little to do with them, and a good one waits its turn and gets in. A budget that guesses use up would keep good ones out with them.

use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api::error::ApiError;

/// A part of the database's connections, each of which answers thousands a second.
const AT_ONCE: usize = 4;
/// How long one waits its turn: far longer than it takes to look up all that can wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// The turns of looking up tokens.
pub struct Turns(Semaphore);

impl Default for Turns {
    fn default() -> Self {
        Self(Semaphore::new(AT_ONCE))
    }
}

impl Turns {
    /// Waits for a turn, in the order of coming; it ends with the value.
    ///
    /// # Errors
    /// When too many are before it.
    pub async fn take(&self) -> Result<SemaphorePermit<'_>, ApiError> {
        let turn = tokio::time::timeout(PATIENCE, self.0.acquire()).await;
        turn.ok().and_then(Result::ok).ok_or(ApiError::Busy)
    }
}
