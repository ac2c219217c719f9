//! `DELETE /v1/estimators/{id}`

use axum::{extract::State, http::StatusCode};

use crate::{
    api::{error::ApiError, extract::ApiPath, problem::Problem, state::Shared},
    domain::ids::EstimatorId,
};

/// Archive an estimator
///
/// No list shows it any more and no new run can be made of it. Runs keep what they ran with. Archiving twice changes nothing.
#[utoipa::path(
    delete, path = "/v1/estimators/{id}", tag = "estimators",
    params(("id" = EstimatorId, Path, description = "The estimator's id")),
    responses(
        (status = 204, description = "It is archived"),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such estimator", body = Problem),
    ),
)]
pub async fn delete_estimator(
    State(state): State<Shared>,
    ApiPath(id): ApiPath<EstimatorId>,
) -> Result<StatusCode, ApiError> {
    if state.storage.archive_estimator(id, state.clock.now()).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("estimator", id))
    }
}
