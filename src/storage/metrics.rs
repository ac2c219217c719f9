//! Figures of the whole service, read from the database when somebody asks for metrics.

use super::{Storage, StorageError, snapshots::to_u64};
use crate::domain::run::Status;

/// Counts and ages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceFigures {
    /// Runs by status.
    pub runs: Vec<(Status, u64)>,
    /// Seconds that the oldest queued run has waited; 0 when none waits.
    pub oldest_queued_seconds: f64,
    /// Runs that have not ended, by target and status.
    pub live: Vec<LiveRuns>,
}

/// Runs of one target that are in one status.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveRuns {
    /// The target's name; none for targets that were made for one run, all together.
    pub target: Option<String>,
    /// The status.
    pub status: Status,
    /// How many there are.
    pub runs: u64,
    /// Seconds since the oldest of them was accepted.
    pub oldest_seconds: f64,
}

impl Storage {
    /// The figures now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn service_figures(&self) -> Result<ServiceFigures, StorageError> {
        let rows = sqlx::query!(r#"SELECT status, count(*) AS "runs!" FROM runs GROUP BY status"#)
            .fetch_all(&self.pool)
            .await?;
        let mut runs = Vec::with_capacity(rows.len());
        for row in rows {
            let status = row
                .status
                .parse()
                .map_err(|e| StorageError::inconsistent("runs", "status", "group by", e))?;
            runs.push((status, to_u64(row.runs)));
        }
        runs.sort();
        let oldest_queued_seconds = sqlx::query_scalar!(
            r#"SELECT coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS "age!"
               FROM runs WHERE status = 'Queued'"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(ServiceFigures { runs, oldest_queued_seconds, live: self.live_runs().await? })
    }

    async fn live_runs(&self) -> Result<Vec<LiveRuns>, StorageError> {
        let rows = sqlx::query!(
            r#"SELECT CASE WHEN plan -> 'one_off_target' IS NULL THEN compute_target END AS target, status, count(*) AS "runs!",
                      extract(epoch FROM now() - min(created_at))::float8 AS "oldest!"
               FROM runs WHERE status NOT IN ('Completed', 'Failed', 'Canceled') GROUP BY 1, 2 ORDER BY 1, 2"#
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                let status = row.status.parse();
                Ok(LiveRuns {
                    target: row.target,
                    status: status.map_err(|e| StorageError::inconsistent("runs", "status", "live", e))?,
                    runs: to_u64(row.runs),
                    oldest_seconds: row.oldest.max(0.0),
                })
            })
            .collect()
    }
}
