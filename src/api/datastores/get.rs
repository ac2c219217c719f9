//! `GET /v1/datastores/{name}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::Datastore;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::datastore::DatastoreName,
};

/// Get a datastore
///
/// Where it is and how it is asked. Its credentials are never shown.
#[utoipa::path(
    get, path = "/v1/datastores/{name}", tag = "datastores",
    params(
        ("name" = DatastoreName, Path, description = "The datastore's name", example = "training_data"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the datastore still has this ETag"),
    ),
    responses(
        (status = 200, description = "The datastore", body = Datastore, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The name is malformed", body = Problem),
        (status = 404, description = "There is no such datastore", body = Problem),
    ),
)]
pub async fn get_datastore(
    state: Scoped,
    ApiPath(name): ApiPath<DatastoreName>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let datastore = state.storage.get_datastore(name.as_str()).await?;
    let datastore = datastore.ok_or_else(|| ApiError::not_found("datastore", &name))?;
    etag::tagged(&headers, StatusCode::OK, &Datastore::from(datastore))
}
