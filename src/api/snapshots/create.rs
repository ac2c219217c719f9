//! `POST /v1/snapshots`

use axum::{extract::Request, http::header, response::Response};

use serde_json::json;

use super::{Snapshot, lingering::Lingering};
use crate::{
    api::{error::ApiError, idempotency, openapi::Binary, problem::Problem, scoped::Scoped},
    artifacts::ArchiveFormat,
    storage::{
        idempotency::{Idempotency, Recorded},
        snapshots::{self as stored, SnapshotFile},
    },
};

/// Upload a source directory
///
/// As `tar.gz`, `tar` or `zip`. The id is a digest of the unpacked tree: the same tree is stored once, and uploading it
/// again answers 200 with the same id (which is why an `Idempotency-Key` is honoured here and not needed). By default a tree
/// has at most 300 MiB and 2000 files. Give the id to an estimator as `source_directory`.
#[utoipa::path(
    post, path = "/v1/snapshots", tag = "snapshots",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and tree get the first answer again, with `Idempotency-Replayed: true`; the digest makes the request safe to repeat anyway", max_length = 255)),
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
        (status = 409, description = "The first request with this Idempotency-Key is still at work", body = Problem),
        (status = 422, description = "Something in the archive is refused, e.g. a path that leaves the directory. Or the Idempotency-Key was used for another tree", body = Problem),
    ),
)]
pub async fn create_snapshot(state: Scoped, request: Request) -> Result<Response, ApiError> {
    let key = idempotency::key(request.headers())?;
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let Some(format) = content_type.and_then(ArchiveFormat::from_media_type) else {
        let accepted = ArchiveFormat::ALL.map(ArchiveFormat::media_type).join(", ");
        return Err(ApiError::UnsupportedMediaType { accepted: format!("one of {accepted}") });
    };
    let body = Lingering::new(request.into_body().into_data_stream());
    let upload =
        state.artifacts.read_snapshot(format, body, &state.limits).await.map_err(ApiError::Snapshot)?;
    // Before it is looked whether its bytes are there: from here on nobody deletes them.
    state.installation.expect_snapshot(&upload.id).await?;
    let received = state.artifacts.keep_snapshot(upload).await.map_err(|e| ApiError::Snapshot(e.into()))?;
    let files: Vec<SnapshotFile> = received
        .files
        .into_iter()
        .map(|file| SnapshotFile { path: file.path, bytes: file.bytes, executable: file.executable })
        .collect();
    // The bytes are durable before the row says so. A crash in between leaves bytes that the same upload finds again.
    // What the tree is, is the body's hash: however it was packed.
    let body_hash = idempotency::hash_of(&[received.id.as_str().as_bytes()]);
    let key = key.map(|key| Idempotency {
        scope: "create_snapshot",
        caller: state.principal.caller(),
        key,
        body_hash,
    });
    let answer = |snapshot: stored::Snapshot, is_new: bool| Recorded {
        status: if is_new { 201 } else { 200 },
        location: is_new.then(|| format!("/v1/snapshots/{}", received.id)),
        body: json!(Snapshot::from(snapshot)).to_string(),
    };
    let recorded =
        state.storage.insert_snapshot(&received.id, &files, key.as_ref(), state.clock.now(), answer).await?;
    idempotency::answer(recorded)
}
