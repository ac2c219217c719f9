//! What can go wrong with the database, told apart by what the caller can do about it.

use std::fmt;

/// A row that says something the code cannot understand: a fault of ours or of somebody's hand in the database.
#[derive(Debug)]
pub struct Inconsistency {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The row's key.
    pub row: String,
    /// What is wrong with it.
    pub detail: String,
}

impl fmt::Display for Inconsistency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{} of {}: {}", self.table, self.column, self.row, self.detail)
    }
}

/// A failed database operation. Each says all of it by itself; there is no chain of sources to print again.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database cannot be reached, or will not answer now. Trying again later makes sense.
    #[error("the database is not available: {0}")]
    Unavailable(sqlx::Error),
    /// The database refused the statement: a fault of ours.
    #[error("the database refused a statement: {0}")]
    Refused(sqlx::Error),
    /// A row makes no sense.
    #[error("inconsistent row: {0}")]
    Inconsistent(Inconsistency),
}

impl StorageError {
    /// An inconsistency at the given place.
    pub(in crate::storage) fn inconsistent(
        table: &'static str,
        column: &'static str,
        row: impl fmt::Display,
        detail: impl fmt::Display,
    ) -> Self {
        Self::Inconsistent(Inconsistency { table, column, row: row.to_string(), detail: detail.to_string() })
    }

    /// There was no connection in time.
    #[must_use]
    pub const fn no_connection() -> Self {
        Self::Unavailable(sqlx::Error::PoolTimedOut)
    }

    /// Whether something was to be stored that needs what is gone: deleted, because it was old, after it was looked at.
    #[must_use]
    pub fn is_about_what_is_gone(&self) -> bool {
        let Self::Refused(sqlx::Error::Database(error)) = self else { return false };
        matches!(error.constraint(), Some("the_snapshot_is_there" | "runs_estimator_id_fkey"))
    }
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        let unavailable = match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed | E::Protocol(_) => {
                true
            }
            // SQLSTATE classes (PostgreSQL manual, appendix A): 08 connection, 53 out of resources, 57P0x the server is
            // shutting down or starting, 40 serialization failures and deadlocks, 58 system errors, 25006 a read-only
            // server (after a fail-over), 57014 and 55P03 statements and locks that took longer than the server allows.
            E::Database(e) => e.code().is_some_and(|code| {
                ["08", "53", "57P", "40", "58"].iter().any(|class| code.starts_with(class))
                    || ["25006", "57014", "55P03"].contains(&&*code)
            }),
            _ => false,
        };
        if unavailable { Self::Unavailable(error) } else { Self::Refused(error) }
    }
}

/// JSON as text, for `$n::text::json` parameters. Bound as JSON a value would travel as `jsonb`, which reorders keys and
/// respells numbers on its way into a `json` column.
pub(in crate::storage) fn json_text<T: serde::Serialize + ?Sized>(value: &T) -> Result<String, StorageError> {
    serde_json::to_string(value).map_err(|e| StorageError::Refused(sqlx::Error::Encode(Box::new(e))))
}

/// Reads a stored definition back exactly: numbers keep the spelling in which they were sent, and that is what the script
/// gets as its arguments.
pub(in crate::storage) fn exact_object(
    text: &str,
    table: &'static str,
    column: &'static str,
    row: impl fmt::Display,
) -> Result<serde_json::Map<String, serde_json::Value>, StorageError> {
    crate::domain::json::parse_object(text.as_bytes())
        .map_err(|error| StorageError::inconsistent(table, column, row, error))
}
