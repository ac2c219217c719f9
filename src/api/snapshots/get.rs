//! `GET /v1/snapshots/{id}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::Snapshot;
use crate::{
    api::{
        error::ApiError, estimators::EXAMPLE_SNAPSHOT, etag, extract::ApiPath, problem::Problem,
        scoped::Scoped,
    },
    domain::ids::SnapshotId,
};

/// Get a snapshot
///
/// How many files it has, and how many bytes. It is called by its content, so it never changes.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}", tag = "snapshots",
    params(
        ("id" = SnapshotId, Path, description = "The snapshot's id", example = json!(EXAMPLE_SNAPSHOT)),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the snapshot still has this ETag"),
    ),
    responses(
        (status = 200, description = "The snapshot", body = Snapshot, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such snapshot", body = Problem),
    ),
)]
pub async fn get_snapshot(
    state: Scoped,
    ApiPath(id): ApiPath<SnapshotId>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let snapshot = state.storage.get_snapshot(&id).await?;
    let snapshot = snapshot.ok_or_else(|| ApiError::not_found("snapshot", &id))?;
    etag::tagged(&headers, StatusCode::OK, &Snapshot::from(snapshot))
}
