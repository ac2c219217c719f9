//! Following a log: an answer that goes on until the run has ended and everything was sent.

use std::sync::Arc;

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::{Stream, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, watch},
    time::{Instant, sleep_until},
};

use super::log_reader::{self, length};
use crate::{
    api::{
        error::ApiError,
        feed::{Feed, Format, LogName, Seen, Topic},
        sse::{self, COMMENT, KEEP_ALIVE},
        state::Shared,
    },
    domain::run::LOG_SEGMENT_BYTES,
};

/// How much of a log is sent at once: what many followers have in their buffers at the same time.
const PIECE_BYTES: u64 = 32 * 1024;

/// How much is sent at once to some of those who are so far behind.
const LARGE_PIECE_BYTES: u64 = LOG_SEGMENT_BYTES;

/// A follow under way.
pub(super) struct Follow {
    state: Shared,
    log: LogName,
    feed: Arc<Feed>,
    seen: watch::Receiver<Option<Seen>>,
    /// Whether one attempt alone was asked for; else those that come after it are followed too, as events.
    is_pinned: bool,
    /// How much was sent, or skipped on request.
    sent: u64,
    format: Format,
    /// When something was last sent.
    silent_since: Instant,
    /// Held while what was sent last is a large piece.
    large: Option<OwnedSemaphorePermit>,
    /// Given back when the stream is dropped.
    _permit: OwnedSemaphorePermit,
}

impl Follow {
    /// A follow that begins at byte `from`.
    pub(super) fn new(
        state: &Shared,
        log: LogName,
        is_pinned: bool,
        from: u64,
        format: Format,
    ) -> Result<Self, ApiError> {
        let permit = state.stream_permit()?;
        let state = Arc::clone(state);
        let feed = state.feeds.join(&state.installation, &Topic::Log(log.clone()));
        let seen = feed.watch();
        Ok(Self {
            state,
            log,
            is_pinned,
            feed,
            seen,
            sent: from,
            format,
            silent_since: Instant::now(),
            large: None,
            _permit: permit,
        })
    }

    /// The answer.
    pub(super) fn into_response(self) -> Response {
        let content_type = match self.format {
            Format::Plain => "text/plain; charset=utf-8",
            Format::Events => sse::EVENT_STREAM,
        };
        let mut response = Response::new(Body::from_stream(self.into_stream()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        // Proxies that buffer would hold back what somebody is waiting for.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    fn into_stream(self) -> impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static {
        stream::unfold(Some(self), |follow| async move {
            let mut follow = follow?;
            match follow.next().await {
                Ok(Step::Send(bytes)) => {
                    follow.silent_since = Instant::now();
                    Some((Ok(bytes), Some(follow)))
                }
                Ok(Step::Finish(last)) => Some((Ok(last?), None)),
                // The connection breaks off, which tells the caller to resume from where it is.
                Err(error @ ApiError::ShuttingDown) => Some((Err(error), None)),
                Err(error) => {
                    let run = follow.log.run;
                    tracing::error!(run.id = %run, "run {run}: a follow broke off: {error}");
                    Some((Err(error), None))
                }
            }
        })
    }

    /// What to send next; waits until there is something.
    async fn next(&mut self) -> Result<Step, ApiError> {
        // Whoever asks for more has handed on what was sent before.
        self.large = None;
        loop {
            if self.state.shutdown.is_cancelled() {
                return self.break_off();
            }
            let seen = *self.seen.borrow_and_update();
            if let Some(seen) = seen
                && let Some(step) = self.step(seen).await?
            {
                return Ok(step);
            }
            tokio::select! {
                changed = self.seen.changed() => changed.map_err(|_| {
                    ApiError::Internal(format!("nobody looks at the log `{}` any more", self.log.name))
                })?,
                () = sleep_until(self.silent_since + KEEP_ALIVE), if self.format == Format::Events => {
                    return Ok(Step::Send(Bytes::from_static(COMMENT.as_bytes())));
                }
                () = self.state.shutdown.cancelled() => return self.break_off(),
            }
        }
    }

    /// The service stops before the run has. A plain follow has no other way to say so than to break the connection off:
    /// its proper end means that everything was sent. Server-sent events end with an `end`, or else are resumed.
    fn break_off(&self) -> Result<Step, ApiError> {
        match self.format {
            Format::Plain => Err(ApiError::ShuttingDown),
            Format::Events => Ok(Step::Finish(None)),
        }
    }

    /// What follows from a look; none when there is nothing new.
    async fn step(&mut self, seen: Seen) -> Result<Option<Step>, ApiError> {
        if seen.end > self.sent
            && let Some((next, bytes)) = self.piece(seen).await?
        {
            self.sent = next;
            return Ok(Some(Step::Send(bytes)));
        }
        if !seen.over {
            return Ok(None);
        }
        if self.format == Format::Events && !self.is_pinned && seen.latest > seen.attempt {
            return Ok(Some(Step::Send(self.go_on(seen.attempt + 1))));
        }
        Ok(Some(Step::Finish(match self.format {
            Format::Plain => None,
            Format::Events => {
                let id = format!("{}-{}", seen.attempt, self.sent);
                Some(sse::event("end", Some(&id), seen.status.as_str()).into())
            }
        })))
    }

    /// The attempt is over and another one has begun: its log is followed from its beginning, and that is said.
    fn go_on(&mut self, attempt: u32) -> Bytes {
        self.log.attempt = attempt;
        self.feed = self.state.feeds.join(&self.state.installation, &Topic::Log(self.log.clone()));
        self.seen = self.feed.watch();
        self.sent = 0;
        sse::event("attempt", Some(&format!("{attempt}-0")), &attempt.to_string()).into()
    }

    /// The next part of what there is, and where the one after it begins.
    async fn piece(&mut self, seen: Seen) -> Result<Option<(u64, Bytes)>, ApiError> {
        let start = self.sent;
        let log = LogName { attempt: seen.attempt, ..self.log.clone() };
        if seen.end - start >= LARGE_PIECE_BYTES {
            self.large = self.state.large_piece_permit();
        }
        if self.large.is_none() {
            let end = seen.end.min(start.saturating_add(PIECE_BYTES));
            let read = async {
                let bytes = log_reader::read(&self.state.artifacts, &log, start..end).await?;
                self.written_out(&log, start, seen, bytes)
            };
            let piece = self.feed.piece(start, self.format, read).await?;
            return Ok(piece.map(|piece| (piece.next, piece.bytes)));
        }
        // It is kept for nobody else: how many there are of these is limited.
        let bytes = log_reader::read(&self.state.artifacts, &log, start..start + LARGE_PIECE_BYTES).await?;
        self.written_out(&log, start, seen, bytes)
    }

    /// What was read of a log from `start` on, as it is sent, and where what comes after it begins; none when nothing of it can be sent
    /// yet.
    fn written_out(
        &self,
        log: &LogName,
        start: u64,
        seen: Seen,
        bytes: Bytes,
    ) -> Result<Option<(u64, Bytes)>, ApiError> {
        let is_final = seen.over && start + length(&bytes) == seen.end;
        let bytes = match self.format {
            Format::Plain => bytes,
            // Characters and line ends are not torn apart: their rest comes with the next event.
            Format::Events if is_final => bytes,
            Format::Events => bytes.slice(..whole(&bytes)),
        };
        if bytes.is_empty() && seen.over {
            return Err(ApiError::Internal(format!("a segment of the log `{}` is gone", log.name)));
        }
        if bytes.is_empty() {
            return Ok(None);
        }
        let next = start + length(&bytes);
        let sent = match self.format {
            Format::Plain => bytes,
            Format::Events => {
                let id = format!("{}-{next}", log.attempt);
                sse::event("log", Some(&id), &String::from_utf8_lossy(&bytes)).into()
            }
        };
        Ok(Some((next, sent)))
    }
}

/// What to do next.
enum Step {
    /// Send this, and go on.
    Send(Bytes),
    /// Send this, if there is something, and end.
    Finish(Option<Bytes>),
}

/// How many bytes are whole: without a character whose end is missing, and without a carriage return that a line feed may
/// follow. Bytes that are no UTF-8 at all are whole.
fn whole(bytes: &[u8]) -> usize {
    let mut end = bytes.len();
    for back in 1..=bytes.len().min(3) {
        let at = bytes.len() - back;
        let needed = match bytes[at] {
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            // The inside of a character: look for its beginning.
            0x80..=0xBF => continue,
            _ => break,
        };
        if needed > back {
            end = at;
        }
        break;
    }
    if end > 0 && bytes[end - 1] == b'\r' { end - 1 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_and_line_ends_are_not_torn_apart() {
        assert_eq!(whole("abc".as_bytes()), 3);
        assert_eq!(whole(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole("aé".as_bytes()), 3);
        assert_eq!(whole(&"a数".as_bytes()[..3]), 1);
        assert_eq!(whole(&"a🦀".as_bytes()[..4]), 1);
        assert_eq!(whole("a🦀".as_bytes()), 5);
        assert_eq!(whole(b"a\r"), 1);
        assert_eq!(whole(b"a\r\n"), 3);
        assert_eq!(whole(b"\xff\xff"), 2);
        assert_eq!(whole(b"\x80\x80\x80\x80"), 4);
        assert_eq!(whole(b""), 0);
    }
}
