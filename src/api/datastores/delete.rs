//! `DELETE /v1/datastores/{name}`

use axum::http::{HeaderMap, StatusCode, header};

use super::Datastore;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::datastore::DatastoreName,
};

/// Delete a datastore
///
/// Its entry here; what lies in it is not touched. Stored definitions that name it stay, and are refused when they are judged
/// again.
#[utoipa::path(
    delete, path = "/v1/datastores/{name}", tag = "datastores",
    params(
        ("name" = DatastoreName, Path, description = "The datastore's name", example = "training_data"),
        ("If-Match" = Option<String>, Header, description = "Only delete the datastore when it has this ETag"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such datastore", body = Problem),
        (status = 412, description = "The datastore does not have the ETag of If-Match", body = Problem),
    ),
)]
pub async fn delete_datastore(
    state: Scoped,
    ApiPath(name): ApiPath<DatastoreName>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let mut last_changed = None;
    if headers.contains_key(header::IF_MATCH) {
        let current = state.storage.get_datastore(name.as_str()).await?.map(Datastore::from);
        etag::require_match(&headers, current.as_ref())?;
        last_changed = current.map(|current| current.updated_at);
    }
    match state.storage.delete_datastore(name.as_str(), last_changed).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false if last_changed.is_some() => Err(ApiError::PreconditionFailed),
        false => Err(ApiError::not_found("datastore", &name)),
    }
}
