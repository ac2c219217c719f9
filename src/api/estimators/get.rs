//! `GET /v1/estimators/{id}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::Estimator;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::ids::EstimatorId,
};

/// Get an estimator
///
/// Archived ones included: runs that were made of them refer to them.
#[utoipa::path(
    get, path = "/v1/estimators/{id}", tag = "estimators",
    params(
        ("id" = EstimatorId, Path, description = "The estimator's id"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the estimator still has this ETag"),
    ),
    responses(
        (status = 200, description = "The estimator", body = Estimator, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such estimator", body = Problem),
    ),
)]
pub async fn get_estimator(
    state: Scoped,
    ApiPath(id): ApiPath<EstimatorId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let estimator = state.storage.get_estimator(id).await?;
    let estimator = estimator.ok_or_else(|| ApiError::not_found("estimator", id))?;
    etag::tagged(&headers, StatusCode::OK, &Estimator::from(estimator))
}
