//! `PUT /v1/datastores/{name}`

use axum::{
    http::{HeaderMap, header},
    response::Response,
};

use super::{Datastore, DatastoreBody, body};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiJson, ApiPath},
        problem::{Problem, ProblemKind},
        scoped::Scoped,
        secrets::seal,
    },
    domain::datastore::DatastoreName,
    storage::datastores::DatastoreAccess,
    vault::purposes,
};

/// Make or replace a datastore
///
/// Definitions name it in `inputs`, `script_params`, `resume_from` and `source_directory_data_store`. Whether it can be
/// reached is not asked here. Credentials are kept encrypted and never shown.
#[utoipa::path(
    put, path = "/v1/datastores/{name}", tag = "datastores",
    params(
        ("name" = DatastoreName, Path, description = "The datastore's name", example = "training_data"),
        ("If-Match" = Option<String>, Header, description = "Only change the datastore when it has this ETag"),
    ),
    request_body(content = DatastoreBody, description = "The datastore"),
    responses(
        (status = 200, description = "Replaced", body = Datastore, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 201, description = "Made", body = Datastore, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 400, description = "The name or the body cannot be read", body = Problem),
        (status = 412, description = "The datastore does not have the ETag of If-Match", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body is refused; `findings` has everything that is wrong", body = Problem),
    ),
)]
pub async fn put_datastore(
    state: Scoped,
    ApiPath(name): ApiPath<DatastoreName>,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    let refused = |findings| ApiError::Refused { kind: ProblemKind::InvalidDatastore, findings };
    let sent = body::read(&name, &body.members, &state.datastore_places).map_err(refused)?;
    let purpose = purposes::datastore_credentials(&state.principal.project.qualified(name.as_str()));
    let sealed_credentials = match &sent.credentials {
        None => None,
        Some(secret) => {
            Some(seal(&state, &purpose, secret, "/credentials")?.map_err(|finding| refused(vec![finding]))?)
        }
    };
    let access = DatastoreAccess { datastore: sent.datastore, options: sent.options, sealed_credentials };
    let now = state.clock.now();
    let (stored, is_new) = if headers.contains_key(header::IF_MATCH) {
        let current = state.storage.get_datastore(name.as_str()).await?.map(Datastore::from);
        etag::require_match(&headers, current.as_ref())?;
        let current = current.ok_or(ApiError::PreconditionFailed)?;
        let replaced = state.storage.replace_datastore(&access, current.updated_at, now).await?;
        (replaced.ok_or(ApiError::PreconditionFailed)?, false)
    } else {
        state.storage.put_datastore(&access, now).await?
    };
    etag::put(is_new, &format!("/v1/datastores/{name}"), &Datastore::from(stored))
}
