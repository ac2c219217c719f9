//! `PATCH /v1/runs/{id}`

use std::collections::BTreeMap;

use axum::{
    http::{HeaderMap, header},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Run, body::RunPatch, create::refused};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiJson, ApiPath},
        problem::Problem,
        scoped::Scoped,
    },
    domain::ids::RunId,
    storage::run_patch::Patched,
};

/// How often a change with `If-Match` is begun anew when only a worker's book-keeping came between reading and writing.
const TRIES: u32 = 5;

// It documents the body; `body::read_merge_patch` reads it.
/// What is to be otherwise: a JSON Merge Patch (RFC 7396). What is left out stays; null takes away.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"tags": {"team": "vision", "draft": null}, "priority": 5}))]
pub struct RunPatchBody {
    /// A name for people; null or an empty one for none.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
    /// Labels: each that is given is set, each that is null is taken away; null for all takes all away.
    pub tags: Option<BTreeMap<String, Option<String>>>,
    /// Higher goes first among queued runs of one target; null for 0. Not of a run that has ended.
    pub priority: Option<i32>,
}

/// Change a run's labels, name or priority
///
/// What runs cannot be changed: `rerun_run` makes a new run with a change. The body may also be sent as `application/merge-patch+json`.
#[utoipa::path(
    patch, path = "/v1/runs/{id}", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("If-Match" = Option<String>, Header, description = "Only change the run when it has this ETag"),
    ),
    request_body(content((RunPatchBody = "application/merge-patch+json"), (RunPatchBody = "application/json")), description = "What is to be otherwise"),
    responses(
        (status = 200, description = "The run as it is now", body = Run, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 400, description = "The id is malformed, or the body is not JSON, or has a key twice", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
        (status = 409, description = "The run has ended, and its priority was to change", body = Problem),
        (status = 412, description = "The run does not have the ETag of If-Match", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is neither application/merge-patch+json nor application/json", body = Problem),
        (status = 422, description = "The change is refused; `findings` has everything that is wrong", body = Problem),
    ),
)]
pub async fn patch_run(
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    let run = || async { state.storage.get_run(id).await?.ok_or_else(|| ApiError::not_found("run", id)) };
    // Judged by what there is now; merged, under the lock, into what there is then.
    let before = run().await?;
    let patch = RunPatch::read(&body.members, before.tags.clone()).map_err(refused)?;
    for _ in 0..TRIES {
        let version = match headers.contains_key(header::IF_MATCH) {
            true => Some(matching_version(&state, id, &headers).await?),
            false => None,
        };
        match state.storage.patch_run(id, version, |there| patch.clone().apply(there)).await? {
            Patched::Done => {
                // Another priority may give a waiting run its place.
                state.wakeup.notify_one();
                let view = Run::load(&state, id).await?;
                return etag::put(false, "", &view);
            }
            Patched::NotFound => return Err(ApiError::not_found("run", id)),
            Patched::Ended(status) => {
                return Err(ApiError::Conflict(format!(
                    "the run is {status}: its priority means nothing any more; leave `priority` out"
                )));
            }
            Patched::Changed => {}
        }
    }
    Err(ApiError::PreconditionFailed)
}

/// The version of the run that has the entity tag which the caller names.
async fn matching_version(state: &Scoped, id: RunId, headers: &HeaderMap) -> Result<i64, ApiError> {
    let gone = || ApiError::not_found("run", id);
    let version = state.storage.run_version(id).await?.ok_or_else(gone)?;
    etag::require_match(headers, Some(&Run::load(state, id).await?))?;
    Ok(version)
}
