//! The id of a request: the caller's, or one of ours. It is in the answer, in every log line and in every problem.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    clock::{Clock, entropy},
    domain::{ids::uuid_v7, token_mask::without_tokens, trace_parent::TraceParent},
};

/// The header, in both directions.
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Long enough for every tracing system, short enough for a log line.
const MAX_BYTES: usize = 128;

/// The caller's id when it is sane, else a new one.
#[must_use]
pub fn of(headers: &HeaderMap, clock: &dyn Clock) -> HeaderValue {
    if let Some(given) = headers.get(&X_REQUEST_ID).filter(|value| is_sane(value.as_bytes())) {
        return given.clone();
    }
    let id = uuid_v7(clock.now(), entropy());
    HeaderValue::from_str(&id.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

fn is_sane(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let is_visible = (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    // It will stand in logs and answers, where no token belongs.
    is_visible && without_tokens(text) == text
}

/// Where in the caller's trace a request is, by its `traceparent`, if that is sound.
#[must_use]
pub fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get("traceparent")?.to_str().ok()?.parse().ok()
}

tokio::task_local! {
    /// Where in its trace the request is that is being answered.
    static PLACE: Option<TraceParent>;
}

/// Answers a request, which is at this place of its trace.
pub async fn at_place<T>(place: Option<TraceParent>, answering: impl Future<Output = T>) -> T {
    PLACE.scope(place, answering).await
}

/// Where in its trace the request is that is being answered: what comes of it later goes on there.
#[must_use]
pub fn place() -> Option<TraceParent> {
    PLACE.try_with(|place| *place).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_ascii_of_sane_length_is_taken() {
        assert!(is_sane(b"abc-123"));
        assert!(!is_sane(b""));
        assert!(!is_sane(b"a b"));
        assert!(!is_sane(&[b'x'; 129]));
        assert!(!is_sane(b"eyJhbGciOiJF.eyJhIjoxfQ.c2ln"), "a token is no id");
    }

    #[tokio::test]
    async fn a_request_knows_its_place_and_nobody_else_does() {
        let mut headers = HeaderMap::new();
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", HeaderValue::from_static(sound));
        let given = trace_parent(&headers).expect("sound");
        assert_eq!(at_place(Some(given), async { place() }).await, Some(given));
        assert_eq!(place(), None);
    }
}
