//! Figures of the whole service, read from the database when somebody asks for metrics.

use std::time::Instant;

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
    /// Targets that people registered, by name.
    pub targets: Vec<TargetFigures>,
    /// Built environments that are kept, on all nodes.
    pub environments: u64,
    /// What they take.
    pub environments_bytes: u64,
    /// Messages that enabled webhooks are still to be sent.
    pub pending_deliveries: u64,
    /// Seconds that the oldest of them has waited; 0 when none does.
    pub oldest_pending_delivery_seconds: f64,
    /// Runs and snapshots whose rows are gone and whose files are not, as far as is known.
    pub pending_deletions: u64,
    /// Seconds that asking for all this waited for a connection.
    pub acquire_seconds: f64,
}

/// A target.
#[derive(Clone, Debug, PartialEq)]
pub struct TargetFigures {
    /// Its name.
    pub name: String,
    /// How many of its runs may be active; none when that is not known before a worker was there.
    pub limit: Option<u32>,
    /// Whether the last worker that looked could reach it; none before one has looked.
    pub reachable: Option<bool>,
    /// Seconds since a worker that serves it was last heard of; none before one was.
    pub worker_seen_seconds: Option<f64>,
}

/// The connections of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolFigures {
    /// How many there are.
    pub open: u32,
    /// How many of them nobody uses.
    pub idle: u32,
    /// How many there may be.
    pub max: u32,
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
        let asked = Instant::now();
        drop(self.pool.acquire().await?);
        let acquire_seconds = asked.elapsed().as_secs_f64();
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
        let others = sqlx::query!(
            r#"SELECT (SELECT count(*) FROM environments) AS "environments!",
                      (SELECT coalesce(sum(bytes), 0)::bigint FROM environments) AS "environments_bytes!",
                      (SELECT count(*) FROM artifact_deletions WHERE due_at <= now()) AS "pending_deletions!",
                      pending.deliveries AS "pending_deliveries!", pending.oldest AS "oldest!"
               FROM (SELECT count(*) AS deliveries,
                            coalesce(extract(epoch FROM now() - min(d.created_at)), 0)::float8 AS oldest
                     FROM webhook_deliveries AS d JOIN webhooks ON webhooks.name = d.webhook
                     WHERE d.status = 'pending' AND webhooks.enabled) AS pending"#
        )
        .fetch_one(&self.pool)
        .await?;
        Ok(ServiceFigures {
            runs,
            oldest_queued_seconds,
            live: self.live_runs().await?,
            targets: self.target_figures().await?,
            environments: to_u64(others.environments),
            environments_bytes: to_u64(others.environments_bytes),
            pending_deliveries: to_u64(others.pending_deliveries),
            oldest_pending_delivery_seconds: others.oldest.max(0.0),
            pending_deletions: to_u64(others.pending_deletions),
            acquire_seconds,
        })
    }

    /// The connections now.
    #[must_use]
    pub fn pool_figures(&self) -> PoolFigures {
        PoolFigures {
            open: self.pool.size(),
            idle: u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX),
            max: self.pool.options().get_max_connections(),
        }
    }

    async fn target_figures(&self) -> Result<Vec<TargetFigures>, StorageError> {
        let rows = sqlx::query!(
            r#"SELECT name, coalesce((backend->>'max_concurrent_runs')::bigint, default_limit) AS "limit", reachable,
                      extract(epoch FROM now() - worker_seen_at)::float8 AS silence
               FROM compute_targets WHERE one_off_run IS NULL ORDER BY name"#
        )
        .fetch_all(&self.pool)
        .await?;
        let targets = rows.into_iter().map(|row| TargetFigures {
            name: row.name,
            limit: row.limit.and_then(|limit| u32::try_from(limit).ok()),
            reachable: row.reachable,
            worker_seen_seconds: row.silence.map(|seconds| seconds.max(0.0)),
        });
        Ok(targets.collect())
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
