//! `GET /v1/frameworks` and `GET /v1/frameworks/{name}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, etag, extract::ApiPath, problem::Problem};
use crate::domain::framework::{self, FrameworkView};

/// The framework's name in addresses.
const CHAINER: &str = "chainer";

/// The frameworks that definitions can be written for.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Frameworks {
    /// There is one.
    pub items: Vec<FrameworkView>,
    /// Always null: there is one page.
    pub next_cursor: Option<String>,
}

/// List the frameworks
///
/// Their versions, the documented contents of their images, and the packages that an environment is built from.
#[utoipa::path(
    get, path = "/v1/frameworks", tag = "frameworks",
    responses((status = 200, description = "The frameworks", body = Frameworks)),
)]
pub async fn list_frameworks() -> Result<Response, ApiError> {
    let frameworks = Frameworks { items: vec![framework::view()], next_cursor: None };
    etag::json(StatusCode::OK, &frameworks)
}

/// Get a framework
///
/// Its versions with what the documentation says of their images, and the packages that an environment is built from.
#[utoipa::path(
    get, path = "/v1/frameworks/{name}", tag = "frameworks",
    params(
        ("name" = String, Path, description = "`chainer`", example = "chainer"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the framework still has this ETag"),
    ),
    responses(
        (status = 200, description = "The framework", body = FrameworkView, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 404, description = "There is no such framework", body = Problem),
    ),
)]
pub async fn get_framework(ApiPath(name): ApiPath<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    if name != CHAINER {
        return Err(ApiError::not_found("framework", &name));
    }
    etag::tagged(&headers, StatusCode::OK, &framework::view())
}
