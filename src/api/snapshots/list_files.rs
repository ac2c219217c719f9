//! `GET /v1/snapshots/{id}/files`

use axum::{http::StatusCode, response::Response};

use super::SnapshotFile;
use crate::{
    api::{
        error::ApiError,
        estimators::EXAMPLE_SNAPSHOT,
        etag,
        extract::{ApiPath, ApiQuery},
        paging::{Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
    },
    domain::ids::SnapshotId,
};

/// List the files of a snapshot
///
/// In the order of their paths.
#[utoipa::path(
    get, path = "/v1/snapshots/{id}/files", tag = "snapshots",
    params(
        ("id" = SnapshotId, Path, description = "The snapshot's id", example = json!(EXAMPLE_SNAPSHOT)),
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
    ),
    responses(
        (status = 200, description = "A page of its files", body = Page<SnapshotFile>),
        (status = 400, description = "The id, the limit or the cursor is malformed", body = Problem),
        (status = 404, description = "There is no such snapshot", body = Problem),
    ),
)]
pub async fn list_snapshot_files(
    state: Scoped,
    ApiPath(id): ApiPath<SnapshotId>,
    mut query: ApiQuery,
) -> Result<Response, ApiError> {
    let request = PageRequest::<String>::take(&mut query, &format!("snapshot_files {id}"))?;
    query.finish(&["limit", "cursor"])?;
    if state.storage.get_snapshot(&id).await?.is_none() {
        return Err(ApiError::not_found("snapshot", &id));
    }
    let files = state.storage.list_snapshot_files(&id, request.after.as_deref(), request.rows()).await?;
    let page = request.page(files, |file| file.path.clone()).map(SnapshotFile::from);
    etag::json(StatusCode::OK, &page)
}
