//! What an operation may reach in the name of its caller: the state of the API, and of the database the caller's project alone.

use std::{ops::Deref, sync::Arc};

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{
    audit::Slip,
    error::ApiError,
    state::{ApiState, Shared},
};
use crate::{domain::access::Principal, storage::ProjectStorage};

/// The state, as the handlers of protected operations get it.
pub struct Scoped {
    shared: Shared,
    /// What of the database is the caller's project's.
    pub(in crate::api) storage: ProjectStorage,
    /// Who the caller is.
    pub(in crate::api) principal: Principal,
    /// The request's row of the audit trail, where it is to change something.
    pub(in crate::api) slip: Option<Slip>,
}

impl Scoped {
    /// The state, for what goes on after the handler.
    pub(in crate::api) const fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Deref for Scoped {
    type Target = ApiState;

    fn deref(&self) -> &ApiState {
        &self.shared
    }
}

impl FromRequestParts<Shared> for Scoped {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        let principal = Principal::from_request_parts(parts, state).await?;
        let storage = state.installation.of(&principal.project);
        let slip = parts.extensions.get::<Slip>().cloned();
        Ok(Self { shared: Arc::clone(state), storage, principal, slip })
    }
}
