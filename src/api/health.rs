//! Probes.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, problem::Problem, state::Shared};

/// The answer of a probe.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`.
    #[schema(example = "ok")]
    pub status: &'static str,
}

/// Check that the process lives
///
/// Looks at nothing else: a database that is away is no reason to restart the service.
#[utoipa::path(
    get, path = "/healthz", tag = "service",
    responses((status = 200, description = "It lives", body = Health)),
    security(()),
)]
pub async fn get_liveness() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Check that requests can be answered
///
/// The database answers, and the service is not shutting down.
#[utoipa::path(
    get, path = "/readyz", tag = "service",
    responses(
        (status = 200, description = "Requests can be answered", body = Health),
        (status = 503, description = "The database cannot be reached, or the service is shutting down", body = Problem),
    ),
    security(()),
)]
pub async fn get_readiness(State(state): State<Shared>) -> Result<Json<Health>, ApiError> {
    if state.draining.is_cancelled() || state.shutdown.is_cancelled() {
        return Err(ApiError::ShuttingDown);
    }
    state.installation.ping().await?;
    Ok(Json(Health { status: "ok" }))
}
