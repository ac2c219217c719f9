//! `GET /v1/service/log-filter`

use axum::{extract::State, http::StatusCode, response::Response};

use super::LogFilter;
use crate::api::{error::ApiError, etag, state::Shared};

/// Get the log filter
///
/// Of the replica that answers: each has its own.
#[utoipa::path(
    get, path = "/v1/service/log-filter", tag = "service",
    responses((status = 200, description = "What is logged", body = LogFilter)),
)]
pub async fn get_log_filter(State(state): State<Shared>) -> Result<Response, ApiError> {
    etag::json(StatusCode::OK, &LogFilter::from(state.log_filter.state()))
}
