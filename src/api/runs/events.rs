//! `GET /v1/runs/{id}/events`

use std::sync::Arc;
use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Serialize;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use utoipa::ToSchema;

use super::progress;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiPath, ApiQuery},
        paging::{Page, PageRequest},
        problem::Problem,
        sse::{self, COMMENT, KEEP_ALIVE},
        state::Shared,
    },
    domain::{
        ids::RunId,
        run::{Cause, Status},
    },
    storage::events as stored,
};

/// How often the database is asked whether there is more.
const POLL: Duration = Duration::from_millis(250);

/// How many events are read at once.
const BATCH: u32 = 100;

/// Something that happened to a run.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct RunEvent {
    /// 1 for the first, without gaps.
    #[schema(minimum = 1, example = 1)]
    pub sequence: u64,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// In which attempt; 0 before the first.
    #[schema(minimum = 0, maximum = 2_147_483_647, example = 0)]
    pub attempt: u32,
    /// `status` for a change of status, `environment` for what differs from what was asked, …
    #[schema(example = "status")]
    pub kind: String,
    /// The status after it.
    pub status: Status,
    /// Why, for an end.
    pub cause: Option<Cause>,
    /// In words.
    pub detail: Option<String>,
}

impl From<stored::RunEvent> for RunEvent {
    fn from(event: stored::RunEvent) -> Self {
        Self {
            sequence: event.sequence,
            occurred_at: event.occurred_at,
            attempt: event.attempt,
            kind: event.kind,
            status: event.status,
            cause: event.cause,
            detail: event.detail,
        }
    }
}

/// List or follow the events of a run
///
/// The append-only history, oldest first. With `Accept: text/event-stream` each event comes as it happens, named
/// by its `kind`, with its sequence number as id (`Last-Event-ID` resumes after it) and the JSON as data; the stream ends
/// when the run has ended and everything was sent.
#[utoipa::path(
    get, path = "/v1/runs/{id}/events", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("after" = Option<u64>, Query, description = "Only events after this sequence number", minimum = 0),
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before"),
        ("Last-Event-ID" = Option<u64>, Header, description = "The id of the last event that was received", minimum = 0),
    ),
    responses(
        (status = 200, description = "The events", content((Page<RunEvent> = "application/json"), (String = "text/event-stream"))),
        (status = 400, description = "A parameter is malformed", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
    ),
)]
pub async fn list_run_events(
    State(state): State<Shared>,
    ApiPath(id): ApiPath<RunId>,
    mut query: ApiQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = query.take_parsed::<u64>("after", "a sequence number")?;
    let request = PageRequest::<u64>::take(&mut query, &format!("run_events {id}"))?;
    query.finish(&["after", "limit", "cursor"])?;
    progress(&state, id).await?;
    let after = request.after.or(after).unwrap_or(0);
    if sse::is_wanted(&headers) {
        let after = sse::last_event_id(&headers).unwrap_or(after);
        return follow(&state, id, after);
    }
    let events = state.storage.list_run_events(id, after, request.rows()).await?;
    let page = request.page(events, |event| event.sequence).map(RunEvent::from);
    etag::json(StatusCode::OK, &page)
}

struct Follow {
    state: Shared,
    run: RunId,
    after: u64,
    silent_since: Instant,
    /// Given back when the stream is dropped.
    _permit: OwnedSemaphorePermit,
}

fn follow(state: &Shared, run: RunId, after: u64) -> Result<Response, ApiError> {
    let follow = Follow {
        state: Arc::clone(state),
        run,
        after,
        silent_since: Instant::now(),
        _permit: state.stream_permit()?,
    };
    let stream = stream::try_unfold(follow, |mut follow| async move {
        let next = follow.next().await;
        if let Err(error) = &next {
            tracing::error!(run = %follow.run, %error, "an event stream broke off: {error}");
        }
        Ok::<_, ApiError>(next?.map(|bytes| (bytes, follow)))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(sse::EVENT_STREAM));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

impl Follow {
    async fn next(&mut self) -> Result<Option<Bytes>, ApiError> {
        loop {
            if self.state.shutdown.is_cancelled() {
                return Ok(None);
            }
            // The status first: events that are read after the end are all there will be.
            let over = progress(&self.state, self.run).await?.status.is_terminal();
            let events = self.state.storage.list_run_events(self.run, self.after, BATCH).await?;
            if let Some(last) = events.last() {
                self.after = last.sequence;
                self.silent_since = Instant::now();
                return Ok(Some(text(events)?.into()));
            }
            if over {
                return Ok(None);
            }
            if self.silent_since.elapsed() >= KEEP_ALIVE {
                self.silent_since = Instant::now();
                return Ok(Some(Bytes::from_static(COMMENT.as_bytes())));
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = self.state.shutdown.cancelled() => return Ok(None),
            }
        }
    }
}

fn text(events: Vec<stored::RunEvent>) -> Result<String, ApiError> {
    let mut text = String::new();
    for event in events.into_iter().map(RunEvent::from) {
        let data = serde_json::to_string(&event).map_err(|error| ApiError::Internal(error.to_string()))?;
        text.push_str(&sse::event(&event.kind, Some(event.sequence), &data));
    }
    Ok(text)
}
