//! Wake-ups between processes: hints only. Polling is the guarantee.

use sqlx::{PgConnection, postgres::PgListener};

use super::{Storage, StorageError};

const CHANNEL: &str = "estimatord_runs";

/// What there may be to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hint {
    /// A run that waits, or a place for one.
    Work,
    /// The end of a run was asked for: its worker sees that when it renews its leases.
    Cancel,
}

impl Hint {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Work => "work",
            Self::Cancel => "cancel",
        }
    }

    /// Versions before this one say nothing of what it is: then it may be a cancel.
    fn of(payload: &str) -> Self {
        if payload == Self::Work.as_str() { Self::Work } else { Self::Cancel }
    }
}

/// Tells every listening worker, when the transaction commits, what there may be to do.
pub(in crate::storage) async fn notify(
    connection: &mut PgConnection,
    hint: Hint,
) -> Result<(), StorageError> {
    sqlx::query!(r#"SELECT pg_notify($1, $2) AS "done: ()""#, CHANNEL, hint.as_str())
        .execute(connection)
        .await?;
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
    pub async fn next(&mut self) -> Result<Hint, StorageError> {
        Ok(Hint::of(self.listener.recv().await?.payload()))
    }
}

impl Storage {
    /// Tells every listening worker that there may be work, without waiting until that is done. Not in the transaction of that work: one
    /// that tells holds up all others that do until it is on the disk.
    pub(in crate::storage) fn tell_of_work(&self) {
        let pool = self.pool.clone();
        tokio::spawn(async move {
            let told = async { notify(&mut *pool.acquire().await?, Hint::Work).await };
            if let Err(error) = told.await {
                tracing::debug!("workers look for work by themselves: {error}");
            }
        });
    }

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
