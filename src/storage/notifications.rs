//! Wake-ups between processes: hints only. Polling is the guarantee.

use sqlx::{PgConnection, postgres::PgListener};

use super::{Storage, StorageError};

const CHANNEL: &str = "estimatord_runs";

/// Tells every listening worker, when the transaction commits, that there may be work.
pub(in crate::storage) async fn notify(connection: &mut PgConnection) -> Result<(), StorageError> {
    sqlx::query!(r#"SELECT pg_notify($1, '') AS "done: ()""#, CHANNEL).execute(connection).await?;
    Ok(())
}

/// Hears of work.
pub struct Wakeups {
    listener: PgListener,
}

impl Wakeups {
    /// Waits for the next hint. A connection that broke is made anew; what was sent meanwhile is lost, which is why
    /// the caller also polls.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn next(&mut self) -> Result<(), StorageError> {
        self.listener.recv().await?;
        Ok(())
    }
}

impl Storage {
    /// Starts to listen, on a connection of its own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn listen(&self) -> Result<Wakeups, StorageError> {
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Wakeups { listener })
    }
}
