//! What the pods of an attempt fetch and send. They come with a token of their own, which opens nothing else.

pub mod bundle;
pub mod returned;

use axum::http::{HeaderMap, header};

use super::{error::ApiError, state::ApiState};
use crate::domain::ids::RunId;

/// Lets the pods of an attempt in, as long as it is the one that its run is at.
async fn admit(state: &ApiState, headers: &HeaderMap, run: RunId, attempt: u32) -> Result<(), ApiError> {
    let Some(vault) = &state.vault else {
        let why = "a pod cannot be let in, because this part of the service has no secret key to know its token by: give it the \
                   worker's with --secret-key-file or ESTIMATORD_SECRET_KEY";
        return Err(ApiError::Internal(why.to_owned()));
    };
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let is_ours = given.is_some_and(|(scheme, token)| {
        scheme.eq_ignore_ascii_case("bearer") && vault.is_attempt_token(run, attempt, token.trim())
    });
    if !is_ours {
        return Err(ApiError::Unauthorized);
    }
    let progress = state.installation.run_progress(run).await?;
    let progress = progress.ok_or_else(|| ApiError::not_found("run", run))?;
    if progress.status.is_terminal() {
        return Err(ApiError::Conflict(format!("the run has ended: it is {}", progress.status)));
    }
    if progress.attempt != attempt {
        let now = progress.attempt;
        return Err(ApiError::Conflict(format!(
            "the run is at attempt {now}, and this is attempt {attempt}"
        )));
    }
    Ok(())
}
