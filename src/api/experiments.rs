//! `GET /v1/experiments`

use std::collections::BTreeMap;

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    error::ApiError,
    etag,
    extract::ApiQuery,
    paging::{Page, PageRequest},
    problem::Problem,
    scoped::Scoped,
};
use crate::storage::experiments as stored;

/// A name that runs share.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Experiment {
    /// Its name.
    #[schema(example = "digits")]
    pub name: String,
    /// How many of its runs have which status; a status that none has is left out.
    #[schema(example = json!({"Completed": 12, "Running": 1}))]
    pub runs: BTreeMap<&'static str, u64>,
    /// When its newest run was accepted.
    pub last_run_created_at: DateTime<Utc>,
}

impl From<stored::Experiment> for Experiment {
    fn from(stored: stored::Experiment) -> Self {
        Self { name: stored.name, runs: stored.runs, last_run_created_at: stored.last_run_created_at }
    }
}

/// List the experiments
///
/// By name, each with the number of its runs by status. An experiment is there as soon as a run names it.
#[utoipa::path(
    get, path = "/v1/experiments", tag = "runs",
    params(
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of experiments", body = Page<Experiment>),
        (status = 400, description = "The limit or the cursor is malformed", body = Problem),
    ),
)]
pub async fn list_experiments(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let request = PageRequest::<String>::take(&mut query, "experiments")?;
    query.finish(&["limit", "cursor"])?;
    let found = state.storage.list_experiments(request.after.as_deref(), request.rows()).await?;
    let items = found.into_iter().map(Experiment::from).collect();
    etag::json(StatusCode::OK, &request.page(items, |experiment| experiment.name.clone()))
}
