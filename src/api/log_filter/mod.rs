//! What is logged by the process that answers.

pub mod get;
pub mod put;

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::telemetry::LogFilterState;

/// What is logged by the replica that answers.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogFilter {
    /// What is logged now, in the syntax of `--log`.
    #[schema(example = "debug,sqlx=warn")]
    pub filter: String,
    /// What was configured at its start.
    #[schema(example = "info,sqlx=warn")]
    pub configured: String,
    /// Until when it is so, after that it is as configured again; null when it stays.
    pub until: Option<DateTime<Utc>>,
}

impl From<LogFilterState> for LogFilter {
    fn from(state: LogFilterState) -> Self {
        let LogFilterState { filter, configured, until } = state;
        Self { filter, configured, until }
    }
}
