//! Pages of other origins: nobody's but those that the operator names.

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

/// How long a browser may remember what it was told, in seconds: an hour.
const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(3600);

/// Lets the pages of some origins ask; none where there are no origins. They send tokens themselves: there are no cookies that a
/// browser could send along.
#[must_use]
pub fn layer(origins: &[HeaderValue]) -> Option<CorsLayer> {
    let name = HeaderName::from_static;
    let layer = CorsLayer::new()
        .allow_origin(origins.to_vec())
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::RANGE,
            name("idempotency-key"),
            name("last-event-id"),
            name("prefer"),
            name("x-request-id"),
        ])
        .expose_headers([
            header::CONTENT_RANGE,
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            name("idempotency-replayed"),
            name("ratelimit"),
            name("ratelimit-policy"),
            name("x-request-id"),
        ])
        .max_age(MAX_AGE);
    (!origins.is_empty()).then_some(layer)
}
