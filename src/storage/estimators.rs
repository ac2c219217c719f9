//! Stored estimators.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{PgConnection, types::Json};
use uuid::Uuid;

use super::{
    ProjectStorage, Storage, StorageError,
    error::{exact_object, json_text},
    idempotency::{self, Begun, Idempotency, Keyed, Recorded},
};
use crate::domain::{environment::Environment, finding::Finding, ids::EstimatorId, project::Project};

/// A stored estimator. Its secrets were taken out before it came here.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimator {
    /// Its id.
    pub id: EstimatorId,
    /// `Chainer`.
    pub framework: String,
    /// The definition, key for key in the order in which it was sent.
    pub definition: Map<String, Value>,
    /// What validation said of it when it was accepted (no errors).
    pub findings: Vec<Finding>,
    /// What it resolves to.
    pub environment: Environment,
    /// The version of the rules that it was accepted under.
    pub rule_set_version: String,
    /// The password that its image is pulled with, encrypted.
    pub sealed_registry_password: Option<Vec<u8>>,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it was archived.
    pub archived_at: Option<DateTime<Utc>>,
}

struct Row {
    id: Uuid,
    framework: String,
    definition: String,
    findings: Json<Vec<Finding>>,
    environment: Json<Environment>,
    rule_set_version: String,
    registry_password: Option<Vec<u8>>,
    created_at: DateTime<Utc>,
    archived_at: Option<DateTime<Utc>>,
}

impl TryFrom<Row> for Estimator {
    type Error = StorageError;

    fn try_from(row: Row) -> Result<Self, StorageError> {
        Ok(Self {
            id: EstimatorId::from_uuid(row.id),
            framework: row.framework,
            definition: exact_object(&row.definition, "estimators", "definition", row.id)?,
            findings: row.findings.0,
            environment: row.environment.0,
            rule_set_version: row.rule_set_version,
            sealed_registry_password: row.registry_password,
            created_at: row.created_at,
            archived_at: row.archived_at,
        })
    }
}

/// Inserts estimators within somebody's transaction. One that came with a run goes with the last run that is made of it.
pub(in crate::storage) async fn insert_all(
    connection: &mut PgConnection,
    estimators: &[(&Project, &Estimator)],
    came_with_run: bool,
) -> Result<(), StorageError> {
    fn column<T>(estimators: &[(&Project, &Estimator)], of: impl Fn(&Estimator) -> T) -> Vec<T> {
        estimators.iter().map(|(_, estimator)| of(estimator)).collect()
    }
    let json =
        |of: &dyn Fn(&Estimator) -> Result<String, StorageError>| -> Result<Vec<String>, StorageError> {
            column(estimators, of).into_iter().collect()
        };
    sqlx::query!(
        "INSERT INTO estimators (id, framework, definition, findings, environment, rule_set_version, created_at,
                                 registry_password, project, came_with_run)
         SELECT id, framework, definition::json, findings::json, environment::json, rule_set_version, created_at,
                registry_password, project, $10
         FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::timestamptz[], $8::bytea[],
                     $9::text[])
              AS new (id, framework, definition, findings, environment, rule_set_version, created_at, registry_password, project)",
        &column(estimators, |estimator| estimator.id.as_uuid()),
        &column(estimators, |estimator| estimator.framework.clone()),
        &json(&|estimator| json_text(&estimator.definition))?,
        &json(&|estimator| json_text(&estimator.findings))?,
        &json(&|estimator| json_text(&estimator.environment))?,
        &column(estimators, |estimator| estimator.rule_set_version.clone()),
        &column(estimators, |estimator| estimator.created_at),
        &column(estimators, |estimator| estimator.sealed_registry_password.clone()) as _,
        &estimators.iter().map(|(project, _)| project.as_str().to_owned()).collect::<Vec<_>>(),
        came_with_run,
    )
    .execute(connection)
    .await?;
    Ok(())
}

impl Storage {
    /// The encrypted password that an estimator's image is pulled with, if it was given one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn sealed_registry_password(&self, id: EstimatorId) -> Result<Option<Vec<u8>>, StorageError> {
        let found =
            sqlx::query_scalar!("SELECT registry_password FROM estimators WHERE id = $1", id.as_uuid())
                .fetch_optional(&self.pool)
                .await?;
        Ok(found.flatten())
    }
}

impl ProjectStorage {
    /// Stores an estimator, together with the answer to an idempotent request. `answer` renders what the client gets.
    ///
    /// # Errors
    /// When its snapshot has been deleted since it was judged ([`StorageError::is_about_what_is_gone`]), or the database fails.
    pub async fn insert_estimator(
        &self,
        estimator: &Estimator,
        idempotency: Option<&Idempotency>,
        answer: impl FnOnce() -> Recorded,
    ) -> Result<Keyed, StorageError> {
        let mut tx = match idempotency::open(&self.pool, idempotency).await? {
            Begun::Answered(earlier) => return Ok(earlier),
            Begun::Open(tx) => tx,
        };
        insert_all(&mut tx, &[(&self.project, estimator)], false).await?;
        idempotency::finish(tx, idempotency, answer()).await
    }

    /// An estimator by its id, archived ones included.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn get_estimator(&self, id: EstimatorId) -> Result<Option<Estimator>, StorageError> {
        let row = sqlx::query_as!(
            Row,
            r#"SELECT id, framework, definition::text AS "definition!",
                      findings AS "findings: Json<Vec<Finding>>", environment AS "environment: Json<Environment>",
                      rule_set_version, registry_password, created_at, archived_at
               FROM estimators WHERE id = $1 AND project = $2"#,
            id.as_uuid(),
            self.project.as_str(),
        )
        .fetch_optional(&self.pool)
        .await?;
        row.map(TryInto::try_into).transpose()
    }

    /// Estimators that are not archived, newest first, those before `before` only, `limit` at most.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn list_estimators(
        &self,
        before: Option<(DateTime<Utc>, Uuid)>,
        limit: u32,
    ) -> Result<Vec<Estimator>, StorageError> {
        let rows = sqlx::query_as!(
            Row,
            r#"SELECT id, framework, definition::text AS "definition!",
                      findings AS "findings: Json<Vec<Finding>>", environment AS "environment: Json<Environment>",
                      rule_set_version, registry_password, created_at, archived_at
               FROM estimators
               WHERE archived_at IS NULL AND project = $4
                 AND ($1::timestamptz IS NULL OR (created_at, id) < ($1, $2::uuid))
               ORDER BY created_at DESC, id DESC LIMIT $3"#,
            before.map(|b| b.0),
            before.map(|b| b.1),
            i64::from(limit),
            self.project.as_str(),
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter().map(TryInto::try_into).collect()
    }

    /// Archives an estimator: no list shows it and no new run may name it. Answers false when there is none.
    /// Archiving twice changes nothing.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn archive_estimator(&self, id: EstimatorId, now: DateTime<Utc>) -> Result<bool, StorageError> {
        let result = sqlx::query!(
            "UPDATE estimators SET archived_at = coalesce(archived_at, $2) WHERE id = $1 AND project = $3",
            id.as_uuid(),
            now,
            self.project.as_str(),
        )
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected() == 1)
    }
}
