//! `GET /v1/runs`

use axum::{http::StatusCode, response::Response};
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::Run;
use crate::{
    api::{
        error::ApiError,
        etag,
        extract::ApiQuery,
        paging::{Page, PageRequest},
        problem::Problem,
        scoped::Scoped,
    },
    domain::run::Status,
    storage::runs::RunFilter,
};

const KNOWN: [&str; 7] =
    ["experiment_name", "status", "compute_target", "tag[<name>]", "created_after", "limit", "cursor"];

/// List the runs
///
/// Newest first. Filters are all to hold together.
#[utoipa::path(
    get, path = "/v1/runs", tag = "runs",
    params(
        ("experiment_name" = Option<String>, Query, description = "Only this experiment"),
        ("status" = Option<Status>, Query, description = "Only this status"),
        ("compute_target" = Option<String>, Query, description = "Only this target"),
        ("created_after" = Option<DateTime<Utc>>, Query, description = "Only runs accepted after this time (RFC 3339)"),
        ("tag" = Option<String>, Query, description = "Only runs with these tags: `tag[<name>]=<value>` or `tag.<name>=<value>`, several times with different names"),
        ("limit" = Option<u32>, Query, description = "How many entries; 50 when not given", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the page before, with the same filters"),
    ),
    responses(
        (status = 200, description = "A page of runs", body = Page<Run>),
        (status = 400, description = "A parameter is unknown or malformed", body = Problem),
    ),
)]
pub async fn list_runs(state: Scoped, mut query: ApiQuery) -> Result<Response, ApiError> {
    let filter = RunFilter {
        experiment_name: query.take("experiment_name")?,
        status: query.take_parsed::<Status>("status", "one of Azure ML's status words, e.g. `Running`")?,
        compute_target: query.take("compute_target")?,
        tags: query.take_keyed("tag")?,
        created_after: query
            .take_parsed::<DateTime<Utc>>("created_after", "a time such as `2026-01-31T12:00:00Z`")?,
    };
    let request = PageRequest::<(DateTime<Utc>, Uuid)>::take(&mut query, &format!("runs {filter:?}"))?;
    query.finish(&KNOWN)?;
    let runs = state.storage.list_runs(&filter, request.after, request.rows()).await?;
    let page = request.page(runs, |run| (run.created_at, run.id.as_uuid()));
    let items = Run::of_all(&state, page.items).await?;
    etag::json(StatusCode::OK, &Page { items, next_cursor: page.next_cursor })
}
