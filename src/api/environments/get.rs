//! `GET /v1/environments/{key}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::BuiltEnvironmentDetails;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::built_environment::EnvironmentKey,
};

/// Get a built environment
///
/// With the packages that are installed in it.
#[utoipa::path(
    get, path = "/v1/environments/{key}", tag = "environments",
    params(
        ("key" = EnvironmentKey, Path, description = "The `build_key` of a run's environment"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the environment still has this ETag"),
    ),
    responses(
        (status = 200, description = "The environment", body = BuiltEnvironmentDetails, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The key is malformed", body = Problem),
        (status = 404, description = "There is no such environment, or it was evicted", body = Problem),
    ),
)]
pub async fn get_environment(
    state: Scoped,
    ApiPath(key): ApiPath<EnvironmentKey>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let environment = state.installation.get_environment(&key).await?;
    let environment = environment.ok_or_else(|| ApiError::not_found("environment", &key))?;
    etag::tagged(&headers, StatusCode::OK, &BuiltEnvironmentDetails::from(environment))
}
