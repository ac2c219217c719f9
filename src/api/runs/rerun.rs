//! `POST /v1/runs/{id}/rerun`

use std::collections::BTreeMap;

use axum::{http::HeaderMap, response::Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::{
    Run,
    body::{self, RunRequest},
    create::{self, Candidate, Identity, refused, store, target_gone},
    placed::{Placement, has_error},
};
use crate::{
    api::{
        error::ApiError,
        estimators::judged::judged,
        extract::{ApiJson, ApiPath},
        idempotency,
        problem::Problem,
        scoped::Scoped,
    },
    clock::entropy,
    domain::{
        ids::RunId,
        judge,
        one_off_target::one_off_target,
        run::{Cause, Status},
    },
    storage::runs::Run as StoredRun,
};

// It documents the body; `body::read_patch` reads it.
/// What the new run is to have otherwise. What is left out is as it was; `{}` repeats exactly what ran.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"script_params": {"--epochs": 40}, "tags": {"why": "longer"}}))]
pub struct RerunBody {
    /// As for a new run.
    pub experiment_name: Option<String>,
    /// Merged by key into what ran.
    pub script_params: Option<BTreeMap<String, Value>>,
    /// Replaces what ran.
    pub inputs: Option<Vec<Value>>,
    /// Replaces what ran.
    pub source_directory_data_store: Option<String>,
    /// Replaces what ran.
    pub compute_target: Option<String>,
    /// A name for people; an empty one for none.
    #[schema(max_length = 255)]
    pub display_name: Option<String>,
    /// Replaces all labels.
    pub tags: Option<BTreeMap<String, String>>,
    /// As for a new run.
    pub priority: Option<i32>,
    /// As for a new run.
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<u32>,
    /// As for a new run.
    #[schema(value_type = Option<Vec<String>>)]
    pub retry_on: Option<Vec<Cause>>,
    /// As for a new run.
    #[schema(minimum = 1, maximum = 31_536_000)]
    pub max_queue_duration_seconds: Option<u32>,
}

/// Run again
///
/// A new run of exactly what ran: the same snapshot, arguments, environment and compute target, whatever has become of the
/// estimator and of the rules since. Where the body changes what runs, the whole is judged anew, as for a new run. The run that
/// is repeated stays as it is, and may still run.
#[utoipa::path(
    post, path = "/v1/runs/{id}/rerun", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The id of the run to repeat"),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key and body get the first answer again, with `Idempotency-Replayed: true`", max_length = 255),
    ),
    request_body(content = RerunBody, description = "What is to be otherwise; `{}` for nothing"),
    responses(
        (status = 201, description = "Accepted and queued; `Location` has its address", body = Run),
        (status = 400, description = "The id is malformed, or the body is not JSON, or has a key twice", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
        (status = 409, description = "The first request with this Idempotency-Key is still at work", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The run is refused; `findings` has everything that was found. Or the Idempotency-Key was used for another body", body = Problem),
        (status = 429, description = "As many runs are queued as may be: send it again after `Retry-After` seconds", body = Problem),
    ),
)]
pub async fn rerun_run(
    state: Scoped,
    ApiPath(earlier): ApiPath<RunId>,
    headers: HeaderMap,
    body: ApiJson,
) -> Result<Response, ApiError> {
    // One key, one request: for another run it is another one.
    let hash = idempotency::hash_of(&[earlier.as_uuid().as_bytes(), &body.hash]);
    let (key, answered) = idempotency::begin(&state, &headers, "rerun_run", hash).await?;
    if let Some(answered) = answered {
        return Ok(answered);
    }
    let earlier = state.storage.get_run(earlier).await?.ok_or_else(|| ApiError::not_found("run", earlier))?;
    let request = body::read_patch(&body.members, &earlier);
    if has_error(&request.findings) {
        return Err(refused(request.findings));
    }
    let id = RunId::generate(state.clock.now(), entropy());
    let identity = Identity { id, estimator_id: earlier.estimator_id, rerun_of: Some(earlier.id) };
    let run = if request.overrides.is_empty() {
        the_same(&state, identity, request, &earlier).await?
    } else {
        changed(&state, identity, request, &earlier).await?
    };
    let candidate = Candidate { run, estimator: None, idempotency: key, put_hash: None };
    match store(&state, candidate, state.slip.as_ref()).await? {
        Some(stored) => idempotency::answer(stored),
        None => Err(ApiError::Internal(format!("the id {id} was made twice"))),
    }
}

/// Exactly what ran, where it ran: nothing is judged again.
async fn the_same(
    state: &Scoped,
    identity: Identity,
    request: RunRequest<'_>,
    earlier: &StoredRun,
) -> Result<StoredRun, ApiError> {
    let target = match one_off_target(identity.id, &earlier.plan, &earlier.backend) {
        Some(target) => target,
        None => {
            let stored = state.storage.get_compute_target(&earlier.compute_target).await?;
            stored.ok_or_else(|| refused(vec![target_gone(&earlier.compute_target)]))?.target
        }
    };
    let now = state.clock.now();
    Ok(StoredRun {
        id: identity.id,
        experiment_name: request.experiment_name,
        display_name: request.display_name,
        tags: request.tags,
        priority: request.priority,
        max_attempts: request.max_attempts,
        retry_on: request.retry_on,
        max_queue_duration_seconds: request.max_queue_duration_seconds,
        compute_target: target.name.as_str().to_owned(),
        backend: target.backend,
        caller: state.principal.caller(),
        rerun_of: identity.rerun_of,
        created_at: now,
        queued_at: Some(now),
        actual_environment: None,
        status: Status::Queued,
        cause: None,
        detail: None,
        exit_code: None,
        signal: None,
        attempt: 0,
        started_at: None,
        finished_at: None,
        cancel_requested_at: None,
        stop_sent_at: None,
        cancel_evidence: None,
        ..earlier.clone()
    })
}

/// What ran, with changes: judged as a whole.
async fn changed(
    state: &Scoped,
    identity: Identity,
    request: RunRequest<'_>,
    earlier: &StoredRun,
) -> Result<StoredRun, ApiError> {
    let merged: Map<String, Value> = judge::with_overrides(&earlier.definition, &request.overrides);
    let judged = judged(state, &merged).await?;
    let placement = Placement { base: "", is_inline: false, overrides: &request.overrides };
    let findings = placement.place(judged.verdict.findings.clone());
    match &judged.verdict.accepted {
        Some(accepted) if !has_error(&findings) => {
            let said = judged.verdict.findings.clone();
            create::run(state, identity, request, &merged, &judged, accepted, said)
        }
        _ => Err(refused(findings)),
    }
}
