//! Swagger UI, embedded, and the document that it shows.

use std::sync::{Arc, LazyLock};

use axum::{
    body::Bytes,
    http::{HeaderValue, header},
    response::{IntoResponse, Redirect, Response},
};
use utoipa_swagger_ui::Config;

use super::{error::ApiError, extract::ApiPath, problem::Problem};

/// The address of the document is relative, so that the pages work behind a path prefix.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::new(["../openapi.json"])
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .display_operation_id(true)
        // A token that runs code is not left in the browser.
        .persist_authorization(false)
        .default_models_expand_depth(-1)
        .use_base_layout()
        .validator_url("none");
    Arc::new(config)
});

/// The document as JSON, made once: it does not change while the process lives.
static DOCUMENT: LazyLock<Result<Bytes, String>> =
    LazyLock::new(|| super::openapi().to_pretty_json().map(Bytes::from).map_err(|error| error.to_string()));

/// The Content-Security-Policy of a path. Swagger UI styles its elements inline and shows images that it carries as data.
#[must_use]
pub fn policy_for(path: &str) -> &'static str {
    if path.starts_with("/docs") {
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
    } else {
        "default-src 'none'; frame-ancestors 'none'"
    }
}

/// Get this document
///
/// The OpenAPI 3.1 document of the service.
#[utoipa::path(
    get, path = "/openapi.json", tag = "service",
    responses(
        (status = 200, description = "The OpenAPI document", body = serde_json::Value),
        (status = 500, description = "A fault of the service", body = Problem),
    ),
    security(()),
)]
pub async fn get_openapi() -> Result<Response, ApiError> {
    let document = DOCUMENT.clone().map_err(ApiError::Internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], document).into_response())
}

/// `/` leads to the documentation.
pub async fn root() -> Redirect {
    Redirect::to("docs/")
}

/// `/docs` leads to `/docs/`, because the page names its parts relative to itself.
pub async fn without_slash() -> Redirect {
    Redirect::to("docs/")
}

/// The page itself.
pub async fn index() -> Result<Response, ApiError> {
    asset(ApiPath("index.html".to_owned())).await
}

/// A part of the page.
pub async fn asset(ApiPath(path): ApiPath<String>) -> Result<Response, ApiError> {
    let file = utoipa_swagger_ui::serve(&path, Arc::clone(&CONFIG))
        .map_err(|error| ApiError::Internal(error.to_string()))?
        .ok_or(ApiError::UnknownRoute)?;
    let mut response = ([(header::CONTENT_TYPE, file.content_type)], file.bytes.into_owned()).into_response();
    if file.gzpipped {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}
