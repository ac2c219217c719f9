//! `POST /v1/estimators`

use axum::{http::HeaderMap, response::Response};

use super::{
    Estimator, EstimatorDefinition,
    judged::{judged, to_store},
};
use crate::{
    api::{
        error::ApiError,
        extract::ApiJson,
        findings::error_at,
        idempotency,
        problem::{Problem, ProblemKind},
        scoped::Scoped,
    },
    storage::idempotency::Recorded,
};

/// Store an estimator definition
///
/// The body is the definition itself. It is judged by every rule: with an error nothing is stored and all findings come back;
/// warnings and infos are stored with it. The example works as it stands once `examples/digits/train.py` of
/// the repository has been uploaded, packed alone (`create_snapshot`).
#[utoipa::path(
    post, path = "/v1/estimators", tag = "estimators",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key and body get the first answer again, with `Idempotency-Replayed: true`", max_length = 255)),
    request_body(content = EstimatorDefinition, description = "The definition: the parameters of the SDK's class by their names"),
    responses(
        (status = 201, description = "Stored; `Location` has its address", body = Estimator),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 409, description = "The first request with this Idempotency-Key is still at work", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The definition is refused; `findings` has everything that was found. Or the Idempotency-Key was used for another body", body = Problem),
    ),
)]
pub async fn create_estimator(
    state: Scoped,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    let (key, earlier) = idempotency::begin(&state, &headers, "create_estimator", body.hash).await?;
    if let Some(earlier) = earlier {
        return Ok(earlier);
    }
    let judged = judged(&state, &body.members).await?;
    let Some(accepted) = &judged.verdict.accepted else {
        let findings = judged.verdict.findings;
        return Err(ApiError::Refused { kind: ProblemKind::InvalidDefinition, findings });
    };
    let estimator = to_store(&state, &body.members, &judged.verdict, accepted, state.clock.now())?;
    let estimator = estimator.map_err(|finding| ApiError::Refused {
        kind: ProblemKind::InvalidDefinition,
        findings: vec![finding],
    })?;
    let view = serde_json::to_string(&Estimator::from(estimator.clone()))
        .map_err(|error| ApiError::Internal(error.to_string()))?;
    let location = format!("/v1/estimators/{}", estimator.id);
    let recorded = || Recorded { status: 201, location: Some(location), body: view };
    match state.storage.insert_estimator(&estimator, key.as_ref(), recorded).await {
        Err(error) if error.is_about_what_is_gone() => {
            let message =
                "the source directory was deleted a moment ago, because nothing had used it for long";
            let fix = "upload it again";
            let finding = error_at("source-directory-not-found", "/source_directory", message, fix);
            Err(ApiError::Refused { kind: ProblemKind::InvalidDefinition, findings: vec![finding] })
        }
        stored => idempotency::answer(stored?),
    }
}
