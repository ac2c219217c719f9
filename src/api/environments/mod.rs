//! Built environments: kept on the worker nodes, and shared by runs that ask for the same.

pub mod get;
pub mod list;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{domain::built_environment::EnvironmentKey, storage::environments::StoredEnvironment};

/// A built environment.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BuiltEnvironment {
    /// What it is known by: a run's `environment` has it as `build_key`.
    pub key: EnvironmentKey,
    /// How it was built.
    #[schema(example = "virtual_environment")]
    pub kind: String,
    /// Its interpreter's version.
    #[schema(example = "3.11.7")]
    pub python_version: String,
    /// How many distributions are installed.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub package_count: u64,
    /// The worker nodes that keep it.
    pub nodes: Vec<String>,
    /// What it takes of the disk, on all of these nodes together; files with several names count once.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub bytes: u64,
    /// When it was first seen.
    pub created_at: DateTime<Utc>,
    /// When a run last used it.
    pub last_used_at: DateTime<Utc>,
    /// How many runs found it there. A worker that is killed at the wrong moment leaves one out.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub hits: u64,
    /// How many runs had it built.
    #[schema(minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub misses: u64,
}

/// A built environment with what is installed in it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BuiltEnvironmentDetails {
    /// The environment.
    #[serde(flatten)]
    pub environment: BuiltEnvironment,
    /// Installed distributions as `name==version`, sorted.
    #[schema(example = json!(["chainer==7.0.0", "numpy==1.23.5"]))]
    pub packages: Vec<String>,
}

impl From<StoredEnvironment> for BuiltEnvironmentDetails {
    fn from(stored: StoredEnvironment) -> Self {
        let environment = BuiltEnvironment {
            key: stored.key,
            kind: stored.kind,
            python_version: stored.python_version,
            package_count: u64::try_from(stored.packages.len()).unwrap_or(u64::MAX),
            nodes: stored.nodes,
            bytes: stored.bytes,
            created_at: stored.created_at,
            last_used_at: stored.last_used_at,
            hits: stored.hits,
            misses: stored.misses,
        };
        Self { environment, packages: stored.packages }
    }
}
