//! The token of an attempt's script, which what runs inside it carries: it opens its own run, to be read, while that lives.

use axum::http::{Method, header, request::Parts};

use crate::{
    api::{error::ApiError, state::ApiState},
    domain::{
        access::{Credential, Principal, Scope},
        ids::RunId,
    },
    vault::is_of_script,
};

/// The caller that a request is sent by from within a run. None when it carries no token of a script. It is looked up when it is its
/// turn.
///
/// # Errors
/// When it carries one, and the request is not for that run, or the run is not at that attempt any more.
pub async fn run_token(state: &ApiState, head: &Parts) -> Result<Option<Principal>, ApiError> {
    let given = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let given = given.and_then(|value| value.split_once(' '));
    let Some((scheme, token)) = given else { return Ok(None) };
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || !is_of_script(token) {
        return Ok(None);
    }
    let (Some(vault), Some(run)) = (&state.vault, run_of(head.uri.path())) else {
        return Err(ApiError::Unauthorized);
    };
    if !matches!(head.method, Method::GET | Method::HEAD) {
        return Err(ApiError::Unauthorized);
    }
    let turn = state.access.turns.take().await?;
    let found = state.installation.run_owner(run).await?;
    drop(turn);
    match found {
        Some(found) if !found.is_over && vault.is_script_token(run, found.attempt, token) => {
            Ok(Some(Principal {
                name: format!("run:{run}"),
                project: found.project,
                scope: Scope::Read,
                credential: Credential::Run,
            }))
        }
        _ => Err(ApiError::Unauthorized),
    }
}

/// The run that a path is about.
fn run_of(path: &str) -> Option<RunId> {
    path.strip_prefix("/v1/runs/")?.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_a_run() {
        let id = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10";
        for rest in ["", "/events", "/logs/a/b"] {
            assert_eq!(run_of(&format!("/v1/runs/{id}{rest}")), id.parse().ok(), "{rest}");
        }
        for other in ["/v1/runs", "/v1/runs/", "/v1/runs/batch", &format!("/v1/estimators/{id}")] {
            assert_eq!(run_of(other), None, "{other}");
        }
    }
}
