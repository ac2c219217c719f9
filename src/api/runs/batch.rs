//! `POST /v1/runs/batch`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value, value::RawValue};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::{Run, RunBody, create};
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiJson,
        findings::{Members, kind_of},
        idempotency,
        problem::{Problem, ProblemKind},
        request_id,
        scoped::Scoped,
    },
    domain::json::JsonError,
    storage::idempotency::{Idempotency, Keyed},
};

/// What is judged well within the time that a request may take.
const MAX_RUNS: usize = 100;

/// How many are judged at once.
const AT_ONCE: usize = 32;

/// The place in the list is put before it.
const MAX_KEY_CHARACTERS: usize = 250;

// It documents the body; `create_runs` reads it.
/// Several runs at once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunBatchBody {
    /// Each as for `create_run`; at most 100.
    #[schema(min_items = 1, max_items = 100)]
    pub runs: Vec<RunBody>,
}

/// What became of one run of a batch. It has `run` or `problem`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunBatchItem {
    /// The status that `create_run` would have answered.
    #[schema(minimum = 200, maximum = 599, example = 201)]
    pub status: u16,
    /// Whether it was accepted by an earlier request with the same Idempotency-Key.
    pub replayed: bool,
    /// The run, when it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Run>, nullable = false)]
    pub run: Option<Box<RawValue>>,
    /// Why not, when it was refused; pointers are into the run's own part of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub problem: Option<Problem>,
}

/// What became of a batch.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunBatch {
    /// In the order of the request.
    pub items: Vec<RunBatchItem>,
}

/// Start several runs
///
/// At most 100. Each is judged and accepted by itself, as by `create_run`: one that is refused does not keep the others back,
/// and `items` says what became of each. With an `Idempotency-Key` each place in the list is remembered by itself, so that the same
/// request can be sent again until all of it went through: what was accepted is not accepted twice.
#[utoipa::path(
    post, path = "/v1/runs/batch", tag = "runs",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes the request safe to repeat: what was accepted under this key and place is answered again, with `replayed`", max_length = 250)),
    request_body(content = RunBatchBody, description = "The runs"),
    responses(
        (status = 200, description = "What became of each", body = RunBatch),
        (status = 400, description = "The body is not JSON, or has a key twice", body = Problem),
        (status = 413, description = "The body is too large", body = Problem),
        (status = 415, description = "The Content-Type is not application/json", body = Problem),
        (status = 422, description = "The body is no batch; `findings` has everything that is wrong", body = Problem),
    ),
)]
pub async fn create_runs(state: Scoped, headers: HeaderMap, body: ApiJson) -> Result<Response, ApiError> {
    let key = idempotency::key(&headers)?;
    if key.as_ref().is_some_and(|key| key.len() > MAX_KEY_CHARACTERS) {
        let form = format!("the Idempotency-Key of a batch has at most {MAX_KEY_CHARACTERS} characters");
        return Err(ApiError::Malformed(form));
    }
    let runs = read(&body.members)?;
    let instance = request_id::of(&headers, &*state.clock);
    let instance = instance.to_str().unwrap_or_default();
    let each: Vec<_> =
        runs.iter().enumerate().map(|(place, run)| judge(&state, key.as_deref(), place, run)).collect();
    let mut judged: Vec<_> = stream::iter(each).buffered(AT_ONCE).collect().await;
    put_in_order(&mut judged, state.clock.now());
    // What is accepted at the same time is accepted together.
    let each: Vec<_> = judged.into_iter().map(|judged| accept(&state, judged)).collect();
    let answers: Vec<_> = stream::iter(each).buffered(MAX_RUNS).collect().await;
    let mut items = Vec::with_capacity(answers.len());
    for answer in answers {
        match answer {
            // What cannot be had for one cannot be had for the next: the caller sends the whole again.
            Err(error) if error.kind().status().is_server_error() => return Err(error),
            Err(error) => items.push(refused(&error, instance)),
            Ok(item) => items.push(item),
        }
    }
    etag::json(StatusCode::OK, &RunBatch { items })
}

fn read(body: &Map<String, Value>) -> Result<&Vec<Value>, ApiError> {
    let mut members = Members::new(body, "");
    let form = format!("a list of 1 to {MAX_RUNS} runs");
    let runs = members.list("runs");
    match runs {
        Some(list) if (1..=MAX_RUNS).contains(&list.len()) => {}
        Some(list) => {
            let message = format!("`runs` has {} entries; it must be {form}", list.len());
            members.refuse("out-of-range", "runs", message, format!("write {form}"));
        }
        None if members.findings.is_empty() => members.missing("runs", &form),
        None => {}
    }
    let findings = members.finish();
    match runs {
        Some(runs) if findings.is_empty() => Ok(runs),
        _ => Err(ApiError::Refused { kind: ProblemKind::InvalidRun, findings }),
    }
}

/// The key of one place of a batch.
fn key_of(key: &str, place: usize, run: &Value, caller: String) -> Idempotency {
    // Members keep the order in which they were sent, so the same request has the same text.
    let text = run.to_string();
    Idempotency {
        scope: "create_runs",
        caller,
        key: format!("{place} {key}"),
        body_hash: Sha256::digest(text.as_bytes()).into(),
    }
}

async fn judge(
    state: &Scoped,
    key: Option<&str>,
    place: usize,
    run: &Value,
) -> Result<create::Candidacy, ApiError> {
    let Value::Object(body) = run else {
        return Err(ApiError::Json(JsonError::NotAnObject { found: kind_of(run) }));
    };
    let key = key.map(|key| key_of(key, place, run, state.principal.caller()));
    create::candidacy(state, key.as_ref(), body).await
}

/// Has the runs come a moment after one another, as they stand in the request: whoever was judged first, that is their order in the queue.
fn put_in_order(judged: &mut [Result<create::Candidacy, ApiError>], now: DateTime<Utc>) {
    for (place, judged) in (0..).zip(judged) {
        if let Ok(create::Candidacy::Fit(new)) = judged {
            new.run.created_at = now + TimeDelta::microseconds(place);
            new.run.queued_at = Some(new.run.created_at);
        }
    }
}

async fn accept(
    state: &Scoped,
    judged: Result<create::Candidacy, ApiError>,
) -> Result<RunBatchItem, ApiError> {
    let (recorded, replayed) = match create::accept(state, judged?, None).await? {
        Keyed::Done(recorded) => (recorded, false),
        Keyed::Replayed(recorded) => (recorded, true),
        Keyed::OtherBody => return Err(ApiError::IdempotencyKeyReused),
        Keyed::InProgress => return Err(ApiError::IdempotencyInProgress),
    };
    let run = RawValue::from_string(recorded.body).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(RunBatchItem { status: recorded.status, replayed, run: Some(run), problem: None })
}

fn refused(error: &ApiError, instance: &str) -> RunBatchItem {
    let problem = error.problem(instance);
    RunBatchItem { status: problem.status, replayed: false, run: None, problem: Some(problem) }
}
