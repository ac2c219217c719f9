//! Estimators: definitions that were judged and stored.

pub mod archive;
pub mod create;
pub mod get;
pub(in crate::api) mod judged;
pub mod list;
pub mod migration;
pub mod parse;
pub mod render;
pub mod revalidate;
mod schema;
pub mod validate;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    domain::{environment::Environment, finding::Finding, ids::EstimatorId},
    storage::estimators as stored,
};

pub use schema::{EXAMPLE_SNAPSHOT, EstimatorDefinition};

/// The one framework of this service.
pub const FRAMEWORK: &str = "Chainer";

/// A stored estimator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Estimator {
    /// Its id.
    pub id: EstimatorId,
    /// `Chainer`.
    #[schema(example = "Chainer")]
    pub framework: String,
    /// The definition, key for key in the order in which it was sent; secrets are replaced by a marker.
    #[schema(value_type = EstimatorDefinition)]
    pub definition: Map<String, Value>,
    /// What validation said of it: warnings and infos.
    pub findings: Vec<Finding>,
    /// What it resolves to.
    pub environment: Environment,
    /// The version of the rules that it was accepted under; `revalidate_estimator` judges it by today's.
    #[schema(example = "2")]
    pub rule_set_version: String,
    /// When it was stored.
    pub created_at: DateTime<Utc>,
    /// When it was archived.
    pub archived_at: Option<DateTime<Utc>>,
}

impl From<stored::Estimator> for Estimator {
    fn from(estimator: stored::Estimator) -> Self {
        Self {
            id: estimator.id,
            framework: estimator.framework,
            definition: estimator.definition,
            findings: estimator.findings,
            environment: estimator.environment,
            rule_set_version: estimator.rule_set_version,
            created_at: estimator.created_at,
            archived_at: estimator.archived_at,
        }
    }
}
