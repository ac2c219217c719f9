//! Encrypting what callers send and nobody may read again.

use serde_json::{Map, Value};

use super::{error::ApiError, findings::error_at, state::ApiState};
use crate::{
    clock::entropy,
    domain::{
        finding::Finding,
        ids::EstimatorId,
        judge::{self, Accepted},
        secret::Secret,
    },
    vault::purposes,
};

/// Encrypts a secret that was sent at `pointer`; a finding says why it cannot be kept.
///
/// # Errors
/// When the cipher fails.
pub(super) fn seal(
    state: &ApiState,
    purpose: &str,
    secret: &Secret,
    pointer: &str,
) -> Result<Result<Vec<u8>, Finding>, ApiError> {
    let Some(vault) = &state.vault else {
        let message = "the service has no key to encrypt secrets with, and keeps none in clear";
        let fix = "start the service with `--secret-key-file`, or leave the secret out";
        return Ok(Err(error_at("secret-key-missing", pointer, message, fix)));
    };
    let sealed = vault.seal(purpose, secret, entropy());
    sealed.map(Ok).map_err(|_| ApiError::Internal("a secret could not be encrypted".to_owned()))
}

/// The password of a definition's registry, encrypted for the estimator that it is stored with.
///
/// # Errors
/// When the cipher fails.
pub(super) fn seal_registry_password(
    state: &ApiState,
    body: &Map<String, Value>,
    accepted: &Accepted,
    id: EstimatorId,
) -> Result<Result<Option<Vec<u8>>, Finding>, ApiError> {
    let Some((pointer, password)) = judge::registry_password(body, accepted) else { return Ok(Ok(None)) };
    if judge::is_redacted(&password) {
        let message = "the password is the marker that is shown in place of one";
        let fix = "write the password itself; what was stored is never shown";
        return Ok(Err(error_at("registry-incomplete", &pointer, message, fix)));
    }
    let sealed = seal(state, &purposes::registry_password(id), &password, &pointer)?;
    Ok(sealed.map(Some))
}
