//! The HTTP server around a router: what no router can do, because it happens before there is a request. A head that comes too
//! slowly, or is too large to be read at all, ends its connection; everything else is answered by the router.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use axum::{Router, body::Body, extract::ConnectInfo, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;
use tracing::{debug, warn};

/// How long the head of a request may take, also that of the next one on a connection that is kept: longer than proxies keep idle
/// connections (a minute, as a rule), so that none sends a request into one that is being closed.
const HEAD_PATIENCE: Duration = Duration::from_secs(120);

/// The largest head that is read, and how much is kept ready for a caller who does not read: several times what proxies let through.
const BUFFER_BYTES: usize = 64 * 1024;

/// More headers than the router takes, so that it can say so.
const MAX_HEADERS: usize = 1024;

/// How long nothing is accepted when there are no files left for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Answers until `stopped`, and then until the requests under way have been answered.
/// What goes wrong with one connection is that connection's.
pub async fn serve(listener: TcpListener, router: Router, stopped: impl Future<Output = ()>) {
    serve_with(listener, router, stopped, HEAD_PATIENCE).await;
}

async fn serve_with(
    listener: TcpListener,
    router: Router,
    stopped: impl Future<Output = ()>,
    head_patience: Duration,
) {
    let graceful = GracefulShutdown::new();
    tokio::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stopped => break,
        };
        match accepted {
            Ok((stream, peer)) => answer(stream, peer, router.clone(), &graceful, head_patience),
            Err(error) if is_of_connection(&error) => {
                debug!("a connection was gone before it was accepted: {error}")
            }
            Err(error) => {
                warn!("no connection can be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
}

fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
    )
}

fn answer(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    graceful: &GracefulShutdown,
    head_patience: Duration,
) {
    // Events are small, and somebody waits for each.
    if let Err(error) = stream.set_nodelay(true) {
        debug!("small packets may wait: {error}");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        // Callers without a name of their own are told apart by their addresses.
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move {
            let answered: Result<_, Infallible> = router.oneshot(request.map(Body::new)).await;
            answered
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_patience)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            debug!(%peer, "a connection ended: {error}");
        }
    });
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::Notify,
        time::timeout,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn connected(router: Router, stop: &CancellationToken) -> (TcpStream, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stopped = stop.clone().cancelled_owned();
        let server = tokio::spawn(serve_with(listener, router, stopped, Duration::from_millis(50)));
        (TcpStream::connect(address).await.expect("connected"), server)
    }

    async fn everything(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("text");
        text
    }

    #[tokio::test]
    async fn a_head_that_does_not_end_ends_its_connection() {
        let stop = CancellationToken::new();
        let (mut stream, _server) = connected(Router::new(), &stop).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow").await.expect("sent");
        let answered = timeout(Duration::from_secs(20), everything(&mut stream)).await.expect("it ends");
        assert!(!answered.contains("200 OK"), "{answered}");
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_before_the_end() {
        let (begun, gate) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
        let (begins, waits) = (begun.clone(), gate.clone());
        let router = Router::new().route(
            "/",
            get(move || async move {
                begins.notify_one();
                waits.notified().await;
                "the answer"
            }),
        );
        let stop = CancellationToken::new();
        let (mut stream, server) = connected(router, &stop).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
        begun.notified().await;
        stop.cancel();
        gate.notify_one();
        let text = everything(&mut stream).await;
        assert!(text.starts_with("HTTP/1.1 200 OK") && text.ends_with("the answer"), "{text}");
        server.await.expect("no panic");
    }
}
