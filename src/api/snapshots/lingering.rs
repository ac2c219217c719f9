//! An upload that is refused before its end. Whoever closes a connection on which the other side still writes takes the answer away from
//! it: it sees a broken pipe and not why. So what is still on its way is read for a while, and thrown away.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, future};

/// How long it is read on: a client that listens while it sends has stopped by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// A body that is read on when it is dropped before its end.
pub(super) struct Lingering<S: Stream + Send + Unpin + 'static>(Option<S>);

impl<S: Stream + Send + Unpin + 'static> Lingering<S> {
    pub(super) const fn new(body: S) -> Self {
        Self(Some(body))
    }
}

impl<S: Stream + Send + Unpin + 'static> Stream for Lingering<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let polled = body.poll_next_unpin(context);
        if matches!(polled, Poll::Ready(None)) {
            self.0 = None;
        }
        polled
    }
}

impl<S: Stream + Send + Unpin + 'static> Drop for Lingering<S> {
    fn drop(&mut self) {
        if let Some(body) = self.0.take() {
            let rest = body.for_each(|_| future::ready(()));
            tokio::spawn(async { tokio::time::timeout(PATIENCE, rest).await });
        }
    }
}
