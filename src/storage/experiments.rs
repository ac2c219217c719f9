//! Experiments: names that runs share, with what became of their runs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::{ProjectStorage, StorageError, snapshots::to_u64};
use crate::domain::run::Status;

/// An experiment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Experiment {
    /// Its name.
    pub name: String,
    /// How many runs have which status.
    pub runs: BTreeMap<&'static str, u64>,
    /// When its newest run was accepted.
    pub last_run_created_at: DateTime<Utc>,
}

impl ProjectStorage {
    /// Experiments by name, those behind `after` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_experiments(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Experiment>, StorageError> {
        // The names of the page first, each found by the index; then only their runs are counted.
        let rows = sqlx::query!(
            r#"WITH RECURSIVE names AS (
                   (SELECT experiment_name AS name, 1 AS number FROM runs
                    WHERE project = $3 AND ($1::text IS NULL OR experiment_name > $1) ORDER BY experiment_name LIMIT 1)
                   UNION ALL
                   SELECT (SELECT experiment_name FROM runs WHERE project = $3 AND experiment_name > names.name
                           ORDER BY experiment_name LIMIT 1), names.number + 1
                   FROM names WHERE names.name IS NOT NULL AND names.number < $2
               )
               -- What waits on a cluster is shown as queued.
               SELECT experiment_name AS "name!", count(*) AS "count!", max(created_at) AS "newest!",
                      CASE WHEN status = 'Starting' AND waits_for IS NOT NULL THEN 'Queued' ELSE status END AS "status!"
               FROM runs JOIN names ON experiment_name = names.name
               WHERE project = $3
               GROUP BY 1, 4 ORDER BY 1"#,
            after,
            i32::try_from(limit).unwrap_or(i32::MAX),
            self.project.as_str(),
        )
        .fetch_all(&self.pool)
        .await?;
        let mut experiments: Vec<Experiment> = Vec::new();
        for row in rows {
            let bad = |e| StorageError::inconsistent("runs", "status", &row.name, e);
            let status: Status = row.status.parse().map_err(bad)?;
            if experiments.last().is_none_or(|last| last.name != row.name) {
                let name = row.name.clone();
                experiments.push(Experiment { name, runs: BTreeMap::new(), last_run_created_at: row.newest });
            }
            if let Some(experiment) = experiments.last_mut() {
                experiment.runs.insert(status.as_str(), to_u64(row.count));
                experiment.last_run_created_at = experiment.last_run_created_at.max(row.newest);
            }
        }
        Ok(experiments)
    }
}
