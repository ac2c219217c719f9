//! Extractors whose rejections are problems. axum's own answer in plain text, which callers could not read.

use std::{collections::BTreeMap, ops::RangeInclusive, str::FromStr, time::Duration};

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Request, path::ErrorKind, rejection::PathRejection},
    http::{HeaderMap, header, request::Parts},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::error::ApiError;
use crate::domain::{
    json::{self, JsonError},
    python::MAX_BYTES,
};

/// The media type of Python sources.
const PYTHON: &str = "text/x-python";

/// The largest JSON body. A definition holds names and options, never data: 4 MiB is a thousand times the usual.
pub const MAX_JSON_BYTES: usize = 4 << 20;

/// How long a JSON body may take to arrive: less than the whole request.
const BODY_PATIENCE: Duration = Duration::from_secs(20);

/// A JSON object, with its keys in the order in which they were sent.
#[derive(Clone, Debug)]
pub struct ApiJson {
    /// Its members.
    pub members: Map<String, Value>,
    /// SHA-256 of the bytes.
    pub hash: [u8; 32],
}

impl<S: Send + Sync> FromRequest<S> for ApiJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if !is_json(request.headers()) {
            return Err(ApiError::UnsupportedMediaType { accepted: "application/json".to_owned() });
        }
        // Without waiting for what would be refused.
        let announced =
            request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if announced.is_some_and(|length: u64| length > MAX_JSON_BYTES as u64) {
            return Err(ApiError::BodyTooLarge { limit: MAX_JSON_BYTES });
        }
        let received = tokio::time::timeout(BODY_PATIENCE, Bytes::from_request(request, state)).await;
        let received = received.map_err(|_| ApiError::SlowBody { seconds: BODY_PATIENCE.as_secs() })?;
        let bytes = received.map_err(|rejection| {
            if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE {
                ApiError::BodyTooLarge { limit: MAX_JSON_BYTES }
            } else {
                ApiError::BodyBrokeOff
            }
        })?;
        let members = json::parse_object(&bytes).map_err(|error| ApiError::Json(counted_from_1(error)))?;
        Ok(Self { members, hash: Sha256::digest(&bytes).into() })
    }
}

/// The parser says column 0 for the end of a line, or of the body, that has nothing on it.
fn counted_from_1(mut error: JsonError) -> JsonError {
    if let JsonError::Syntax { line, column, .. }
    | JsonError::TooDeep { line, column }
    | JsonError::DuplicateKey { line, column, .. } = &mut error
    {
        *line = (*line).max(1);
        *column = (*column).max(1);
    }
    error
}

/// A Python source, as bytes: it says itself how it is encoded.
#[derive(Clone, Debug)]
pub struct ApiSource(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for ApiSource {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let essence = essence(request.headers());
        if essence.as_deref() != Some(PYTHON) {
            return Err(ApiError::UnsupportedMediaType { accepted: PYTHON.to_owned() });
        }
        let too_large = ApiError::BodyTooLarge { limit: MAX_BYTES };
        match Bytes::from_request(request, state).await {
            Ok(bytes) if bytes.len() <= MAX_BYTES => Ok(Self(bytes)),
            Ok(_) => Err(too_large),
            Err(rejection) if rejection.status() == axum::http::StatusCode::PAYLOAD_TOO_LARGE => {
                Err(too_large)
            }
            Err(_) => Err(ApiError::BodyBrokeOff),
        }
    }
}

/// The media type of a body, without its parameters.
fn essence(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(essence) = essence(headers) else { return false };
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}

/// Path parameters.
#[derive(Clone, Debug)]
pub struct ApiPath<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for ApiPath<T> {
    type Rejection = ApiError;

    #[expect(clippy::disallowed_types, reason = "this is the extractor that replaces it")]
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        // No name has a NUL in it, and the database would refuse the question.
        if parts.uri.path().contains("%00") {
            return Err(ApiError::Malformed("the path holds a NUL character".to_owned()));
        }
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0)).map_err(|rejection| ApiError::Malformed(unreadable_path(rejection)))
    }
}

/// Why a path cannot be read, in words of our own: those of the libraries below speak of their types.
fn unreadable_path(rejection: PathRejection) -> String {
    let kind = match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => failed.into_kind(),
        other => return format!("the path cannot be read: {}", other.body_text()),
    };
    match kind {
        ErrorKind::DeserializeError { value, message, .. } => {
            let value: String = value.chars().take(80).collect();
            if message.starts_with("UUID parsing failed") {
                format!("`{value}` is no UUID; ids look like 01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10")
            } else {
                format!("`{value}` cannot be read: {message}")
            }
        }
        ErrorKind::InvalidUtf8InPathParam { key } => format!("the `{key}` in the path is not UTF-8"),
        other => format!("the path cannot be read: {other}"),
    }
}

/// Query parameters, taken one by one, so that what nobody takes can be refused.
#[derive(Clone, Debug)]
pub struct ApiQuery(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for ApiQuery {
    type Rejection = ApiError;

    #[expect(clippy::disallowed_types, reason = "this is the extractor that replaces it")]
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|rejection| {
                ApiError::Malformed(format!("the query cannot be read: {}", rejection.body_text()))
            })?
            .0;
        if pairs.iter().any(|(name, value)| name.contains('\0') || value.contains('\0')) {
            return Err(ApiError::Malformed("the query holds a NUL character".to_owned()));
        }
        Ok(Self(pairs))
    }
}

impl ApiQuery {
    /// A parameter that may come once.
    ///
    /// # Errors
    /// When it comes twice, or empty: none of ours has a meaning when it is.
    pub fn take(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut found = None;
        let mut twice = false;
        self.0.retain_mut(|(key, value)| {
            if key != name {
                return true;
            }
            twice |= found.replace(std::mem::take(value)).is_some();
            false
        });
        if twice {
            return Err(ApiError::Malformed(format!("the query parameter `{name}` comes twice")));
        }
        if found.as_ref().is_some_and(String::is_empty) {
            return Err(ApiError::Malformed(format!("the query parameter `{name}` is empty: leave it out")));
        }
        Ok(found)
    }

    /// A parameter that has a form; `form` says which.
    ///
    /// # Errors
    /// When it comes twice or does not have it.
    pub fn take_parsed<T: FromStr>(&mut self, name: &str, form: &str) -> Result<Option<T>, ApiError> {
        let Some(text) = self.take(name)? else { return Ok(None) };
        let bad = |_| ApiError::Malformed(format!("the query parameter `{name}` must be {form}"));
        text.parse().map(Some).map_err(bad)
    }

    /// A number within limits; `form` says which.
    ///
    /// # Errors
    /// When it comes twice, is no number or lies outside.
    pub fn take_number<T: FromStr + PartialOrd>(
        &mut self,
        name: &str,
        allowed: RangeInclusive<T>,
        form: &str,
    ) -> Result<Option<T>, ApiError> {
        match self.take_parsed::<T>(name, form)? {
            Some(number) if !allowed.contains(&number) => {
                Err(ApiError::Malformed(format!("the query parameter `{name}` must be {form}")))
            }
            asked => Ok(asked),
        }
    }

    /// All parameters `name.key` and `name[key]`, by their keys.
    ///
    /// # Errors
    /// When one comes twice.
    pub fn take_keyed(&mut self, name: &str) -> Result<BTreeMap<String, String>, ApiError> {
        let key_of = |parameter: &str| {
            let rest = parameter.strip_prefix(name)?;
            let bracketed = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            rest.strip_prefix('.').or(bracketed).map(str::to_owned)
        };
        let mut found = BTreeMap::new();
        for (parameter, value) in std::mem::take(&mut self.0) {
            match key_of(&parameter) {
                None => self.0.push((parameter, value)),
                Some(key) => {
                    if key.is_empty() || found.insert(key, value).is_some() {
                        return Err(ApiError::Malformed(format!(
                            "the query parameter `{parameter}` comes twice or has no name"
                        )));
                    }
                }
            }
        }
        Ok(found)
    }

    /// Refuses what nobody took.
    ///
    /// # Errors
    /// When something is left.
    pub fn finish(self, known: &[&str]) -> Result<(), ApiError> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        let known = known.join("`, `");
        Err(ApiError::Malformed(if known.is_empty() {
            format!("unknown query parameter `{name}`; this operation takes none")
        } else {
            format!("unknown query parameter `{name}`; known are `{known}`")
        }))
    }
}
