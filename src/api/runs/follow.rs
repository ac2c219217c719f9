//! Following a log: an answer that goes on until the run has ended and everything was sent.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use futures_util::{Stream, stream};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    log_reader::{self, LogName},
    progress,
};
use crate::{
    api::{
        error::ApiError,
        sse::{self, COMMENT, KEEP_ALIVE},
        state::{ApiState, Shared},
    },
    domain::run::Status,
};

/// How often the database is asked whether there is more.
const POLL: Duration = Duration::from_millis(250);

/// How a follow is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The bytes as they are.
    Plain,
    /// Server-sent events.
    Events,
}

/// A follow under way.
pub(super) struct Follow {
    state: Shared,
    /// Attempt 0 stands for the first attempt that there will be.
    log: LogName,
    /// How much was sent, or skipped on request.
    sent: u64,
    format: Format,
    /// When something was last sent.
    silent_since: Instant,
    /// Given back when the stream is dropped.
    _permit: OwnedSemaphorePermit,
}

/// What the next look at the database says.
enum Next {
    /// There are bytes up to here.
    Bytes { end: u64, last: bool },
    /// Nothing new.
    Wait,
    /// The run has ended and everything was sent.
    End(Status),
}

impl Follow {
    /// A follow that begins at byte `from`.
    pub(super) fn new(state: &Shared, log: LogName, from: u64, format: Format) -> Result<Self, ApiError> {
        let permit = state.stream_permit()?;
        let state = Arc::clone(state);
        Ok(Self { state, log, sent: from, format, silent_since: Instant::now(), _permit: permit })
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
                    tracing::error!(run = %follow.log.run, %error, "a follow broke off: {error}");
                    Some((Err(error), None))
                }
            }
        })
    }

    /// What to send next; waits until there is something.
    async fn next(&mut self) -> Result<Step, ApiError> {
        loop {
            if self.state.shutdown.is_cancelled() {
                return self.break_off();
            }
            if let Some(step) = self.step().await? {
                return Ok(step);
            }
            if self.format == Format::Events && self.silent_since.elapsed() >= KEEP_ALIVE {
                return Ok(Step::Send(Bytes::from_static(COMMENT.as_bytes())));
            }
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
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

    /// One look; none when there is nothing new.
    async fn step(&mut self) -> Result<Option<Step>, ApiError> {
        match self.look().await? {
            Next::Wait => Ok(None),
            Next::End(status) => Ok(Some(Step::Finish(match self.format {
                Format::Plain => None,
                Format::Events => Some(sse::event("end", Some(self.sent), status.as_str()).into()),
            }))),
            Next::Bytes { end, last } => {
                let bytes = log_reader::read(&self.state.artifacts, &self.log, self.sent..end).await?;
                let reached_end = self.sent + length(&bytes) == end;
                let bytes = match self.format {
                    Format::Plain => bytes,
                    // Characters and line ends are not torn apart: their rest comes with the next event.
                    Format::Events if last && reached_end => bytes,
                    Format::Events => bytes.slice(..whole(&bytes)),
                };
                if bytes.is_empty() {
                    return Ok(None);
                }
                self.sent += length(&bytes);
                Ok(Some(Step::Send(match self.format {
                    Format::Plain => bytes,
                    Format::Events => {
                        sse::event("log", Some(self.sent), &String::from_utf8_lossy(&bytes)).into()
                    }
                })))
            }
        }
    }

    /// The status is read before the size: a size that is read after the end is the final one.
    async fn look(&mut self) -> Result<Next, ApiError> {
        let state: &ApiState = &self.state;
        let progress = progress(state, self.log.run).await?;
        if self.log.attempt == 0 {
            self.log.attempt = progress.attempt;
        }
        let log = state.storage.get_run_log(self.log.run, self.log.attempt, &self.log.name).await?;
        let bytes = log.map_or(0, |log| log.bytes);
        // An attempt that another one has followed is over, too.
        let over = progress.status.is_terminal() || progress.attempt > self.log.attempt;
        Ok(if bytes > self.sent {
            Next::Bytes { end: bytes, last: over }
        } else if over {
            Next::End(progress.status)
        } else {
            Next::Wait
        })
    }
}

/// What to do next.
enum Step {
    /// Send this, and go on.
    Send(Bytes),
    /// Send this, if there is something, and end.
    Finish(Option<Bytes>),
}

fn length(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(0)
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
