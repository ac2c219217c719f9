//! `DELETE /v1/estimators/{id}`

use axum::http::{HeaderMap, StatusCode, header};

use super::Estimator;

use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::ids::EstimatorId,
};

/// Archive an estimator
///
/// No list shows it any more and no new run can be made of it. Runs keep what they ran with. Archiving twice changes nothing.
#[utoipa::path(
    delete, path = "/v1/estimators/{id}", tag = "estimators",
    params(
        ("id" = EstimatorId, Path, description = "The estimator's id"),
        ("If-Match" = Option<String>, Header, description = "Only archive the estimator when it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is archived"),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such estimator", body = Problem),
        (status = 412, description = "The estimator does not have the ETag of If-Match", body = Problem),
    ),
)]
pub async fn delete_estimator(
    state: Scoped,
    ApiPath(id): ApiPath<EstimatorId>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    if headers.contains_key(header::IF_MATCH) {
        let current = state.storage.get_estimator(id).await?.map(Estimator::from);
        etag::require_match(&headers, current.as_ref())?;
    }
    if state.storage.archive_estimator(id, state.clock.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("estimator", id))
    }
}
