//! The one way from a body to a verdict: validate, create and run all go through here, so that they never disagree.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::FRAMEWORK;
use crate::{
    api::{error::ApiError, facts, scoped::Scoped, secrets::seal_registry_password},
    clock::entropy,
    domain::{
        facts::Facts,
        finding::Finding,
        ids::EstimatorId,
        judge::{self, Accepted, Question, Verdict},
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
pub(in crate::api) async fn judged(state: &Scoped, body: &Map<String, Value>) -> Result<Judged, ApiError> {
    let question = Question::of(body);
    let facts = facts::look_up(state, question.wanted()).await?;
    let verdict = question.answer(&facts);
    Ok(Judged { verdict, facts })
}

/// The estimator to store: its secrets encrypted, or the finding that says why they cannot be kept.
pub(in crate::api) fn to_store(
    state: &Scoped,
    body: &Map<String, Value>,
    verdict: &Verdict,
    accepted: &Accepted,
    now: DateTime<Utc>,
) -> Result<Result<Estimator, Finding>, ApiError> {
    let id = EstimatorId::generate(now, entropy());
    let sealed = seal_registry_password(state, body, accepted, id)?;
    Ok(sealed.map(|sealed_registry_password| Estimator {
        id,
        framework: FRAMEWORK.to_owned(),
        definition: judge::redacted(body),
        findings: verdict.findings.clone(),
        environment: accepted.environment.clone(),
        rule_set_version: RULE_SET_VERSION.to_owned(),
        sealed_registry_password,
        created_at: now,
        archived_at: None,
    }))
}

/// A stored estimator, archived ones included.
pub(in crate::api) async fn found(state: &Scoped, id: EstimatorId) -> Result<Estimator, ApiError> {
    let stored = state.storage.get_estimator(id).await?;
    stored.ok_or_else(|| ApiError::not_found("estimator", id))
}
