//! `GET /v1/runs/{id}/metrics`

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{log_files::take_attempt, progress};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiPath, ApiQuery},
        paging::{Limit, Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
    },
    domain::{ids::RunId, record::MetricKind},
    storage::run_metrics::{MetricFilter, RunMetric},
};

const RANK: &str = "an integer from 0 to 2147483647";

/// Values are small: most runs fit into one page.
const LIMIT: Limit = Limit { default: 10_000, maximum: 10_000, form: "an integer from 1 to 10000" };
/// A page ends earlier where its values are large.
const PAGE_BYTES: u64 = 16 * 1024 * 1024;

/// A value that a script logged.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct MetricValue {
    /// 1 for the first of its attempt, in the order in which they arrived; each rank's own values are in the order in which
    /// it logged them.
    #[schema(minimum = 1, example = 1)]
    pub sequence: u64,
    /// The metric's name.
    #[schema(example = "accuracy")]
    pub name: String,
    /// Which method of the SDK's `Run` it was logged with: `scalar` is `log`.
    pub kind: MetricKind,
    /// The value: for `scalar` a number, a text or a boolean, for `list` an array, for the others an object. What JSON has
    /// no number for is one of the texts `NaN`, `Infinity` and `-Infinity`.
    #[schema(value_type = Value, example = json!(0.97))]
    pub value: Value,
    /// The step that the script gave it.
    pub step: Option<i64>,
    /// When it was logged.
    pub time: DateTime<Utc>,
    /// The rank of the process that logged it.
    #[schema(minimum = 0, maximum = 2_147_483_647, example = 0)]
    pub rank: u32,
    /// Its attempt.
    #[schema(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub attempt: u32,
    /// The description that the script gave it.
    pub description: Option<String>,
    /// The child run that logged it, where the script made one.
    pub child: Option<String>,
}

impl MetricValue {
    fn new(found: RunMetric, attempt: u32) -> Self {
        let RunMetric { sequence, rank, metric } = found;
        Self {
            sequence,
            name: metric.name,
            kind: metric.kind,
            value: metric.value,
            step: metric.step,
            time: metric.recorded_at,
            rank,
            attempt,
            description: metric.description,
            child: metric.child,
        }
    }
}

/// List the metrics of a run
///
/// What its script logged with Azure ML's `Run`, as it arrives: those of the latest attempt, unless another one is asked for.
#[utoipa::path(
    get, path = "/v1/runs/{id}/metrics", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("name" = Option<String>, Query, description = "Only this metric", example = "accuracy"),
        ("rank" = Option<u32>, Query, description = "Only what this rank logged", minimum = 0, maximum = 2_147_483_647),
        ("attempt" = Option<u32>, Query, description = "The attempt; the latest when not given", minimum = 1, maximum = 2_147_483_647),
        ("limit" = Option<u32>, Query, description = "How many values; 10000 when not given", minimum = 1, maximum = 10_000),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before, with the same filters"),
    ),
    responses(
        (status = 200, description = "A page of values", body = Page<MetricValue>),
        (status = 400, description = "A parameter is unknown or malformed", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
    ),
)]
pub async fn list_run_metrics(
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    mut query: ApiQuery,
) -> Result<Response, ApiError> {
    let asked_attempt = take_attempt(&mut query)?;
    let rank = query.take_number("rank", 0..=i32::MAX as u32, RANK)?;
    let name = query.take("name")?;
    let list = format!("metrics {id} {asked_attempt:?} {rank:?} {name:?}");
    // The attempt stands in the cursor: a new one must not continue the list of the one before.
    let request = PageRequest::<(u32, u64)>::take_with(&mut query, &list, LIMIT)?;
    query.finish(&["name", "rank", "attempt", "limit", "cursor"])?;
    let latest = progress(&state, id).await?.attempt;
    let (attempt, after) = request.after.unwrap_or((asked_attempt.unwrap_or(latest), 0));
    let filter =
        MetricFilter { attempt, name: name.as_deref(), rank, after, limit: request.limit, bytes: PAGE_BYTES };
    let (found, more) = state.installation.list_run_metrics(id, &filter).await?;
    let values: Vec<MetricValue> = found.into_iter().map(|found| MetricValue::new(found, attempt)).collect();
    etag::json(StatusCode::OK, &request.page_of(values, more, |value| (attempt, value.sequence)))
}
