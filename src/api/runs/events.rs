//! `GET /v1/runs/{id}/events`

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use chrono::{DateTime, Utc};
use futures_util::stream;
use serde::Serialize;
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};
use utoipa::ToSchema;

use super::progress;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::{ApiPath, ApiQuery},
        feed::{Feed, Format, Piece, Seen, Topic},
        paging::{Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
        sse::{self, COMMENT, KEEP_ALIVE},
        state::Shared,
    },
    domain::{
        ids::RunId,
        run::{Cause, Status},
    },
    storage::events as stored,
};

const SEQUENCE: &str = "a sequence number: an integer from 0 to 9223372036854775807";

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
/// by its `kind`, with its sequence number as id (`Last-Event-ID` resumes after it) and the JSON as data; when the run has
/// ended and everything was sent, `end` comes with its status, and the stream ends.
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
    state: Scoped,
    ApiPath(id): ApiPath<RunId>,
    mut query: ApiQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = query.take_number("after", 0..=i64::MAX as u64, SEQUENCE)?;
    let request = PageRequest::<u64>::take(&mut query, &format!("run_events {id}"))?;
    query.finish(&["after", "limit", "cursor"])?;
    progress(&state, id).await?;
    let after = request.after.or(after).unwrap_or(0);
    if sse::is_wanted(&headers) {
        let after = sse::last_event_id(&headers)?.unwrap_or(after);
        return follow(state.shared(), id, after);
    }
    let events = state.installation.list_run_events(id, after, request.rows()).await?;
    let page = request.page(events, |event| event.sequence).map(RunEvent::from);
    etag::json(StatusCode::OK, &page)
}

struct Follow {
    state: Shared,
    run: RunId,
    feed: Arc<Feed>,
    seen: watch::Receiver<Option<Seen>>,
    after: u64,
    silent_since: Instant,
    has_ended: bool,
    /// Given back when the stream is dropped.
    _permit: OwnedSemaphorePermit,
}

fn follow(state: &Shared, run: RunId, after: u64) -> Result<Response, ApiError> {
    let permit = state.stream_permit()?;
    let state = Arc::clone(state);
    let feed = state.feeds.join(&state.installation, &Topic::Run(run));
    let seen = feed.watch();
    let follow = Follow {
        state,
        run,
        feed,
        seen,
        after,
        silent_since: Instant::now(),
        has_ended: false,
        _permit: permit,
    };
    let stream = stream::try_unfold(follow, |mut follow| async move {
        let next = follow.next().await;
        if let Err(error) = &next {
            let run = follow.run;
            tracing::error!(run.id = %run, "run {run}: an event stream broke off: {error}");
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
            let seen = *self.seen.borrow_and_update();
            if let Some(seen) = seen {
                if seen.end > self.after
                    && let Some(piece) = self.piece().await?
                {
                    self.after = piece.next;
                    self.silent_since = Instant::now();
                    return Ok(Some(piece.bytes));
                }
                if seen.over && self.has_ended {
                    return Ok(None);
                }
                if seen.over {
                    // So that nobody takes the end of the connection for a fault, and asks again for ever.
                    self.has_ended = true;
                    return Ok(Some(sse::event("end", Some(&self.after), seen.status.as_str()).into()));
                }
            }
            tokio::select! {
                changed = self.seen.changed() => changed.map_err(|_| {
                    ApiError::Internal("nobody looks at the run any more".to_owned())
                })?,
                () = sleep_until(self.silent_since + KEEP_ALIVE) => {
                    self.silent_since = Instant::now();
                    return Ok(Some(Bytes::from_static(COMMENT.as_bytes())));
                }
                () = self.state.shutdown.cancelled() => return Ok(None),
            }
        }
    }

    /// The next events.
    async fn piece(&self) -> Result<Option<Piece>, ApiError> {
        let after = self.after;
        let read = async {
            let events = self.state.installation.list_run_events(self.run, after, BATCH).await?;
            let Some(last) = events.last().map(|event| event.sequence) else { return Ok(None) };
            Ok(Some((last, text(events)?.into())))
        };
        self.feed.piece(after, Format::Events, read).await
    }
}

fn text(events: Vec<stored::RunEvent>) -> Result<String, ApiError> {
    let mut text = String::new();
    for event in events.into_iter().map(RunEvent::from) {
        let data = serde_json::to_string(&event).map_err(|error| ApiError::Internal(error.to_string()))?;
        text.push_str(&sse::event(&event.kind, Some(&event.sequence), &data));
    }
    Ok(text)
}
