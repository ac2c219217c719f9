//! Every kind of failure that a caller may be told of (RFC 9457), and the pages that their `type` leads to.

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, extract::ApiPath};
use crate::domain::finding::Finding;

/// The media type of every answer with a status of 400 or more.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// A kind of failure. Its slug is part of the contract: it never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The body is no JSON.
    InvalidJson,
    /// An object of the body has a key twice.
    DuplicateKey,
    /// A path parameter, a query parameter or a header cannot be read.
    MalformedRequest,
    /// A cursor that this list did not give.
    InvalidCursor,
    /// An upload that is no readable archive.
    InvalidArchive,
    /// No token, or a wrong one.
    Unauthorized,
    /// The caller is known, and may not do that.
    InsufficientScope,
    /// Nothing has this id or name.
    NotFound,
    /// No operation has this path.
    UnknownRoute,
    /// The path is known, the method is not.
    MethodNotAllowed,
    /// What is there does not allow it now.
    Conflict,
    /// The first request with this key has not been answered yet.
    IdempotencyInProgress,
    /// The resource is not what `If-Match` says.
    PreconditionFailed,
    /// More bytes than are accepted.
    BodyTooLarge,
    /// A `Content-Type` that is not read here.
    UnsupportedMediaType,
    /// The asked range lies behind the end.
    RangeNotSatisfiable,
    /// The definition is refused.
    InvalidDefinition,
    /// The run is refused.
    InvalidRun,
    /// The compute target is refused.
    InvalidComputeTarget,
    /// The datastore is refused.
    InvalidDatastore,
    /// The webhook is refused.
    InvalidWebhook,
    /// The log filter is refused.
    InvalidLogFilter,
    /// The Python source is refused.
    InvalidSource,
    /// The body is JSON, and no object.
    NotAnObject,
    /// The archive is refused.
    RefusedArchive,
    /// The key was used for another body.
    IdempotencyKeyReused,
    /// A fault of the service.
    Internal,
    /// As many runs are queued as may be.
    QueueFull,
    /// The body took too long to arrive.
    SlowBody,
    /// More headers than are read.
    TooManyHeaders,
    /// A longer address than is read.
    UriTooLong,
    /// More requests a minute than one caller may send.
    RateLimited,
    /// Too many requests at once.
    Busy,
    /// It took too long.
    Timeout,
    /// The database cannot be reached.
    DatabaseUnavailable,
    /// The issuer of tokens does not say what its keys are.
    IssuerUnavailable,
    /// The token to make is refused.
    InvalidToken,
    /// The service is ending.
    ShuttingDown,
}

impl ProblemKind {
    /// Every kind.
    pub const ALL: [Self; 38] = [
        Self::InvalidJson,
        Self::DuplicateKey,
        Self::MalformedRequest,
        Self::InvalidCursor,
        Self::InvalidArchive,
        Self::Unauthorized,
        Self::InsufficientScope,
        Self::NotFound,
        Self::UnknownRoute,
        Self::MethodNotAllowed,
        Self::Conflict,
        Self::IdempotencyInProgress,
        Self::PreconditionFailed,
        Self::BodyTooLarge,
        Self::UnsupportedMediaType,
        Self::RangeNotSatisfiable,
        Self::InvalidDefinition,
        Self::InvalidRun,
        Self::InvalidComputeTarget,
        Self::InvalidDatastore,
        Self::InvalidWebhook,
        Self::InvalidLogFilter,
        Self::InvalidSource,
        Self::NotAnObject,
        Self::RefusedArchive,
        Self::IdempotencyKeyReused,
        Self::QueueFull,
        Self::SlowBody,
        Self::TooManyHeaders,
        Self::UriTooLong,
        Self::RateLimited,
        Self::Internal,
        Self::Busy,
        Self::Timeout,
        Self::DatabaseUnavailable,
        Self::IssuerUnavailable,
        Self::InvalidToken,
        Self::ShuttingDown,
    ];

    /// The last part of its `type`.
    #[must_use]
    pub const fn slug(self) -> &'static str {
        self.entry().0
    }

    /// Its status code.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.entry().1
    }

    /// Its title.
    #[must_use]
    pub const fn title(self) -> &'static str {
        self.entry().2
    }

    /// What it means and what to do.
    #[must_use]
    pub const fn explanation(self) -> &'static str {
        self.entry().3
    }

    /// One line per kind: slug, status, title, explanation.
    #[rustfmt::skip]
    const fn entry(self) -> (&'static str, StatusCode, &'static str, &'static str) {
        type S = StatusCode;
        match self {
            Self::InvalidJson => ("invalid-json", S::BAD_REQUEST, "The body is not JSON",
                "The body could not be parsed. `line` and `column` say where, counted from 1."),
            Self::DuplicateKey => ("duplicate-key", S::BAD_REQUEST, "A key comes twice in one object",
                "Readers disagree about which of the two values counts, so neither is taken. Send each key once."),
            Self::MalformedRequest => ("malformed-request", S::BAD_REQUEST, "The request cannot be read",
                "A path parameter, a query parameter or a header does not have the form that the operation documents. Unknown query parameters are refused, so that a misspelt filter does not silently show everything."),
            Self::InvalidCursor => ("invalid-cursor", S::BAD_REQUEST, "The cursor does not belong to this list",
                "A cursor is only good for the list that gave it, with the same filters. Start again without one."),
            Self::InvalidArchive => ("invalid-archive", S::BAD_REQUEST, "The upload is no readable archive",
                "The bytes are not what the Content-Type announces, or not all of them arrived. Nothing was kept."),
            Self::Unauthorized => ("unauthorized", S::UNAUTHORIZED, "A token is needed",
                "Send `Authorization: Bearer <token>` with a token of this service that is neither expired nor revoked. An \
                 administrator makes one with `estimatord token create`."),
            Self::InsufficientScope => ("insufficient-scope", S::FORBIDDEN, "The token does not allow it",
                "The caller is known, and its token does not have the scope that the operation needs. Each scope includes those before \
                 it: read, submit, operate, admin. Ask an administrator for another token."),
            Self::NotFound => ("not-found", S::NOT_FOUND, "There is no such thing",
                "The id or name is well formed, and nothing here has it."),
            Self::UnknownRoute => ("unknown-route", S::NOT_FOUND, "There is no such path",
                "No operation has this path. All of them are listed at /docs/ and in /openapi.json."),
            Self::MethodNotAllowed => ("method-not-allowed", S::METHOD_NOT_ALLOWED, "The path does not take this method",
                "The header `Allow` lists the methods it takes."),
            Self::Conflict => ("conflict", S::CONFLICT, "What is there does not allow it",
                "The request is fine in itself; the present state of the resource stands against it. `detail` says which state."),
            Self::IdempotencyInProgress => ("idempotency-in-progress", S::CONFLICT, "The first request with this key is still being worked on",
                "Ask again after `Retry-After` seconds; the answer will then be that of the first request."),
            Self::PreconditionFailed => ("precondition-failed", S::PRECONDITION_FAILED, "The resource has changed",
                "It no longer has the ETag of `If-Match`. Read it again and decide anew."),
            Self::BodyTooLarge => ("body-too-large", S::PAYLOAD_TOO_LARGE, "The body is too large",
                "`detail` names the limit that was reached."),
            Self::UnsupportedMediaType => ("unsupported-media-type", S::UNSUPPORTED_MEDIA_TYPE, "The Content-Type is not read here",
                "`detail` lists the media types that the operation reads."),
            Self::RangeNotSatisfiable => ("range-not-satisfiable", S::RANGE_NOT_SATISFIABLE, "The range lies behind the end",
                "The header `Content-Range` tells how many bytes there are."),
            Self::InvalidDefinition => ("invalid-definition", S::UNPROCESSABLE_ENTITY, "The estimator definition is refused",
                "`findings` lists everything that was found, each with a pointer into the body and what to write instead. Those of severity `error` have to be mended; nothing was stored."),
            Self::InvalidRun => ("invalid-run", S::UNPROCESSABLE_ENTITY, "The run is refused",
                "`findings` lists everything that was found, each with a pointer into the body and what to write instead. Those of severity `error` have to be mended; nothing was stored and nothing runs."),
            Self::InvalidComputeTarget => ("invalid-compute-target", S::UNPROCESSABLE_ENTITY, "The compute target is refused",
                "`findings` lists everything that has to be mended, each with a pointer into the body. Nothing was changed."),
            Self::InvalidDatastore => ("invalid-datastore", S::UNPROCESSABLE_ENTITY, "The datastore is refused",
                "`findings` lists everything that has to be mended, each with a pointer into the body. Nothing was changed."),
            Self::InvalidWebhook => ("invalid-webhook", S::UNPROCESSABLE_ENTITY, "The webhook is refused",
                "`findings` lists everything that has to be mended, each with a pointer into the body. Nothing was changed."),
            Self::InvalidLogFilter => ("invalid-log-filter", S::UNPROCESSABLE_ENTITY, "The log filter is refused",
                "`findings` lists everything that has to be mended, each with a pointer into the body. What is logged stays as it was."),
            Self::InvalidSource => ("invalid-source", S::UNPROCESSABLE_ENTITY, "The Python source has no estimator to read",
                "The source does not parse as Python 3 (`line` and `column` say where, counted from 1), or it calls `Chainer` nowhere. `findings` has which, and what to do."),
            Self::NotAnObject => ("not-an-object", S::UNPROCESSABLE_ENTITY, "The body is no JSON object",
                "The body is JSON, but a list, a text, a number, a boolean or null, where an object is needed."),
            Self::RefusedArchive => ("refused-archive", S::UNPROCESSABLE_ENTITY, "Something in the archive is refused",
                "The archive can be read, and holds something that could reach outside the source directory or mean different things to different readers. `detail` names the entry. Nothing was kept."),
            Self::IdempotencyKeyReused => ("idempotency-key-reused", S::UNPROCESSABLE_ENTITY, "The Idempotency-Key was used for another body",
                "A key belongs to one request. Use a new key for a new request."),
            Self::QueueFull => ("queue-full", S::TOO_MANY_REQUESTS, "The queue is full",
                "As many runs wait as the operator allows (--max-queued-runs). Nothing was stored: send the same request again after `Retry-After` seconds."),
            Self::SlowBody => ("slow-body", S::REQUEST_TIMEOUT, "The body took too long",
                "Nothing was done: send the request again. `detail` names the limit."),
            Self::TooManyHeaders => ("too-many-headers", S::REQUEST_HEADER_FIELDS_TOO_LARGE, "Too many headers",
                "No operation has a use for so many. `detail` names the limit."),
            Self::UriTooLong => ("uri-too-long", S::URI_TOO_LONG, "The address is too long",
                "`detail` names the limit of path and query together. Long lists of tags can be narrowed to a few."),
            Self::RateLimited => ("rate-limited", S::TOO_MANY_REQUESTS, "Too many requests of one caller",
                "The header `RateLimit-Policy` says how many a minute are allowed (--max-requests-per-minute), `RateLimit` how many are left. Nothing was done: send the same request again after `Retry-After` seconds."),
            Self::Internal => ("internal", S::INTERNAL_SERVER_ERROR, "A fault of the service",
                "The request may be fine. The service's log has the details under the id in `instance`."),
            Self::Busy => ("busy", S::SERVICE_UNAVAILABLE, "Too many requests at once",
                "Ask again after `Retry-After` seconds."),
            Self::Timeout => ("timeout", S::SERVICE_UNAVAILABLE, "It took too long",
                "The service gave up waiting. Whether the work was done is not known: ask again with the same Idempotency-Key."),
            Self::DatabaseUnavailable => ("database-unavailable", S::SERVICE_UNAVAILABLE, "The database cannot be reached",
                "Nothing is known to be wrong with the request. Ask again after `Retry-After` seconds."),
            Self::IssuerUnavailable => ("issuer-unavailable", S::SERVICE_UNAVAILABLE, "The issuer of tokens does not answer",
                "Whether the token is good cannot be told, because its issuer does not say what its keys are. Ask again after \
                 `Retry-After` seconds."),
            Self::InvalidToken => ("invalid-token", S::UNPROCESSABLE_ENTITY, "The token cannot be made",
                "What was asked for is no token that can be made. `findings` has everything that is wrong. Nothing was stored."),
            Self::ShuttingDown => ("shutting-down", S::SERVICE_UNAVAILABLE, "The service is shutting down",
                "Another instance, or this one after its restart, will answer."),
        }
    }
}

/// A failure (RFC 9457).
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// What kind of failure it is: a stable reference, relative to this service, that leads to its explanation.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-definition", format = "uri-reference")]
    pub kind: String,
    /// The kind in words; the same for every failure of the kind.
    #[schema(example = "The estimator definition is refused")]
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    pub status: u16,
    /// What happened this time.
    #[schema(example = "1 error; nothing was stored")]
    pub detail: String,
    /// The request id, as in the header `X-Request-Id` and in the service's log.
    #[schema(example = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10")]
    pub instance: String,
    /// Where the JSON or the source is broken, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub line: Option<u64>,
    /// Where the JSON or the source is broken, counted from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, minimum = 0)]
    pub column: Option<u64>,
    /// Everything that was found, where a body was judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub findings: Option<Vec<Finding>>,
}

/// The explanation of a kind of problem.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ProblemType {
    /// Its `type`.
    #[serde(rename = "type")]
    #[schema(example = "/problems/invalid-json")]
    pub kind: String,
    /// The HTTP status that it comes with.
    #[schema(minimum = 400, maximum = 599, example = 400)]
    pub status: u16,
    /// Its title.
    #[schema(example = "The body is not JSON")]
    pub title: &'static str,
    /// What it means and what to do.
    pub explanation: &'static str,
}

/// Explain a problem type
///
/// Where the `type` of a problem leads: what it means and what to do. A browser gets a page, everybody else JSON.
#[utoipa::path(
    get, path = "/problems/{slug}", tag = "service",
    params(("slug" = String, Path, description = "The last part of the problem's `type`", example = "invalid-json")),
    responses(
        (status = 200, description = "The explanation", body = ProblemType),
        (status = 404, description = "There is no such kind of problem", body = Problem),
    ),
    security(()),
)]
pub async fn get_problem_type(
    ApiPath(slug): ApiPath<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let Some(kind) = ProblemKind::ALL.into_iter().find(|kind| kind.slug() == slug) else {
        return Err(ApiError::not_found("kind of problem", &slug));
    };
    let wants_html = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if wants_html {
        let page = format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title><h1>{title}</h1>\
             <p>Status {status}</p><p>{text}</p><p><a href=\"/docs/\">API</a></p></html>",
            title = kind.title(),
            status = kind.status().as_u16(),
            text = kind.explanation().replace('<', "&lt;"),
        );
        return Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page).into_response());
    }
    let answer = ProblemType {
        kind: format!("/problems/{slug}"),
        status: kind.status().as_u16(),
        title: kind.title(),
        explanation: kind.explanation(),
    };
    Ok(axum::Json(answer).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_explained() {
        for (at, kind) in ProblemKind::ALL.into_iter().enumerate() {
            assert!(kind.status().as_u16() >= 400, "{kind:?}");
            assert!(kind.explanation().ends_with('.'), "{kind:?}");
            assert!(ProblemKind::ALL[at + 1..].iter().all(|other| other.slug() != kind.slug()), "{kind:?}");
        }
    }
}
