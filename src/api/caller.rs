//! `GET /v1/caller`

use axum::{http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, etag, scoped::Scoped};
use crate::domain::access::Scope;

/// Who the service takes a caller for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Caller {
    /// Its name; empty where everybody is let in, or where the operator gave it none.
    #[schema(example = "ci")]
    pub name: String,
    /// Its project: where everything is that it sees and makes.
    #[schema(example = "default")]
    pub project: String,
    /// What it may do.
    pub scope: Scope,
}

/// Get who you are
///
/// The caller that the token stands for: a way to try one out.
#[utoipa::path(
    get, path = "/v1/caller", tag = "access",
    responses((status = 200, description = "The caller", body = Caller)),
)]
pub async fn get_caller(state: Scoped) -> Result<Response, ApiError> {
    let principal = &state.principal;
    let caller = Caller {
        name: principal.name.clone(),
        project: principal.project.as_str().to_owned(),
        scope: principal.scope,
    };
    etag::json(StatusCode::OK, &caller)
}
