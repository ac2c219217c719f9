//! What is known of a request before it is answered.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{HeaderValue, Method, StatusCode, Uri, request::Parts};
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
    method: Method,
    uri: Uri,
    request_id: Option<HeaderValue>,
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
        Some(Self {
            principal: principal.cloned(),
            address,
            operation: operation.to_owned(),
            method: head.method.clone(),
            uri: head.uri.clone(),
            request_id: head.headers.get(&X_REQUEST_ID).cloned(),
            changes,
        })
    }

    /// Whether the request was to change something.
    #[must_use]
    pub const fn changes(&self) -> bool {
        self.changes
    }

    /// Adds it to the trail, if what came of it belongs there.
    pub async fn finish(&self, state: &ApiState, status: StatusCode, party: &Party) {
        let was_refused = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        let belongs = if was_refused { state.audit.takes_refusal(party) } else { self.changes };
        if belongs {
            state.audit.append(self.event(status, state.clock.now())).await;
        }
    }

    fn event(&self, status: StatusCode, now: DateTime<Utc>) -> AuditEvent {
        let principal = self.principal.as_ref();
        let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
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
            operation: self.operation.clone(),
            method: without_tokens(self.method.as_str()).chars().take(16).collect(),
            path: without_tokens(self.uri.path()).chars().take(MAX_PATH_CHARACTERS).collect(),
            status: status.as_u16(),
            request_id: request_id.unwrap_or_default().to_owned(),
        }
    }
}

/// The row of a request that is to change something, for whoever changes it: stored in the same transaction, it is there exactly when
/// the change is, and costs no commit of its own.
#[derive(Clone)]
pub struct Slip(Arc<(Draft, AtomicBool)>);

impl Slip {
    /// Of a draft.
    #[must_use]
    pub fn new(draft: Draft) -> Self {
        Self(Arc::new((draft, AtomicBool::new(false))))
    }

    /// The row, for an answer with this status.
    #[must_use]
    pub fn event(&self, status: StatusCode, now: DateTime<Utc>) -> AuditEvent {
        self.0.0.event(status, now)
    }

    /// The row was stored with the change.
    pub fn is_in_the_trail(&self) {
        self.0.1.store(true, Ordering::Relaxed);
    }

    /// Adds the row to the trail, if what came of the request belongs there and it was not stored with a change.
    pub async fn finish(&self, state: &ApiState, status: StatusCode, party: &Party) {
        let (draft, is_in_the_trail) = &*self.0;
        if !is_in_the_trail.load(Ordering::Relaxed) {
            draft.finish(state, status, party).await;
        }
    }
}
