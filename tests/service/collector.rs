//! A collector of traces, as far as the service needs one.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use opentelemetry_proto::tonic::{collector::trace::v1::ExportTraceServiceRequest, trace::v1::Span};
use prost::Message as _;

/// A collector that keeps what it is sent.
pub struct Collector {
    pub address: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("an address");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || answer(stream.expect("a connection"), &kept));
            }
        });
        Self { address, spans }
    }

    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().expect("nobody panicked").clone()
    }
}

/// Reads requests of one connection, as plain as they are, until it is closed.
fn answer(mut stream: TcpStream, kept: &Mutex<Vec<Span>>) {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => return,
                Ok(count) => buffer.extend_from_slice(&piece[..count]),
            }
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_lowercase();
        assert!(text.starts_with("post /v1/traces "), "{text}");
        let length = text.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
        let length: usize = length.expect("a length").trim().parse().expect("a number");
        while buffer.len() < head + length {
            let mut piece = [0; 4096];
            let count = stream.read(&mut piece).expect("a body");
            buffer.extend_from_slice(&piece[..count]);
        }
        let request = ExportTraceServiceRequest::decode(&buffer[head..head + length]).expect("protobuf");
        let spans = request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans);
        kept.lock().expect("nobody panicked").extend(spans);
        buffer.drain(..head + length);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
    }
}
