//! Bodies that trickle: whoever sends a byte now and then keeps a place for ever. So a body has to come at a least rate, by the time
//! that was spent waiting for it.

use std::{
    mem,
    time::{Duration, Instant},
};

use axum::{
    body::{Body, BodyDataStream, Bytes},
    extract::Request,
    middleware::Next,
    response::Response,
};
use futures_util::{StreamExt as _, stream};

/// What is looked at together: who is slow for less than that may have a bad moment.
const WINDOW: Duration = Duration::from_secs(60);
/// What must have come in it: what the slowest lines send in a few seconds.
const LEAST_BYTES: usize = 60 * 1024;

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
#[error("it came too slowly: within {} seconds less than {LEAST_BYTES} bytes", WINDOW.as_secs())]
struct TooSlow;

/// What came of a body since it was last looked at, and how long that was waited for.
struct Pace {
    window: Duration,
    waited: Duration,
    came: usize,
}

impl Pace {
    const fn new(window: Duration) -> Self {
        Self { window, waited: Duration::ZERO, came: 0 }
    }

    /// For how long it may be waited until it is looked at.
    const fn left(&self) -> Duration {
        self.window.saturating_sub(self.waited)
    }

    /// After it was waited for so long, and so much came.
    fn after(&mut self, waited: Duration, came: usize) -> Result<(), TooSlow> {
        self.waited += waited;
        self.came += came;
        if self.waited < self.window {
            return Ok(());
        }
        self.waited = Duration::ZERO;
        if mem::take(&mut self.came) < LEAST_BYTES { Err(TooSlow) } else { Ok(()) }
    }
}

struct Paced {
    body: BodyDataStream,
    pace: Pace,
    is_over: bool,
}

impl Paced {
    async fn next(&mut self) -> Option<Result<Bytes, axum::Error>> {
        while !self.is_over {
            let begun = Instant::now();
            let piece = tokio::time::timeout(self.pace.left(), self.body.next()).await;
            let came = match &piece {
                Ok(Some(Ok(bytes))) => bytes.len(),
                Ok(None | Some(Err(_))) => return piece.ok().flatten(),
                Err(_) => 0,
            };
            if let Err(slow) = self.pace.after(begun.elapsed(), came) {
                self.is_over = true;
                return Some(Err(axum::Error::new(slow)));
            }
            if let Ok(piece) = piece {
                return piece;
            }
        }
        None
    }
}

/// Ends the body of a request when it comes too slowly.
pub async fn paced(request: Request, next: Next) -> Response {
    next.run(request.map(|body| at_a_pace(body, WINDOW))).await
}

fn at_a_pace(body: Body, window: Duration) -> Body {
    let paced = Paced { body: body.into_data_stream(), pace: Pace::new(window), is_over: false };
    let pieces = stream::unfold(paced, |mut paced| async { paced.next().await.map(|piece| (piece, paced)) });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After how many seconds a body is ended that sends so many bytes every so many seconds; none when it may go on for an hour.
    fn ends(bytes: usize, seconds: u64) -> Option<u64> {
        let mut pace = Pace::new(WINDOW);
        (1..=3600 / seconds)
            .find(|_| pace.after(Duration::from_secs(seconds), bytes).is_err())
            .map(|pieces| pieces * seconds)
    }

    #[test]
    fn who_trickles_is_ended_and_who_is_slow_is_not() {
        assert_eq!(ends(1, 20), Some(60));
        assert_eq!(ends(1000, 1), Some(60));
        assert_eq!(ends(1024, 1), None);
        assert_eq!(ends(100 * 1024, 50), None);
        assert_eq!(ends(0, 60), Some(60));
        // The time that the reader takes is not the sender's.
        assert_eq!(Pace::new(WINDOW).left(), WINDOW);
        let mut pace = Pace::new(WINDOW);
        assert!((0..1000).all(|_| pace.after(Duration::ZERO, 1).is_ok()));
    }

    #[tokio::test]
    async fn what_does_not_come_is_an_error_and_what_comes_is_read() {
        let silent = Body::from_stream(stream::pending::<Result<Bytes, axum::Error>>());
        let mut read = at_a_pace(silent, Duration::from_millis(20)).into_data_stream();
        let error = read.next().await.expect("an end").expect_err("too slow").to_string();
        assert!(error.contains("too slowly"), "{error}");
        assert!(read.next().await.is_none());
        let mut read = at_a_pace(Body::from("all of it"), WINDOW).into_data_stream();
        assert_eq!(read.next().await.expect("a piece").expect("read"), "all of it");
        assert!(read.next().await.is_none());
    }
}
