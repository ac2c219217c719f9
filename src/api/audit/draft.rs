//! What is known of a request before it is answered.

use std::net::IpAddr;

use axum::http::{Method, StatusCode, request::Parts};
use chrono::{DateTime, Utc};

use crate::{
    api::{
        auth::{self, Needs, only_judges},
        rate::Party,
        request_id::X_REQUEST_ID,
        state::ApiState,
    },
    clock::entropy,
    domain::{
        access::{Credential, Principal},
        audit::AuditEvent,
        ids::uuid_v7,
        token_mask::without_tokens,
    },
};

/// A path may be as long as browsers take; what of it is longer than any of ours is made up.
const MAX_PATH_CHARACTERS: usize = 512;

/// A request that may belong to the trail.
pub struct Draft {
    principal: Option<Principal>,
    address: Option<IpAddr>,
    operation: String,
    method: String,
    path: String,
    request_id: String,
    /// Whether it belongs there however it is answered, and not only when it is not let in.
    changes: bool,
}

impl Draft {
    /// Of a request that its caller, if it is known, has sent. None when it belongs there in no case.
    #[must_use]
    pub fn of(
        head: &Parts,
        found: Option<(&str, Needs)>,
        principal: Option<&Principal>,
        address: Option<IpAddr>,
    ) -> Option<Self> {
        let path = head.uri.path();
        if !auth::is_protected(path) {
            return None;
        }
        let operation = found.map_or("unknown", |(operation, _)| operation);
        let is_read = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS);
        // What pods fetch and send is the run's own doing, again and again.
        let is_of_pods = found.is_some_and(|(_, needs)| needs == Needs::AttemptToken);
        let changes = found.is_some() && !is_read && !is_of_pods && !only_judges(operation);
        let request_id = head.headers.get(&X_REQUEST_ID).and_then(|id| id.to_str().ok());
        Some(Self {
            principal: principal.cloned(),
            address,
            operation: operation.to_owned(),
            method: without_tokens(head.method.as_str()).chars().take(16).collect(),
            path: without_tokens(path).chars().take(MAX_PATH_CHARACTERS).collect(),
            request_id: request_id.unwrap_or_default().to_owned(),
            changes,
        })
    }

    /// Whether the request was to change something.
    #[must_use]
    pub const fn changes(&self) -> bool {
        self.changes
    }

    /// Adds it to the trail, if what came of it belongs there.
    pub async fn finish(self, state: &ApiState, status: StatusCode, party: &Party) {
        let was_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let belongs = if was_refused { state.audit.takes_refusal(party) } else { self.changes };
        if belongs {
            state.audit.append(self.event(status, state.clock.now())).await;
        }
    }

    fn event(self, status: StatusCode, now: DateTime<Utc>) -> AuditEvent {
        let principal = self.principal.as_ref();
        let token_id = match principal.map(|principal| &principal.credential) {
            Some(Credential::Token(id)) => Some(*id),
            _ => None,
        };
        AuditEvent {
            id: uuid_v7(now, entropy()),
            occurred_at: now,
            caller: principal.map_or_else(String::new, |principal| principal.name.clone()),
            project: principal.map_or_else(String::new, |principal| principal.project.as_str().to_owned()),
            credential: principal.map_or("unknown", |principal| principal.credential.as_str()).to_owned(),
            token_id,
            address: self.address.map(|address| address.to_string()),
            operation: self.operation,
            method: self.method,
            path: self.path,
            status: status.as_u16(),
            request_id: self.request_id,
        }
    }
}
