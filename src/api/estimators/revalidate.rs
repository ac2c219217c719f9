//! `POST /v1/estimators/{id}/revalidate`

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::judged::{found, judged};
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::{environment::Environment, finding::Finding, ids::EstimatorId, rules::RULE_SET_VERSION},
};

/// What today's rules say of a stored estimator.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Revalidation {
    /// Whether no finding is an error.
    pub valid: bool,
    /// The version of the rules that it was accepted under.
    #[schema(example = "1")]
    pub accepted_under: String,
    /// The version of the rules that judged it now.
    #[schema(example = "2")]
    pub rule_set_version: String,
    /// Everything that was found now, in the order of the parameters in the signature.
    pub findings: Vec<Finding>,
    /// What it resolves to now; null when it is not valid.
    pub environment: Option<Environment>,
    /// Whether it resolves to the environment that it had when it was stored.
    pub same_environment: bool,
}

/// Judge a stored estimator by today's rules
///
/// And by what is there today: targets and datastores may have gone since. Answers 200 whatever is found; the estimator stays as
/// it is. Archived ones can be asked about, too.
#[utoipa::path(
    post, path = "/v1/estimators/{id}/revalidate", tag = "estimators",
    params(("id" = EstimatorId, Path, description = "The estimator's id")),
    responses(
        (status = 200, description = "The verdict", body = Revalidation),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such estimator", body = Problem),
    ),
)]
pub async fn revalidate_estimator(
    state: Scoped,
    ApiPath(id): ApiPath<EstimatorId>,
) -> Result<Response, ApiError> {
    let stored = found(&state, id).await?;
    let verdict = judged(&state, &stored.definition).await?.verdict;
    let environment = verdict.accepted.map(|accepted| accepted.environment);
    let revalidation = Revalidation {
        valid: environment.is_some(),
        accepted_under: stored.rule_set_version,
        rule_set_version: RULE_SET_VERSION.to_owned(),
        findings: verdict.findings,
        same_environment: environment.as_ref().is_some_and(|now| now.hash == stored.environment.hash),
        environment,
    };
    etag::json(StatusCode::OK, &revalidation)
}
