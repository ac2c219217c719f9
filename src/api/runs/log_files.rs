//! `GET /v1/runs/{id}/logs`

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::progress;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiPath, ApiQuery},
        problem::Problem,
        scoped::Scoped,
    },
    domain::{ids::RunId, run::Status},
};

/// A log file.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogFile {
    /// Its path.
    #[schema(example = "user_logs/std_log.txt")]
    pub path: String,
    /// How much of it can be read now.
    #[schema(minimum = 0, example = 4711)]
    pub bytes: u64,
    /// Whether nothing will be added.
    pub complete: bool,
    /// Its attempt.
    #[schema(minimum = 1, maximum = 2_147_483_647, example = 1)]
    pub attempt: u32,
}

/// The log files of an attempt.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogFiles {
    /// By path.
    pub items: Vec<LogFile>,
    /// Where the run is: once it has ended no file is added.
    pub run_status: Status,
}

/// The query parameter `attempt`, where it is given.
///
/// # Errors
/// When it is the number of no attempt.
pub(super) fn take_attempt(query: &mut ApiQuery) -> Result<Option<u32>, ApiError> {
    const FORM: &str = "the number of an attempt: 1 for the first, at most 2147483647";
    const MAX_ATTEMPT: u32 = i32::MAX as u32;
    query.take_number("attempt", 1..=MAX_ATTEMPT, FORM)
}

/// List the log files of a run
///
/// Those of the latest attempt, unless another one is asked for. Standard output and error are
/// `user_logs/std_log.txt` (`user_logs/std_log_<rank>.txt` for several processes).
#[utoipa::path(
    get, path = "/v1/runs/{id}/logs", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("attempt" = Option<u32>, Query, description = "The attempt; the latest when not given", minimum = 1, maximum = 2_147_483_647),
    ),
    responses(
        (status = 200, description = "The log files", body = LogFiles),
        (status = 400, description = "The id or the attempt is malformed", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
    ),
)]
pub async fn list_run_logs(
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    mut query: ApiQuery,
) -> Result<Response, ApiError> {
    let attempt = take_attempt(&mut query)?;
    query.finish(&["attempt"])?;
    let progress = progress(&state, id).await?;
    let logs = state.installation.list_run_logs(id, attempt.unwrap_or(progress.attempt)).await?;
    let items = logs
        .into_iter()
        .map(|log| LogFile { path: log.name, bytes: log.bytes, complete: log.complete, attempt: log.attempt })
        .collect();
    etag::json(StatusCode::OK, &LogFiles { items, run_status: progress.status })
}
