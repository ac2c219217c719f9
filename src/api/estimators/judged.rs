//! The one way from a body to a verdict: validate, create and run all go through here, so that they never disagree.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::FRAMEWORK;
use crate::{
    api::{error::ApiError, facts, state::ApiState},
    clock::entropy,
    domain::{
        facts::Facts,
        ids::EstimatorId,
        judge::{self, Accepted, Verdict},
        rules::RULE_SET_VERSION,
    },
    storage::estimators::Estimator,
};

/// A verdict and the facts that it rests on.
#[derive(Debug)]
pub(in crate::api) struct Judged {
    pub verdict: Verdict,
    pub facts: Facts,
}

/// Judges a body.
pub(in crate::api) async fn judged(state: &ApiState, body: &Map<String, Value>) -> Result<Judged, ApiError> {
    let facts = facts::look_up(state, body).await?;
    let verdict = judge::judge(body, &facts);
    Ok(Judged { verdict, facts })
}

/// The estimator to store: without its secrets.
pub(in crate::api) fn to_store(
    body: &Map<String, Value>,
    verdict: &Verdict,
    accepted: &Accepted,
    now: DateTime<Utc>,
) -> Estimator {
    Estimator {
        id: EstimatorId::generate(now, entropy()),
        framework: FRAMEWORK.to_owned(),
        definition: judge::redacted(body),
        findings: verdict.findings.clone(),
        environment: accepted.environment.clone(),
        rule_set_version: RULE_SET_VERSION.to_owned(),
        created_at: now,
        archived_at: None,
    }
}

/// A stored estimator, archived ones included.
pub(in crate::api) async fn found(state: &ApiState, id: EstimatorId) -> Result<Estimator, ApiError> {
    let stored = state.storage.get_estimator(id).await?;
    stored.ok_or_else(|| ApiError::not_found("estimator", id))
}
