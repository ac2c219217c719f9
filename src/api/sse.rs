//! Server-sent events, written out. Logs hold carriage returns (progress bars), which the protocol takes for line ends:
//! every kind of line end becomes a `data:` line of its own.

use std::{
    fmt::{Display, Write as _},
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, header};

use super::error::ApiError;

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

/// The number of the last event that the caller has; an empty one is none.
///
/// # Errors
/// When it is no id that was sent from here: to begin anew would send everything twice.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    Ok(last_place(headers)?.map(|(_, number)| number))
}

/// The same where ids are those of places in the log of an attempt, `<attempt>-<bytes>`: the attempt too, when the id has one.
///
/// # Errors
/// As [`last_event_id`].
pub fn last_place(headers: &HeaderMap) -> Result<Option<(Option<u32>, u64)>, ApiError> {
    let Some(value) = headers.get(&LAST_EVENT_ID).filter(|value| !value.is_empty()) else { return Ok(None) };
    let place = value.to_str().ok().and_then(|text| {
        let (attempt, number) = match text.split_once('-') {
            Some((attempt, number)) => {
                (Some(attempt.parse::<u32>().ok().filter(|attempt| *attempt > 0)?), number)
            }
            None => (None, text),
        };
        let number = number.parse::<u64>().ok().filter(|number| i64::try_from(*number).is_ok())?;
        Some((attempt, number))
    });
    place.map(Some).ok_or_else(|| {
        ApiError::Malformed("Last-Event-ID must be the id of an event that was received".to_owned())
    })
}

/// One event.
#[must_use]
pub fn event(name: &str, id: Option<&dyn Display>, data: &str) -> String {
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
            event("log", Some(&7), "a\r\nb\rc\n"),
            "id: 7\nevent: log\ndata: a\ndata: b\ndata: c\ndata: \n\n"
        );
    }
}
