//! Byte ranges (RFC 9110, section 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};

use super::error::ApiError;

/// Which bytes of `total` a request asks for; none for all of them. Only one range is served: of several, and of forms
/// that are not understood, a server may ignore the header, and this one does.
///
/// # Errors
/// When the range begins behind the end.
pub fn asked(headers: &HeaderMap, total: u64) -> Result<Option<Range<u64>>, ApiError> {
    let Some(text) = headers.get(header::RANGE).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let Some(spec) = text.strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Ok(None);
    };
    let Some((first, last)) = spec.trim().split_once('-') else { return Ok(None) };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => first..last.saturating_add(1).min(total),
        (Ok(first), Err(_)) if last.is_empty() => first..total,
        (Err(_), Ok(count)) if first.is_empty() => total.saturating_sub(count)..total,
        _ => return Ok(None),
    };
    if range.start >= range.end { Err(ApiError::Range { total }) } else { Ok(Some(range)) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(text: &'static str, total: u64) -> Result<Option<Range<u64>>, ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static(text));
        asked(&headers, total)
    }

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        assert_eq!(of("bytes=0-0", 10).expect("fine"), Some(0..1));
        assert_eq!(of("bytes=4-", 10).expect("fine"), Some(4..10));
        assert_eq!(of("bytes=-3", 10).expect("fine"), Some(7..10));
        assert_eq!(of("bytes=-30", 10).expect("fine"), Some(0..10));
        assert_eq!(of("bytes=2-99", 10).expect("fine"), Some(2..10));
        for ignored in ["lines=1-2", "bytes=1-2,4-5", "bytes=5-2", "bytes=x-", "bytes=-"] {
            assert_eq!(of(ignored, 10).expect("ignored"), None, "{ignored}");
        }
        assert!(of("bytes=10-", 10).is_err());
        assert!(of("bytes=-0", 10).is_err());
        assert!(of("bytes=0-", 0).is_err());
    }
}
