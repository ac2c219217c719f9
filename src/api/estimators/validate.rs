//! `POST /v1/estimators/validate`

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{EXAMPLE_SNAPSHOT, EstimatorDefinition, judged::judged};
use crate::{
    api::{error::ApiError, etag, extract::ApiJson, problem::Problem, scoped::Scoped},
    domain::{environment::Environment, finding::Finding},
};

/// What the rules say of a definition.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Validation {
    /// Whether no finding is an error.
    pub valid: bool,
    /// Everything that was found, in the order of the parameters in the signature.
    pub findings: Vec<Finding>,
    /// What it resolves to; null when it is not valid.
    pub environment: Option<Environment>,
}

/// Judge an estimator definition without storing it
///
/// Answers 200 for every JSON object, whatever is wrong in it. The same code judges here and when an estimator is stored:
/// the two never disagree. The first example works as it stands and shows what a refusal looks like: two nodes need MPI and
/// an AmlCompute target. The others are one for each rule.
#[utoipa::path(
    post, path = "/v1/estimators/validate", tag = "estimators",
    request_body(
        content = EstimatorDefinition,
        description = "The definition: the parameters of the SDK's class by their names",
        example = json!({
            "source_directory": EXAMPLE_SNAPSHOT,
            "entry_script": "train.py",
            "compute_target": "local",
            "script_params": {"--epochs": 5, "--lr": 0.01},
            "node_count": 2,
            "framework_version": "7.0.0"
        }),
    ),
    responses(
        (status = 200, description = "The verdict", body = Validation),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body is JSON, but no object", body = Problem),
    ),
)]
pub async fn validate_estimator(state: Scoped, body: ApiJson) -> Result<Response, ApiError> {
    let verdict = judged(&state, &body.members).await?.verdict;
    let validation = Validation {
        valid: verdict.is_valid(),
        findings: verdict.findings,
        environment: verdict.accepted.map(|accepted| accepted.environment),
    };
    etag::json(StatusCode::OK, &validation)
}
