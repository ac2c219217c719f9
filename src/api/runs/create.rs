//! `POST /v1/runs`

use std::sync::Arc;

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::{Map, Value};

use super::{
    Run, RunBody,
    acceptance::answer,
    body::{self, RunRequest, Source},
    placed::{Placement, has_error},
};
use crate::{
    api::{
        audit::Slip,
        error::ApiError,
        estimators::judged::{Judged, judged, to_store},
        extract::ApiJson,
        findings::error_at,
        idempotency,
        problem::{Problem, ProblemKind},
        request_id,
        scoped::Scoped,
    },
    clock::entropy,
    domain::{
        finding::Finding,
        ids::{EstimatorId, RunId},
        judge::{self, Accepted},
        one_off_target::one_off_target,
        run::Status,
    },
    storage::{
        ACQUIRE_TIMEOUT,
        estimators::Estimator,
        idempotency::{Idempotency, Keyed},
        new_runs::{Insertion, NewRun},
        runs::Run as StoredRun,
        shown_runs::RunJson,
    },
};

/// Start a run
///
/// Of a stored estimator (`estimator_id`) or of an inline one (`estimator`). What the run overrides is merged in and the whole
/// is judged again; with an error nothing is stored, nothing runs, and all findings come back with pointers into this
/// body. The example works as it stands once `examples/digits/train.py` of the repository has been uploaded, packed
/// alone (`create_snapshot`).
#[utoipa::path(
    post, path = "/v1/runs", tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: the same key and body get the first answer again, with `Idempotency-Replayed: true`", max_length = 255)),
    request_body(content = RunBody, description = "The run"),
    responses(
        (status = 201, description = "Accepted and queued; `Location` has its address", body = Run),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 409, description = "The first request with this Idempotency-Key is still at work", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The run is refused; `findings` has everything that was found. Or the Idempotency-Key was used for another body", body = Problem),
        (status = 429, description = "As many runs are queued as may be: send it again after `Retry-After` seconds", body = Problem),
    ),
)]
pub async fn create_run(state: Scoped, headers: HeaderMap, body: ApiJson) -> Result<Response, ApiError> {
    let key = idempotency::key(&headers)?;
    let key = key.map(|key| Idempotency {
        scope: "create_run",
        caller: state.principal.caller(),
        key,
        body_hash: body.hash,
    });
    let candidacy = candidacy(&state, key.as_ref(), &body.members).await?;
    idempotency::answer(accept(&state, candidacy, state.slip.as_ref()).await?)
}

/// A body that was looked at.
pub(super) enum Candidacy {
    /// The request with its key was answered before.
    Earlier(Keyed),
    /// It is fit to be accepted.
    Fit(Box<Candidate>),
}

/// Judges a run that is to be accepted, unless the request with this key was answered before.
pub(super) async fn candidacy(
    state: &Scoped,
    key: Option<&Idempotency>,
    body: &Map<String, Value>,
) -> Result<Candidacy, ApiError> {
    if let Some(earlier) = earlier(state, key).await? {
        return Ok(Candidacy::Earlier(earlier));
    }
    let id = RunId::generate(state.clock.now(), entropy());
    let (run, estimator) = accepted(state, body::read(body), id).await?;
    Ok(Candidacy::Fit(Box::new(Candidate { run, estimator, idempotency: key.cloned(), put_hash: None })))
}

/// Accepts a run that was judged. `slip` is that of a request that is about this run alone.
pub(super) async fn accept(
    state: &Scoped,
    candidacy: Candidacy,
    slip: Option<&Slip>,
) -> Result<Keyed, ApiError> {
    let new = match candidacy {
        Candidacy::Earlier(earlier) => return Ok(earlier),
        Candidacy::Fit(new) => new,
    };
    let id = new.run.id;
    let stored = store(state, *new, slip).await?;
    stored.ok_or_else(|| ApiError::Internal(format!("the id {id} was made twice")))
}

async fn earlier(state: &Scoped, key: Option<&Idempotency>) -> Result<Option<Keyed>, ApiError> {
    match key {
        Some(key) => Ok(state.installation.earlier_answer(key).await?),
        None => Ok(None),
    }
}

/// A run that was judged, and is to be accepted.
pub(super) struct Candidate {
    pub(super) run: StoredRun,
    /// Its estimator, when it came inline.
    pub(super) estimator: Option<Estimator>,
    /// The key that makes the request safe to repeat.
    pub(super) idempotency: Option<Idempotency>,
    /// The body's hash, where the client chose the run's id.
    pub(super) put_hash: Option<[u8; 32]>,
}

/// Stores a run, and with it the request's row of the audit trail; none when there is one with its id.
pub(super) async fn store(
    state: &Scoped,
    candidate: Candidate,
    slip: Option<&Slip>,
) -> Result<Option<Keyed>, ApiError> {
    let Candidate { run, estimator, idempotency, put_hash } = candidate;
    let new = Arc::new(NewRun {
        json: RunJson::try_from(&run)?,
        run,
        estimator,
        idempotency,
        put_hash,
        trace_parent: request_id::place(),
        audit: slip.map(|slip| slip.event(StatusCode::CREATED, state.clock.now())),
    });
    let (insertion, waiting) = match state.acceptance.done_in_time(Arc::clone(&new), ACQUIRE_TIMEOUT).await? {
        Err(ApiError::Storage(error)) if error.is_about_what_is_gone() => {
            return Err(refused(vec![source_gone()]));
        }
        inserted => inserted?,
    };
    let keyed = match insertion {
        Insertion::Accepted => Keyed::Done(answer(&new, &waiting)?),
        Insertion::Keyed(keyed) => keyed,
        Insertion::TargetGone => return Err(refused(vec![target_gone(&new.run.compute_target)])),
        Insertion::QueueFull => return Err(ApiError::QueueFull { limit: state.max_queued_runs }),
        Insertion::Exists => return Ok(None),
    };
    if let (Keyed::Done(_), Some(slip)) = (&keyed, slip) {
        slip.is_in_the_trail();
    }
    state.wakeup.notify_one();
    Ok(Some(keyed))
}

pub(super) const fn refused(findings: Vec<Finding>) -> ApiError {
    ApiError::Refused { kind: ProblemKind::InvalidRun, findings }
}

fn source_gone() -> Finding {
    let message = "the estimator or its source directory was deleted a moment ago, because nothing had used it for long";
    error_at(
        "source-directory-not-found",
        "",
        message,
        "upload the source directory again, and store the definition again",
    )
}

pub(super) fn target_gone(name: &str) -> Finding {
    let message = format!("the compute target `{name}` is not registered (any more)");
    error_at("compute-target-not-found", "/compute_target", message, "name a registered target, or `local`")
}

/// The run to store, with its inline estimator, or everything that is wrong.
pub(super) async fn accepted(
    state: &Scoped,
    mut request: RunRequest<'_>,
    id: RunId,
) -> Result<(StoredRun, Option<Estimator>), ApiError> {
    let mut findings = std::mem::take(&mut request.findings);
    let Some((definition, estimator_id)) = definition(state, &request, &mut findings).await? else {
        return Err(refused(findings));
    };
    let merged = judge::with_overrides(&definition, &request.overrides);
    let judged = judged(state, &merged).await?;
    let placement = Placement {
        base: if estimator_id.is_some() { "/estimator_id" } else { "/estimator" },
        is_inline: estimator_id.is_none(),
        overrides: &request.overrides,
    };
    findings.extend(placement.place(judged.verdict.findings.clone()));
    let (Some(accepted), false) = (&judged.verdict.accepted, has_error(&findings)) else {
        return Err(refused(findings));
    };
    let now = state.clock.now();
    let inline = match estimator_id {
        Some(_) => None,
        None => {
            let estimator = to_store(state, &merged, &judged.verdict, accepted, now)?;
            Some(estimator.map_err(|finding| refused(placement.place(vec![finding])))?)
        }
    };
    let estimator_id = estimator_id.or(inline.as_ref().map(|estimator| estimator.id));
    let estimator_id =
        estimator_id.ok_or_else(|| ApiError::Internal("a run without estimator".to_owned()))?;
    // Of a stored estimator there is nothing in the body to point at: its findings go by the definition that is shown.
    let said = judged.verdict.findings.clone();
    let said = if inline.is_some() { placement.place(said) } else { said };
    let identity = Identity { id, estimator_id, rerun_of: None };
    let run = run(state, identity, request, &merged, &judged, accepted, said)?;
    Ok((run, inline))
}

/// The definition that the overrides are merged into, and the id of a stored one.
async fn definition(
    state: &Scoped,
    request: &RunRequest<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Option<(Map<String, Value>, Option<EstimatorId>)>, ApiError> {
    match &request.source {
        None => Ok(None),
        Some(Source::Inline(definition)) => Ok(Some(((*definition).clone(), None))),
        Some(Source::Stored(id)) => {
            let stored = state.storage.get_estimator(*id).await?;
            let (message, fix) = match &stored {
                Some(found) if found.archived_at.is_none() => {
                    return Ok(stored.map(|found| (found.definition, Some(*id))));
                }
                Some(_) => ("is archived: no new run can be made of it", "store the definition again"),
                None => ("is not there", "write the `id` that `create_estimator` answered"),
            };
            let message = format!("the estimator `{id}` {message}");
            findings.push(error_at("estimator-not-found", "/estimator_id", message, fix));
            Ok(None)
        }
    }
}

/// What a run is called, and of what it is made.
pub(super) struct Identity {
    pub(super) id: RunId,
    pub(super) estimator_id: EstimatorId,
    pub(super) rerun_of: Option<RunId>,
}

/// The run of a definition that was accepted.
pub(super) fn run(
    state: &Scoped,
    identity: Identity,
    request: RunRequest<'_>,
    merged: &Map<String, Value>,
    judged: &Judged,
    accepted: &Accepted,
    said: Vec<Finding>,
) -> Result<StoredRun, ApiError> {
    let Identity { id, estimator_id, rerun_of } = identity;
    let plan = judge::plan(accepted);
    let now = state.clock.now();
    let one_off = judged.facts.one_off_backend().and_then(|backend| one_off_target(id, &plan, &backend));
    let Some(target) = one_off.as_ref().or_else(|| judged.facts.target_of(&plan)) else {
        return Err(refused(vec![target_gone(&plan.compute_target)]));
    };
    Ok(StoredRun {
        id,
        experiment_name: request.experiment_name,
        display_name: request.display_name,
        estimator_id,
        compute_target: target.name.as_str().to_owned(),
        backend: target.backend.clone(),
        definition: judge::redacted(merged),
        findings: said,
        plan,
        actual_environment: None,
        tags: request.tags,
        priority: request.priority,
        max_attempts: request.max_attempts,
        status: Status::Queued,
        cause: None,
        detail: None,
        exit_code: None,
        signal: None,
        attempt: 0,
        created_at: now,
        started_at: None,
        finished_at: None,
        cancel_requested_at: None,
        stop_sent_at: None,
        cancel_evidence: None,
        retry_on: request.retry_on,
        queued_at: Some(now),
        max_queue_duration_seconds: request.max_queue_duration_seconds,
        project: state.principal.project.clone(),
        caller: state.principal.caller(),
        rerun_of,
    })
}
