//! `GET /v1/estimators/{id}/migration`

use axum::{http::StatusCode, response::Response};

use super::judged::{found, judged};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiPath,
        problem::{Problem, ProblemKind},
        scoped::Scoped,
    },
    domain::{
        ids::EstimatorId,
        judge,
        migration::{self, MigrationReport},
        render::Subject,
    },
};

/// Say where a stored estimator can move to
///
/// The class is deprecated. For every parameter that the definition gives: what it means, and where it goes in a `ScriptRunConfig` of
/// SDK v1 and in a command job of v2, exactly, nearly or not at all. It is judged by today's rules first; the texts themselves are
/// what `render_estimator` answers.
#[utoipa::path(
    get, path = "/v1/estimators/{id}/migration", tag = "estimators",
    params(("id" = EstimatorId, Path, description = "The estimator's id")),
    responses(
        (status = 200, description = "The report", body = MigrationReport),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such estimator", body = Problem),
        (status = 422, description = "Today's rules refuse the estimator; `findings` has everything that was found", body = Problem),
    ),
)]
pub async fn get_estimator_migration(
    state: Scoped,
    ApiPath(id): ApiPath<EstimatorId>,
) -> Result<Response, ApiError> {
    let stored = found(&state, id).await?;
    let judged = judged(&state, &stored.definition).await?;
    let Some(accepted) = &judged.verdict.accepted else {
        let findings = judged.verdict.findings;
        return Err(ApiError::Refused { kind: ProblemKind::InvalidDefinition, findings });
    };
    let plan = judge::plan(accepted);
    let subject = Subject { plan: &plan, definition: Some(&accepted.definition) };
    etag::json(StatusCode::OK, &migration::report(&subject))
}
