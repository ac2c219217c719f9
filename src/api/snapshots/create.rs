//! `POST /v1/snapshots`

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::Response,
};

use super::Snapshot;
use crate::{
    api::{error::ApiError, etag, idempotency, openapi::Binary, problem::Problem, state::Shared},
    artifacts::ArchiveFormat,
    storage::snapshots::SnapshotFile,
};

/// Upload a source directory
///
/// As `tar.gz`, `tar` or `zip`. The id is a digest of the unpacked tree: the same tree is stored once, and uploading it
/// again answers 200 with the same id (which is why an `Idempotency-Key` is accepted here and not needed). By default a tree
/// has at most 300 MiB and 2000 files. Give the id to an estimator as `source_directory`.
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "snapshots",
    params(("Idempotency-Key" = Option<String>, Header, description = "Accepted; the digest makes the request safe to repeat anyway", max_length = 255)),
    request_body(
        description = "The archive. Its root is the source directory: `entry_script` is looked up from there.",
        content(
            (Binary = "application/gzip"),
            (Binary = "application/x-tar"),
            (Binary = "application/zip"),
        ),
    ),
    responses(
        (status = 201, description = "Stored; `Location` has its address", body = Snapshot),
        (status = 200, description = "It was there already", body = Snapshot),
        (status = 400, description = "The body is no readable archive of the announced type", body = Problem),
        (status = 413, description = "A limit was reached", body = Problem),
        (status = 415, description = "The Content-Type is none of the three", body = Problem),
        (status = 422, description = "Something in the archive is refused, e.g. a path that leaves the directory", body = Problem),
    ),
)]
pub async fn create_snapshot(State(state): State<Shared>, request: Request) -> Result<Response, ApiError> {
    idempotency::key(request.headers())?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(format) = content_type.and_then(ArchiveFormat::from_media_type) else {
        let accepted = ArchiveFormat::ALL.map(ArchiveFormat::media_type).join(", ");
        return Err(ApiError::UnsupportedMediaType { accepted: format!("one of {accepted}") });
    };
    let body = request.into_body().into_data_stream();
    let received =
        state.artifacts.receive_snapshot(format, body, &state.limits).await.map_err(ApiError::Snapshot)?;
    let files: Vec<SnapshotFile> = received
        .files
        .into_iter()
        .map(|file| SnapshotFile { path: file.path, bytes: file.bytes, executable: file.executable })
        .collect();
    // The bytes are durable before the row says so. A crash in between leaves bytes that the same upload finds again.
    let (snapshot, is_new) = state.storage.insert_snapshot(&received.id, &files, state.clock.now()).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = etag::json(status, &Snapshot::from(snapshot))?;
    if is_new && let Ok(location) = HeaderValue::from_str(&format!("/v1/snapshots/{}", received.id)) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}
