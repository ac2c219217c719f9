//! JSON answers, and the entity tags of single resources.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::error::ApiError;

/// What most answers fit into: a run with its plan, a verdict.
const USUAL_BYTES: usize = 8 << 10;

/// Lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digits = |byte: &u8| [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    bytes.iter().flat_map(digits).collect()
}

/// A JSON answer.
///
/// # Errors
/// When the value has no JSON form: a fault of ours.
pub fn json<T: Serialize + ?Sized>(
    status: StatusCode,
    value: &T,
) -> Result<axum::response::Response, ApiError> {
    Ok(written(status, text_of(value)?))
}

/// An answer of JSON that is written already.
pub fn written(status: StatusCode, text: impl Into<Body>) -> axum::response::Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn text_of<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ApiError> {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut text, value).map_err(|error| ApiError::Internal(error.to_string()))?;
    Ok(text)
}

fn tag_of(text: &[u8]) -> String {
    format!("\"{}\"", hex(&Sha256::digest(text)))
}

/// The strong entity tag of a resource: the digest of its JSON.
///
/// # Errors
/// When the value has no JSON form: a fault of ours.
pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<String, ApiError> {
    Ok(tag_of(&text_of(value)?))
}

/// A single resource with its entity tag; 304 when the caller has it already.
///
/// # Errors
/// When the value has no JSON form: a fault of ours.
pub fn tagged<T: Serialize + ?Sized>(
    request: &HeaderMap,
    status: StatusCode,
    value: &T,
) -> Result<axum::response::Response, ApiError> {
    let text = text_of(value)?;
    let tag = tag_of(&text);
    let mut response = if is_held(request, &tag) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        written(status, text)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    Ok(response)
}

/// The answer to a PUT: the resource with its entity tag; 201 with its address when it is new.
///
/// # Errors
/// When the value has no JSON form: a fault of ours.
pub fn put<T: Serialize + ?Sized>(
    is_new: bool,
    path: &str,
    value: &T,
) -> Result<axum::response::Response, ApiError> {
    let text = text_of(value)?;
    let tag = HeaderValue::from_str(&tag_of(&text));
    let mut response = written(if is_new { StatusCode::CREATED } else { StatusCode::OK }, text);
    if let Ok(tag) = tag {
        response.headers_mut().insert(header::ETAG, tag);
    }
    if is_new && let Ok(location) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// Whether the caller says (`If-None-Match`) that it has what this entity tag names.
#[must_use]
pub fn is_held(request: &HeaderMap, tag: &str) -> bool {
    matches(request, &header::IF_NONE_MATCH, tag) == Some(true)
}

/// Refuses a change when the caller names an entity tag that the resource does not have. `current` is none when there is
/// no such resource.
///
/// # Errors
/// When `If-Match` does not hold, or the resource has no JSON form: a fault of ours.
pub fn require_match<T: Serialize + ?Sized>(
    request: &HeaderMap,
    current: Option<&T>,
) -> Result<(), ApiError> {
    let holds = match current {
        Some(current) => matches(request, &header::IF_MATCH, &of(current)?),
        None => request.contains_key(header::IF_MATCH).then_some(false),
    };
    if holds == Some(false) { Err(ApiError::PreconditionFailed) } else { Ok(()) }
}

/// Whether a list of entity tags names this one; none without the header.
fn matches(request: &HeaderMap, name: &header::HeaderName, tag: &str) -> Option<bool> {
    if !request.contains_key(name) {
        return None;
    }
    let weak_allowed = name == header::IF_NONE_MATCH;
    let named = request.get_all(name).iter().filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',').map(str::trim).any(|one| {
            let one = if weak_allowed { one.strip_prefix("W/").unwrap_or(one) } else { one };
            one == "*" || one == tag
        })
    });
    Some(named)
}
