//! HTTP/1.1 as cheap as it can be had: the driver shares the machine with what it drives.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, StatusCode, Uri, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// What is asked. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Call {
    method: Method,
    uri: Uri,
    body: Bytes,
    content_type: &'static str,
    expected: StatusCode,
}

impl Call {
    /// Reads something; answered with 200.
    ///
    /// # Errors
    /// When the path is none.
    pub fn get(path: &str) -> anyhow::Result<Self> {
        let uri = path.parse().with_context(|| format!("{path} is no path"))?;
        let body = Bytes::new();
        Ok(Self { method: Method::GET, uri, body, content_type: "", expected: StatusCode::OK })
    }

    /// Sends JSON; answered with the given status.
    ///
    /// # Errors
    /// When the path is none.
    pub fn post(path: &str, json: &serde_json::Value, expected: StatusCode) -> anyhow::Result<Self> {
        Self::send(path, "application/json", json.to_string(), expected)
    }

    /// Sends bytes; answered with the given status.
    ///
    /// # Errors
    /// When the path is none.
    pub fn send(
        path: &str,
        content_type: &'static str,
        body: impl Into<Bytes>,
        expected: StatusCode,
    ) -> anyhow::Result<Self> {
        let body = body.into();
        Ok(Self { method: Method::POST, body, content_type, expected, ..Self::get(path)? })
    }
}

/// A connection that is kept alive.
pub struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    host: header::HeaderValue,
}

impl Connection {
    /// Connects; what drives the connection is a task of the current runtime.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Whoever sends is told when the connection breaks.
        tokio::spawn(connection);
        Ok(Self { sender, host: address.to_string().parse()? })
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// When the connection breaks, or the status is not the one expected.
    pub async fn ask(&mut self, call: &Call) -> anyhow::Result<Bytes> {
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = call.uri.clone();
        request.headers_mut().insert(header::HOST, self.host.clone());
        if !call.content_type.is_empty() {
            let value = header::HeaderValue::from_static(call.content_type);
            request.headers_mut().insert(header::CONTENT_TYPE, value);
        }
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        ensure!(
            status == call.expected,
            "{} {}: {status}: {}",
            call.method,
            call.uri,
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}
