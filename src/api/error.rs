//! Everything that can go wrong while a request is answered, and what the caller is told of it: one enum, one mapping.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, Response, StatusCode, header},
    response::IntoResponse,
};

use super::{
    problem::{PROBLEM_JSON, Problem, ProblemKind},
    rate::Allowance,
};
use crate::{
    artifacts::{ArtifactsError, SnapshotError, SnapshotErrorKind},
    domain::{
        access::Scope,
        finding::{Finding, Severity},
        json::JsonError,
        python::estimator::Unreadable,
    },
    storage::StorageError,
    together::NotDone,
};

/// How long a caller should wait for a database that cannot be reached.
const DATABASE_RETRY_SECONDS: u64 = 5;

/// How long a caller should wait for a full queue: runs take a while.
const QUEUE_RETRY_SECONDS: u64 = 10;

/// A failed request. `Display` is for the log; what the caller gets is [`ApiError::problem`].
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// No operation has this path.
    #[error("no operation has this path; /docs/ lists them all")]
    UnknownRoute,
    /// The path does not take this method.
    #[error("this path does not take this method; the header Allow lists those it takes")]
    MethodNotAllowed,
    /// Nothing has this id or name.
    #[error("there is no {what} `{id}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// An attempt of a run has no log or output of this name.
    #[error("{} has no {what} `{name}`", which(*attempt))]
    NoFileOfAttempt {
        /// `log` or `output`.
        what: &'static str,
        /// The path that was asked for.
        name: String,
        /// The attempt; 0 when the run has had none yet.
        attempt: u32,
    },
    /// A path parameter, query parameter or header cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// A cursor of another list.
    #[error("{0}")]
    Cursor(&'static str),
    /// The body cannot be read as JSON.
    #[error(transparent)]
    Json(JsonError),
    /// A `Content-Type` that is not read here.
    #[error("the Content-Type must be {accepted}")]
    UnsupportedMediaType {
        /// The media types that are.
        accepted: String,
    },
    /// More bytes than are accepted.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The body broke off.
    #[error("the body broke off before its end; send it again")]
    BodyBrokeOff,
    /// A body was judged and refused.
    #[error("{}", refusal(.findings))]
    Refused {
        /// Which kind of body.
        kind: ProblemKind,
        /// What was found.
        findings: Vec<Finding>,
    },
    /// A Python source has no estimator to read.
    #[error("{}", .0.finding.message)]
    Source(Unreadable),
    /// An upload was refused.
    #[error(transparent)]
    Snapshot(SnapshotError),
    /// The present state stands against it.
    #[error("{0}")]
    Conflict(String),
    /// `If-Match` does not hold.
    #[error("the resource does not have the ETag of If-Match; read it again")]
    PreconditionFailed,
    /// The key was used for another body.
    #[error("this Idempotency-Key was used for a request with another body")]
    IdempotencyKeyReused,
    /// The first request with the key is still at work.
    #[error("the first request with this Idempotency-Key has not been answered yet")]
    IdempotencyInProgress,
    /// The range lies behind the end.
    #[error("the asked range begins behind the end: there are {total} bytes")]
    Range {
        /// How many bytes there are.
        total: u64,
    },
    /// No token, or a wrong one.
    #[error("a valid bearer token is needed")]
    Unauthorized,
    /// Everybody is let in, and this is a page of somebody else's.
    #[error(
        "a request without a token is let in from this machine alone, and {0}: use a token, or name its origin with --cors-allow-origin"
    )]
    ForeignPage(String),
    /// The caller is known, and may not do that.
    #[error("this needs a token with the scope `{needed}`; this one has `{has}`")]
    InsufficientScope {
        /// What is needed.
        needed: Scope,
        /// What the caller has.
        has: Scope,
    },
    /// Who a caller is cannot be told, because its issuer does not say what its keys are.
    #[error("the issuer of tokens does not answer at present; try again")]
    IssuerUnavailable,
    /// As many runs are queued as may be.
    #[error("{limit} runs are queued, which is as many as may be; send it again later")]
    QueueFull {
        /// The limit.
        limit: u32,
    },
    /// The body took too long to arrive.
    #[error("the body did not arrive within {seconds} seconds")]
    SlowBody {
        /// The limit.
        seconds: u64,
    },
    /// More headers than are read.
    #[error("the request has more than {limit} headers")]
    TooManyHeaders {
        /// The limit.
        limit: usize,
    },
    /// A longer address than is read.
    #[error("the path and query are longer than {limit} bytes")]
    UriTooLong {
        /// The limit.
        limit: usize,
    },
    /// Too many requests of one caller.
    #[error("more than {limit} requests a minute; send the next after {seconds} s")]
    RateLimited {
        /// The limit.
        limit: u32,
        /// After how many seconds there is one again.
        seconds: u64,
    },
    /// Too many requests of one caller at once.
    #[error(
        "{limit} requests of this caller are being answered already, and that is as many as may be; send the next when one of them is"
    )]
    TooManyAtOnce {
        /// The limit.
        limit: usize,
    },
    /// Too many requests at once.
    #[error("too many requests are being answered; try again in a second")]
    Busy,
    /// It took too long.
    #[error("the request was not answered within {seconds} seconds")]
    Timeout {
        /// The limit.
        seconds: u64,
    },
    /// The service is ending.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The database failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The artifact store failed.
    #[error(transparent)]
    Artifacts(#[from] ArtifactsError),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

fn which(attempt: u32) -> String {
    match attempt {
        0 => "the run has had no attempt yet, so it".to_owned(),
        attempt => format!("attempt {attempt} of the run"),
    }
}

fn refusal(findings: &[Finding]) -> String {
    let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
    let plural = if errors == 1 { "" } else { "s" };
    format!("{errors} error{plural}; nothing was stored. `findings` has a pointer and a fix for each")
}

impl ApiError {
    /// Nothing has this id or name.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound { what, id: id.to_string() }
    }

    /// The kind of problem it is.
    #[must_use]
    pub const fn kind(&self) -> ProblemKind {
        match self {
            Self::UnknownRoute => ProblemKind::UnknownRoute,
            Self::MethodNotAllowed => ProblemKind::MethodNotAllowed,
            Self::NotFound { .. } | Self::NoFileOfAttempt { .. } => ProblemKind::NotFound,
            Self::Malformed(_) | Self::BodyBrokeOff => ProblemKind::MalformedRequest,
            Self::Cursor(_) => ProblemKind::InvalidCursor,
            Self::Json(JsonError::Syntax { .. } | JsonError::TooDeep { .. }) => ProblemKind::InvalidJson,
            Self::Json(JsonError::DuplicateKey { .. }) => ProblemKind::DuplicateKey,
            Self::Json(JsonError::NotAnObject { .. }) => ProblemKind::NotAnObject,
            Self::UnsupportedMediaType { .. } => ProblemKind::UnsupportedMediaType,
            Self::BodyTooLarge { .. } => ProblemKind::BodyTooLarge,
            Self::Refused { kind, .. } => *kind,
            Self::Source(_) => ProblemKind::InvalidSource,
            Self::Snapshot(error) => match error.status_hint() {
                SnapshotErrorKind::Malformed => ProblemKind::InvalidArchive,
                SnapshotErrorKind::TooLarge => ProblemKind::BodyTooLarge,
                SnapshotErrorKind::Refused => ProblemKind::RefusedArchive,
                SnapshotErrorKind::Store => ProblemKind::Internal,
            },
            Self::Conflict(_) => ProblemKind::Conflict,
            Self::PreconditionFailed => ProblemKind::PreconditionFailed,
            Self::IdempotencyKeyReused => ProblemKind::IdempotencyKeyReused,
            Self::IdempotencyInProgress => ProblemKind::IdempotencyInProgress,
            Self::Range { .. } => ProblemKind::RangeNotSatisfiable,
            Self::Unauthorized | Self::ForeignPage(_) => ProblemKind::Unauthorized,
            Self::InsufficientScope { .. } => ProblemKind::InsufficientScope,
            Self::IssuerUnavailable => ProblemKind::IssuerUnavailable,
            Self::QueueFull { .. } => ProblemKind::QueueFull,
            Self::SlowBody { .. } => ProblemKind::SlowBody,
            Self::TooManyHeaders { .. } => ProblemKind::TooManyHeaders,
            Self::UriTooLong { .. } => ProblemKind::UriTooLong,
            Self::RateLimited { .. } | Self::TooManyAtOnce { .. } => ProblemKind::RateLimited,
            Self::Busy => ProblemKind::Busy,
            Self::Timeout { .. } => ProblemKind::Timeout,
            Self::ShuttingDown => ProblemKind::ShuttingDown,
            Self::Storage(StorageError::Unavailable(_)) => ProblemKind::DatabaseUnavailable,
            Self::Storage(StorageError::Refused(_) | StorageError::Inconsistent(_))
            | Self::Artifacts(_)
            | Self::Internal(_) => ProblemKind::Internal,
        }
    }

    /// What the caller is told. Internals stay in the log.
    #[must_use]
    pub fn problem(&self, instance: &str) -> Problem {
        let kind = self.kind();
        let detail = match kind {
            ProblemKind::Internal => {
                "the service failed; its log has the details under this instance".to_owned()
            }
            ProblemKind::DatabaseUnavailable => {
                "the database does not answer at present; try again".to_owned()
            }
            _ => self.to_string(),
        };
        let (line, column) = match self {
            Self::Json(
                JsonError::Syntax { line, column, .. }
                | JsonError::TooDeep { line, column }
                | JsonError::DuplicateKey { line, column, .. },
            ) => (u64::try_from(*line).ok(), u64::try_from(*column).ok()),
            Self::Source(Unreadable { place: Some((line, column)), .. }) => {
                (u64::try_from(*line).ok(), u64::try_from(*column).ok())
            }
            _ => (None, None),
        };
        let findings = match self {
            Self::Refused { findings, .. } => Some(findings.clone()),
            Self::Source(unreadable) => Some(vec![(*unreadable.finding).clone()]),
            _ => None,
        };
        Problem {
            kind: format!("/problems/{}", kind.slug()),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail,
            instance: instance.to_owned(),
            line,
            column,
            findings,
        }
    }

    /// The whole answer.
    pub(in crate::api) fn response(&self, instance: &str) -> axum::response::Response {
        let problem = self.problem(instance);
        // A problem is made of texts and numbers: it always has a JSON form.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        match self {
            Self::Unauthorized | Self::ForeignPage(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::InsufficientScope { needed, .. } => {
                let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{needed}\"");
                if let Ok(value) = HeaderValue::from_str(&challenge) {
                    headers.insert(header::WWW_AUTHENTICATE, value);
                }
            }
            Self::Range { total } => {
                if let Ok(value) = HeaderValue::from_str(&format!("bytes */{total}")) {
                    headers.insert(header::CONTENT_RANGE, value);
                }
            }
            _ => {}
        }
        response
    }

    const fn retry_after(&self) -> Option<u64> {
        if let Self::RateLimited { seconds, .. } = self {
            return Some(*seconds);
        }
        match self.kind() {
            ProblemKind::DatabaseUnavailable | ProblemKind::IssuerUnavailable => Some(DATABASE_RETRY_SECONDS),
            ProblemKind::IdempotencyInProgress
            | ProblemKind::RateLimited
            | ProblemKind::Busy
            | ProblemKind::Timeout => Some(1),
            ProblemKind::ShuttingDown => Some(2),
            ProblemKind::QueueFull => Some(QUEUE_RETRY_SECONDS),
            _ => None,
        }
    }
}

impl From<NotDone> for ApiError {
    /// Who gets no turn waits as if for a connection, and is told the same.
    fn from(error: NotDone) -> Self {
        match error {
            NotDone::NoTurn => Self::Storage(StorageError::no_connection()),
            NotDone::BrokenOff(error) => Self::Internal(error.to_string()),
        }
    }
}

impl From<Allowance> for ApiError {
    /// What is said to whoever has none left.
    fn from(allowance: Allowance) -> Self {
        Self::RateLimited { limit: allowance.limit.get(), seconds: allowance.seconds }
    }
}

/// An error on its way to the middleware that knows the request id, which turns it into an answer.
#[derive(Clone)]
pub(in crate::api) struct Pending(pub(in crate::api) Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.kind().status();
        response.extensions_mut().insert(Pending(Arc::new(self)));
        response
    }
}
