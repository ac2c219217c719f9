//! Writing the moves of all runs that a worker drives, as they come.

use crate::{
    storage::{Storage, StorageError, moves::Transition, transitions::Written},
    together::Work,
};

/// Moves that one transaction writes: what is locked by it is waited for.
pub(in crate::worker) const MAX_MOVES_TOGETHER: usize = 256;

/// Such transactions at once: while one is written to the disk another is made.
pub(in crate::worker) const WRITING_AT_ONCE: usize = 2;

/// Writes moves.
pub(in crate::worker) struct Moves(pub Storage);

impl Work for Moves {
    type Item = Transition;
    type Done = Result<Written, StorageError>;

    async fn for_all(&self, steps: &[Transition]) -> Option<Vec<Self::Done>> {
        // Which of them the database would not take shows when each is tried by itself. One that was written after all is found
        // written, as after any lost answer.
        let written = self.0.move_runs(steps).await.ok()?;
        Some(written.into_iter().map(Ok).collect())
    }

    async fn for_one(&self, step: Transition) -> Self::Done {
        let written = self.0.move_runs(std::slice::from_ref(&step)).await?;
        Ok(written.first().copied().unwrap_or(Written::LeaseLost))
    }
}
