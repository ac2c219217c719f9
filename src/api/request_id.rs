//! The id of a request: the caller's, or one of ours. It is in the answer, in every log line and in every problem.

use axum::http::{HeaderMap, HeaderName, HeaderValue};

use crate::clock::{Clock, entropy};

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
    let millis = u64::try_from(clock.now().timestamp_millis()).unwrap_or(0);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &entropy()).into_uuid();
    HeaderValue::from_str(&id.to_string()).unwrap_or(HeaderValue::from_static("unknown"))
}

fn is_sane(bytes: &[u8]) -> bool {
    (1..=MAX_BYTES).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

/// The trace id of a W3C `traceparent` (`00-<32 digits>-<16 digits>-<2 digits>`), if there is a sound one.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = text.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, digits: usize| {
        text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let sound = is_hex(version, 2) && version != "ff" && is_hex(trace, 32) && is_hex(span, 16);
    (sound && trace.bytes().any(|b| b != b'0')).then_some(trace)
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
    }

    #[test]
    fn trace_ids_are_read_from_sound_headers_only() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", HeaderValue::from_static(text));
            trace_id(&headers).map(str::to_owned)
        };
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(of(sound).as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert_eq!(of("00-00000000000000000000000000000000-b7ad6b7169203331-01"), None);
        assert_eq!(of("nonsense"), None);
    }
}
