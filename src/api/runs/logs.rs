//! `GET /v1/runs/{id}/logs/{path}`

use std::{ops::Range, sync::Arc};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;

use super::{follow::Follow, log_files::take_attempt, log_reader, progress};
use crate::{
    api::{
        error::ApiError,
        extract::{ApiPath, ApiQuery},
        feed::{Format, LogName},
        problem::Problem,
        range,
        scoped::Scoped,
        sse,
        state::Shared,
    },
    domain::ids::RunId,
};

/// Read or follow a log file
///
/// Once: the bytes there are, or those of a `Range`, or those from `offset` on. With `follow=true` the answer goes on as plain
/// text until the attempt has ended and everything was sent. With `Accept: text/event-stream` it goes on as events: `log` with
/// the text as data and, as id, `<attempt>-<bytes up to here>` (`Last-Event-ID` resumes from there); `attempt` with its number when
/// another one has begun, unless one was asked for; at last `end` with the run's status. A file that is not there yet is waited for while
/// the run lives.
#[utoipa::path(
    get, path = "/v1/runs/{id}/logs/{*path}", tag = "runs",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("path" = String, Path, description = "The file's path; its slashes need not be escaped", example = "user_logs/std_log.txt"),
        ("attempt" = Option<u32>, Query, description = "The attempt; the latest when not given", minimum = 1, maximum = 2_147_483_647),
        ("offset" = Option<u64>, Query, description = "Begin at this byte", minimum = 0),
        ("follow" = Option<bool>, Query, description = "Go on until the run has ended"),
        ("Range" = Option<String>, Header, description = "`bytes=<first>-<last>`"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was received", example = "1-0"),
    ),
    responses(
        (status = 200, description = "The log", content((String = "text/plain"), (String = "text/event-stream"))),
        (status = 206, description = "The asked range", body = String, content_type = "text/plain", headers(("Content-Range" = String, description = "Which bytes of how many"))),
        (status = 400, description = "A parameter is malformed", body = Problem),
        (status = 404, description = "There is no such run, or it has no such log", body = Problem),
        (status = 416, description = "The range begins behind the end", body = Problem),
    ),
)]
pub async fn get_run_log(
    state: Scoped,
    ApiPath((id, name)): ApiPath<(RunId, String)>,
    mut query: ApiQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let attempt = take_attempt(&mut query)?;
    let offset = query.take_parsed::<u64>("offset", "a number of bytes")?;
    let follow = query.take_parsed::<bool>("follow", "`true` or `false`")?.unwrap_or(false);
    query.finish(&["attempt", "offset", "follow"])?;

    let progress = progress(&state, id).await?;
    let events = sse::is_wanted(&headers);
    let last = if events { sse::last_place(&headers)? } else { None };
    let is_pinned = attempt.is_some();
    let attempt = attempt.or(last.and_then(|(attempt, _)| attempt)).unwrap_or(progress.attempt);
    let stored = state.installation.get_run_log(id, attempt, &name).await?;
    let log = LogName { run: id, attempt, name };
    let missing = || ApiError::NoFileOfAttempt { what: "log", name: log.name.clone(), attempt };
    let may_still_come = !progress.status.is_terminal() && attempt == progress.attempt;
    if follow || events {
        let goes_on = events && !is_pinned && attempt < progress.attempt;
        if stored.is_none() && !may_still_come && !goes_on {
            return Err(missing());
        }
        let format = if events { Format::Events } else { Format::Plain };
        let from = last.map(|(_, from)| from).or(offset).unwrap_or(0);
        // Nobody can have been sent more than there is.
        let total = stored.map_or(0, |log| log.bytes);
        if from > total {
            return Err(ApiError::Range { total });
        }
        return Ok(Follow::new(state.shared(), log, is_pinned, from, format)?.into_response());
    }
    let total = stored.ok_or_else(missing)?.bytes;
    let ranged = if offset.is_some() { None } else { range::asked(&headers, total)? };
    let first = offset.unwrap_or(0);
    if first > total {
        return Err(ApiError::Range { total });
    }
    let (status, bytes) = match ranged {
        Some(range) => (StatusCode::PARTIAL_CONTENT, range),
        None => (StatusCode::OK, first..total),
    };
    Ok(part(state.shared(), log, status, bytes, total))
}

/// Bytes that are there now: a log only grows, so what was announced can be sent.
fn part(state: &Shared, log: LogName, status: StatusCode, bytes: Range<u64>, total: u64) -> Response {
    let content_length = bytes.end - bytes.start;
    let content_range = format!("bytes {}-{}/{total}", bytes.start, bytes.end.saturating_sub(1));
    let stream = stream::try_unfold((Arc::clone(state), log, bytes), |(state, log, rest)| async move {
        if rest.start >= rest.end {
            return Ok(None);
        }
        let bytes = log_reader::read(&state.artifacts, &log, rest.clone()).await?;
        if bytes.is_empty() {
            let detail = format!("a segment of the log `{}` of run {} is gone", log.name, log.run);
            return Err(ApiError::Internal(detail));
        }
        let start = rest.start + u64::try_from(bytes.len()).unwrap_or(0);
        Ok(Some((bytes, (state, log, start..rest.end))))
    });
    let mut response = Response::new(Body::from_stream(stream));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, content_length.into());
    if status == StatusCode::PARTIAL_CONTENT
        && let Ok(value) = HeaderValue::from_str(&content_range)
    {
        headers.insert(header::CONTENT_RANGE, value);
    }
    response
}
