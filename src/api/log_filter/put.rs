//! `PUT /v1/service/log-filter`

use std::time::Duration;

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::LogFilter;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiJson,
        findings::{Members, error_at},
        problem::{Problem, ProblemKind},
        state::Shared,
    },
    domain::finding::Finding,
    telemetry::LogFilterError,
};

/// How long another filter is used when nobody says how long: ten minutes.
const DEFAULT_SECONDS: i64 = 600;

/// At most a day: whoever forgets it has not filled the disk.
const MAX_SECONDS: i64 = 86_400;

/// What every reader of a filter should write.
const FORM: &str = "levels of parts with commas between, e.g. `debug,sqlx=warn`";

// It documents the body; `read` reads it.
/// What is to be logged for a while.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"filter": "debug,sqlx=warn", "for_seconds": 600}))]
pub struct LogFilterBody {
    /// What is logged, in the syntax of `--log`.
    #[schema(min_length = 1, max_length = 1000, example = "debug,sqlx=warn")]
    pub filter: String,
    /// For how long; then it is as configured again.
    #[schema(minimum = 1, maximum = 86_400, default = 600, required = false)]
    pub for_seconds: i64,
}

/// Change the log filter
///
/// For a while, of the replica that answers: each has its own. A worker without an API heeds signals instead (SIGUSR1: a step
/// more, SIGUSR2: as configured). What libraries write of what goes over the wire is never logged.
#[utoipa::path(
    put, path = "/v1/service/log-filter", tag = "service",
    request_body(content = LogFilterBody, description = "What is to be logged"),
    responses(
        (status = 200, description = "So it is logged now", body = LogFilter),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The filter is refused; `findings` has everything that is wrong", body = Problem),
    ),
)]
pub async fn put_log_filter(State(state): State<Shared>, body: ApiJson) -> Result<Response, ApiError> {
    let refused = |findings| ApiError::Refused { kind: ProblemKind::InvalidLogFilter, findings };
    let (filter, period) = read(&body.members).map_err(refused)?;
    match state.log_filter.change(filter, period, state.clock.now()) {
        Ok(changed) => etag::json(StatusCode::OK, &LogFilter::from(changed)),
        Err(error @ LogFilterError::Gone(_)) => Err(ApiError::Internal(error.to_string())),
        Err(error) => {
            let finding =
                error_at("invalid-log-filter", "/filter", error.to_string(), format!("write {FORM}"));
            Err(refused(vec![finding]))
        }
    }
}

fn read(body: &Map<String, Value>) -> Result<(&str, Duration), Vec<Finding>> {
    let mut members = Members::new(body, "");
    let filter = members.text("filter");
    if filter.is_none() && members.findings.is_empty() {
        members.missing("filter", FORM);
    }
    let seconds = members.integer("for_seconds", 1..=MAX_SECONDS).unwrap_or(DEFAULT_SECONDS);
    let findings = members.finish();
    match filter {
        Some(filter) if findings.is_empty() => Ok((filter, Duration::from_secs(seconds.unsigned_abs()))),
        _ => Err(findings),
    }
}
