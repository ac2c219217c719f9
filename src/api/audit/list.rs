//! `GET /v1/audit-events`

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiQuery,
        paging::{Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
    },
    domain::audit::AuditEvent,
};

/// List the audit trail
///
/// Who did what, when, from where, and what came of it: every request that was to change something, and those that were not let in.
/// Newest first. No operation changes it or takes from it.
#[utoipa::path(
    get, path = "/v1/audit-events", tag = "access",
    params(
        ("project" = Option<String>, Query, description = "Only callers of this project"),
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before, with the same filter"),
    ),
    responses(
        (status = 200, description = "A page of the trail", body = Page<AuditEvent>),
        (status = 400, description = "A parameter is unknown or malformed", body = Problem),
    ),
)]
pub async fn list_audit_events(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let project = query.take("project")?;
    let request = PageRequest::<(DateTime<Utc>, Uuid)>::take(&mut query, &format!("audit {project:?}"))?;
    query.finish(&["project", "limit", "cursor"])?;
    let found =
        state.installation.list_audit_events(project.as_deref(), request.after, request.rows()).await?;
    etag::json(StatusCode::OK, &request.page(found, |event| (event.occurred_at, event.id)))
}
