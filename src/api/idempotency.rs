//! `Idempotency-Key` on requests that create something.

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};

use sha2::{Digest as _, Sha256};

use super::{error::ApiError, etag, scoped::Scoped};
use crate::storage::idempotency::{Idempotency, Keyed, Recorded};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What a UUID or a hash needs, several times over; the database keeps it in an index.
const MAX_KEY_CHARACTERS: usize = 255;

/// The key that a request carries.
///
/// # Errors
/// When it is empty, too long or not visible ASCII, or comes twice.
pub fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let sane =
        (1..=MAX_KEY_CHARACTERS).contains(&text.len()) && text.bytes().all(|b| (b' '..=b'~').contains(&b));
    if !sane || values.next().is_some() {
        return Err(ApiError::Malformed(format!(
            "Idempotency-Key must come once, with 1 to {MAX_KEY_CHARACTERS} characters of visible ASCII"
        )));
    }
    Ok(Some(text.to_owned()))
}

/// The hash of a request that is more than its body.
#[must_use]
pub fn hash_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The key together with what it stands for, and the answer if there is one already: then nothing is judged again, so
/// that a repeated request is answered the same whatever has changed since.
///
/// # Errors
/// When the key is malformed, was used for another body, or its first request is still at work.
pub async fn begin(
    state: &Scoped,
    headers: &HeaderMap,
    scope: &'static str,
    body_hash: [u8; 32],
) -> Result<(Option<Idempotency>, Option<Response>), ApiError> {
    let Some(key) = key(headers)? else { return Ok((None, None)) };
    let idempotency = Idempotency { scope, caller: state.principal.caller(), key, body_hash };
    let earlier = match state.installation.earlier_answer(&idempotency).await? {
        Some(keyed) => Some(answer(keyed)?),
        None => None,
    };
    Ok((Some(idempotency), earlier))
}

/// The answer to a request that may have carried a key.
///
/// # Errors
/// When the key was used for another body, or its first request is still at work.
pub fn answer(keyed: Keyed) -> Result<Response, ApiError> {
    match keyed {
        Keyed::Done(recorded) => Ok(respond(recorded)),
        Keyed::Replayed(recorded) => {
            let mut response = respond(recorded);
            response.headers_mut().insert(&IDEMPOTENCY_REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Keyed::OtherBody => Err(ApiError::IdempotencyKeyReused),
        Keyed::InProgress => Err(ApiError::IdempotencyInProgress),
    }
}

fn respond(recorded: Recorded) -> Response {
    let status = StatusCode::from_u16(recorded.status).unwrap_or(StatusCode::CREATED);
    let mut response = etag::written(status, recorded.body);
    if let Some(location) = recorded.location.as_deref().and_then(|text| HeaderValue::from_str(text).ok()) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
