//! Server-sent events, written out. Logs hold carriage returns (progress bars), which the protocol takes for line ends:
//! every kind of line end becomes a `data:` line of its own.

use std::{fmt::Write as _, time::Duration};

use axum::http::{HeaderMap, HeaderName, header};

/// The media type.
pub const EVENT_STREAM: &str = "text/event-stream";

/// How often a silent stream says that it lives: less than what proxies close idle connections after.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What is sent to say so.
pub const COMMENT: &str = ": still here\n\n";

static LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Whether the caller asks for events.
#[must_use]
pub fn is_wanted(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains(EVENT_STREAM))
}

/// The number of the last event that the caller has.
#[must_use]
pub fn last_event_id(headers: &HeaderMap) -> Option<u64> {
    headers.get(&LAST_EVENT_ID)?.to_str().ok()?.parse().ok()
}

/// One event.
#[must_use]
pub fn event(name: &str, id: Option<u64>, data: &str) -> String {
    let mut text = String::with_capacity(data.len() + 64);
    if let Some(id) = id {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "id: {id}");
    }
    let _ = writeln!(text, "event: {name}");
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        let _ = writeln!(text, "data: {line}");
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_line_end_is_a_data_line() {
        assert_eq!(
            event("log", Some(7), "a\r\nb\rc\n"),
            "id: 7\nevent: log\ndata: a\ndata: b\ndata: c\ndata: \n\n"
        );
    }
}
