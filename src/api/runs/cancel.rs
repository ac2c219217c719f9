//! `POST /v1/runs/{id}/cancel`

use axum::{http::StatusCode, response::Response};

use super::Run;
use crate::{
    api::{error::ApiError, etag, extract::ApiPath, problem::Problem, scoped::Scoped},
    domain::ids::RunId,
    storage::cancel::Cancellation,
};

/// Cancel a run
///
/// A run that waits is `Canceled` at once. For any other the wish is durable: it is `CancelRequested` until its processes are
/// gone, and then `Canceled`. Asking again changes nothing.
#[utoipa::path(
    post, path = "/v1/runs/{id}/cancel", tag = "runs",
    params(("id" = RunId, Path, description = "The run's id")),
    responses(
        (status = 202, description = "The run, `CancelRequested` or `Canceled`", body = Run),
        (status = 400, description = "The id is malformed", body = Problem),
        (status = 404, description = "There is no such run", body = Problem),
        (status = 409, description = "The run has ended", body = Problem),
    ),
)]
pub async fn cancel_run(state: Scoped, ApiPath(id): ApiPath<RunId>) -> Result<Response, ApiError> {
    match state.storage.cancel_run(id, state.clock.now()).await? {
        Cancellation::Accepted(_) => {
            state.wakeup.notify_one();
            etag::json(StatusCode::ACCEPTED, &Run::load(&state, id).await?)
        }
        Cancellation::AlreadyTerminal(status) => {
            Err(ApiError::Conflict(format!("the run has ended: it is `{status}`")))
        }
        Cancellation::NotFound => Err(ApiError::not_found("run", id)),
    }
}
