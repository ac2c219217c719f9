//! Compute targets.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, PgPool, types::Json};

use super::{ProjectStorage, Storage, StorageError, error::json_text, runs::Run, snapshots};
use crate::domain::compute_target::{
    Backend, ComputeTarget, ComputeTargetName, ComputeTargetType, Conda, Containers, DEFAULT_CLUSTER_LIMIT,
};
use crate::domain::{ids::SnapshotId, project::Project};

/// A target with what is kept beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredComputeTarget {
    /// The target.
    pub target: ComputeTarget,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// What the last worker that looked found.
    pub health: Option<Health>,
}

/// Whether a target can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it can.
    pub reachable: bool,
    /// Since when it is so.
    pub since: DateTime<Utc>,
    /// Why not, or what was found.
    pub detail: Option<String>,
}

/// What became of a request to delete a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Deleted,
    /// There is none of that name.
    NotFound,
    /// Runs that have not ended are on it.
    InUse {
        /// How many.
        runs: u64,
    },
}

struct Row {
    name: String,
    kind: String,
    backend: Json<Backend>,
    max_nodes: i32,
    vm_size: Option<String>,
    vm_priority: Option<String>,
    gpus_per_node: i32,
    containers: String,
    conda: String,
    projects: Vec<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    reachable: Option<bool>,
    health_since: Option<DateTime<Utc>>,
    health_detail: Option<String>,
}

impl TryFrom<Row> for StoredComputeTarget {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        let bad =
            |column, detail: String| StorageError::inconsistent("compute_targets", column, &row.name, detail);
        let name: ComputeTargetName =
            row.name.parse().map_err(|_| bad("name", "no valid name".to_owned()))?;
        let kind = ComputeTargetType::ALL
            .into_iter()
            .find(|t| t.as_str() == row.kind)
            .ok_or_else(|| bad("type", format!("`{}` is no type", row.kind)))?;
        let containers = Containers::ALL
            .into_iter()
            .find(|word| word.as_str() == row.containers)
            .ok_or_else(|| bad("containers", format!("`{}` is no word for it", row.containers)))?;
        let conda = Conda::ALL
            .into_iter()
            .find(|word| word.as_str() == row.conda)
            .ok_or_else(|| bad("conda", format!("`{}` is no word for it", row.conda)))?;
        let projects: Result<Vec<Project>, _> = row.projects.iter().map(|name| name.parse()).collect();
        let projects = projects.map_err(|error| bad("projects", error.to_string()))?;
        let health = match (row.reachable, row.health_since) {
            (Some(reachable), Some(since)) => Some(Health { reachable, since, detail: row.health_detail }),
            _ => None,
        };
        Ok(Self {
            target: ComputeTarget {
                name,
                kind,
                backend: row.backend.0,
                max_nodes: u32::try_from(row.max_nodes).unwrap_or(1),
                vm_size: row.vm_size,
                vm_priority: row.vm_priority,
                gpus_per_node: u32::try_from(row.gpus_per_node).unwrap_or(0),
                containers,
                conda,
                projects,
            },
            created_at: row.created_at,
            updated_at: row.updated_at,
            health,
        })
    }
}

impl Storage {
    /// Makes or replaces a target. Answers it, and whether it is new.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn put_compute_target(
        &self,
        target: &ComputeTarget,
        now: DateTime<Utc>,
    ) -> Result<(StoredComputeTarget, bool), StorageError> {
        // xmax is 0 on a row that this very statement inserted.
        let row = sqlx::query!(
            r#"INSERT INTO compute_targets
                   (name, type, backend, max_nodes, vm_size, vm_priority, gpus_per_node, containers, conda, created_at, updated_at,
                    projects)
               VALUES ($1, $2, $3::text::json, $4, $5, $6, $7, $8, $9, $10, $10, $11)
               ON CONFLICT (name) DO UPDATE SET
                   type = excluded.type, backend = excluded.backend, max_nodes = excluded.max_nodes,
                   vm_size = excluded.vm_size, vm_priority = excluded.vm_priority,
                   gpus_per_node = excluded.gpus_per_node, containers = excluded.containers, conda = excluded.conda,
                   updated_at = excluded.updated_at, projects = excluded.projects
               RETURNING (xmax = 0) AS "created!", created_at, updated_at, reachable, health_since, health_detail"#,
            target.name.as_str(),
            target.kind.as_str(),
            json_text(&target.backend)?,
            i32::try_from(target.max_nodes).unwrap_or(i32::MAX),
            target.vm_size.as_deref(),
            target.vm_priority.as_deref(),
            i32::try_from(target.gpus_per_node).unwrap_or(i32::MAX),
            target.containers.as_str(),
            target.conda.as_str(),
            now,
            &names(&target.projects),
        )
        .fetch_one(&self.pool)
        .await?;
        let health = match (row.reachable, row.health_since) {
            (Some(reachable), Some(since)) => Some(Health { reachable, since, detail: row.health_detail }),
            _ => None,
        };
        let stored = StoredComputeTarget {
            target: target.clone(),
            created_at: row.created_at,
            updated_at: row.updated_at,
            health,
        };
        Ok((stored, row.created))
    }

    /// Replaces a target that was last changed at `last_changed`; none when it has been changed or deleted since. The check and
    /// the change are one statement, so that of two callers who read the same target one is told.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn replace_compute_target(
        &self,
        target: &ComputeTarget,
        last_changed: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Option<StoredComputeTarget>, StorageError> {
        sqlx::query_as!(
            Row,
            r#"UPDATE compute_targets SET
                   type = $3, backend = $4::text::json, max_nodes = $5, vm_size = $6, vm_priority = $7, gpus_per_node = $8,
                   containers = $9, conda = $10, updated_at = $11, projects = $12
               WHERE name = $1 AND updated_at = $2
               RETURNING name, type AS kind, backend AS "backend: Json<Backend>", max_nodes, vm_size, vm_priority,
                         gpus_per_node, containers, conda, projects, created_at, updated_at, reachable, health_since,
                         health_detail"#,
            target.name.as_str(),
            last_changed,
            target.kind.as_str(),
            json_text(&target.backend)?,
            i32::try_from(target.max_nodes).unwrap_or(i32::MAX),
            target.vm_size.as_deref(),
            target.vm_priority.as_deref(),
            i32::try_from(target.gpus_per_node).unwrap_or(i32::MAX),
            target.containers.as_str(),
            target.conda.as_str(),
            now,
            &names(&target.projects),
        )
        .fetch_optional(&self.pool)
        .await?
        .map(TryInto::try_into)
        .transpose()
    }

    /// A target by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_compute_target(&self, name: &str) -> Result<Option<StoredComputeTarget>, StorageError> {
        find(&self.pool, name, None).await
    }

    /// Every target, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_compute_targets(&self) -> Result<Vec<StoredComputeTarget>, StorageError> {
        list(&self.pool, None).await
    }

    /// All targets, and which of these snapshots the projects have: what bodies refer to, on one connection.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn targets_and_snapshots<'a>(
        &self,
        wanted: &HashSet<(&'a Project, &'a SnapshotId)>,
    ) -> Result<(Vec<StoredComputeTarget>, HashSet<(&'a Project, &'a SnapshotId)>), StorageError> {
        let mut connection = self.pool.acquire().await?;
        let targets = list(&mut *connection, None).await?;
        Ok((targets, snapshots::which_are_there(&mut connection, wanted).await?))
    }

    /// Deletes a target on which no run is waiting or active.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_compute_target(&self, name: &str) -> Result<Deletion, StorageError> {
        let mut tx = self.pool.begin().await?;
        // The row lock keeps a worker from admitting a run, and a new run from being accepted, meanwhile.
        let found = sqlx::query_scalar!(
            r#"SELECT 1 AS "one!" FROM compute_targets WHERE name = $1 FOR UPDATE"#,
            name
        )
        .fetch_optional(&mut *tx)
        .await?;
        if found.is_none() {
            return Ok(Deletion::NotFound);
        }
        let runs = sqlx::query_scalar!(
            r#"SELECT count(*) AS "runs!" FROM runs
               WHERE compute_target = $1 AND status NOT IN ('Completed', 'Failed', 'Canceled')"#,
            name
        )
        .fetch_one(&mut *tx)
        .await?;
        if runs > 0 {
            return Ok(Deletion::InUse { runs: super::snapshots::to_u64(runs) });
        }
        sqlx::query!("DELETE FROM compute_targets WHERE name = $1", name).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Deletion::Deleted)
    }

    /// Records what a worker found of every target with a process backend: it can be reached where the worker is. With it
    /// goes how many active runs the worker admits on a target without a limit of its own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_process_health(
        &self,
        reachable: bool,
        detail: &str,
        default_limit: u32,
        now: DateTime<Utc>,
    ) -> Result<(), StorageError> {
        sqlx::query!(
            "UPDATE compute_targets SET
                 health_since = CASE WHEN reachable IS NOT DISTINCT FROM $1 THEN health_since ELSE $3 END,
                 reachable = $1, health_detail = $2, default_limit = $4, worker_seen_at = now()
             WHERE backend->>'kind' = 'process'",
            reachable,
            detail,
            now,
            i32::try_from(default_limit).unwrap_or(i32::MAX),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

impl Storage {
    /// Records what a worker found of a target on a cluster.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn record_cluster_health(
        &self,
        name: &ComputeTargetName,
        reachable: bool,
        detail: &str,
        now: DateTime<Utc>,
    ) -> Result<(), StorageError> {
        sqlx::query!(
            "UPDATE compute_targets SET
                 health_since = CASE WHEN reachable IS NOT DISTINCT FROM $2 THEN health_since ELSE $4 END,
                 reachable = $2, health_detail = $3, default_limit = $5, worker_seen_at = now()
             WHERE name = $1 AND backend->>'kind' <> 'process'",
            name.as_str(),
            reachable,
            detail,
            now,
            i32::try_from(DEFAULT_CLUSTER_LIMIT).unwrap_or(i32::MAX),
        )
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Makes the target of one run, in the transaction that accepts it. False when its name, which is half of the run's id, is taken.
pub(in crate::storage) async fn insert_one_off(
    connection: &mut PgConnection,
    target: &ComputeTarget,
    run: &Run,
) -> Result<bool, StorageError> {
    let inserted = sqlx::query!(
        "INSERT INTO compute_targets (name, type, backend, max_nodes, vm_size, vm_priority, gpus_per_node, containers, conda,
                                      created_at, updated_at, one_off_run, projects)
         VALUES ($1, $2, $3::text::json, $4, $5, $6, $7, $8, $9, $10, $10, $11, $12)
         ON CONFLICT (name) DO NOTHING",
        target.name.as_str(),
        target.kind.as_str(),
        json_text(&target.backend)?,
        i32::try_from(target.max_nodes).unwrap_or(i32::MAX),
        target.vm_size.as_deref(),
        target.vm_priority.as_deref(),
        i32::try_from(target.gpus_per_node).unwrap_or(i32::MAX),
        target.containers.as_str(),
        target.conda.as_str(),
        run.created_at,
        run.id.as_uuid(),
        &names(std::slice::from_ref(&run.project)),
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

impl ProjectStorage {
    /// A target that the project may use, by its name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_compute_target(&self, name: &str) -> Result<Option<StoredComputeTarget>, StorageError> {
        find(&self.pool, name, Some(&self.project)).await
    }

    /// Every target that the project may use, by name.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_compute_targets(&self) -> Result<Vec<StoredComputeTarget>, StorageError> {
        list(&self.pool, Some(&self.project)).await
    }
}

async fn find(
    pool: &PgPool,
    name: &str,
    project: Option<&Project>,
) -> Result<Option<StoredComputeTarget>, StorageError> {
    sqlx::query_as!(
        Row,
        r#"SELECT name, type AS kind, backend AS "backend: Json<Backend>", max_nodes, vm_size, vm_priority,
                  gpus_per_node, containers, conda, projects, created_at, updated_at, reachable, health_since,
                     health_detail
           FROM compute_targets WHERE name = $1 AND ($2::text IS NULL OR projects = '{}' OR $2 = ANY (projects))"#,
        name,
        project.map(Project::as_str),
    )
    .fetch_optional(pool)
    .await?
    .map(TryInto::try_into)
    .transpose()
}

async fn list(
    executor: impl PgExecutor<'_>,
    project: Option<&Project>,
) -> Result<Vec<StoredComputeTarget>, StorageError> {
    sqlx::query_as!(
        Row,
        r#"SELECT name, type AS kind, backend AS "backend: Json<Backend>", max_nodes, vm_size, vm_priority,
                  gpus_per_node, containers, conda, projects, created_at, updated_at, reachable, health_since,
                     health_detail
           FROM compute_targets WHERE $1::text IS NULL OR projects = '{}' OR $1 = ANY (projects) ORDER BY name"#,
        project.map(Project::as_str),
    )
    .fetch_all(executor)
    .await?
    .into_iter()
    .map(TryInto::try_into)
    .collect()
}

fn names(projects: &[Project]) -> Vec<String> {
    projects.iter().map(|project| project.as_str().to_owned()).collect()
}
