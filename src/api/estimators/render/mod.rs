//! Definitions in other words. Both operations judge first, by the one path that all verdicts take.

mod body;
pub mod inline;
pub mod stored;

use serde_json::{Map, Value};

use super::judged::judged;
use crate::{
    api::{error::ApiError, problem::ProblemKind, runs::placed::Placement, scoped::Scoped},
    domain::{
        finding::Finding,
        json, judge,
        render::{self, Format, Rendering, Subject},
    },
};

pub use body::{RenderBody, RenderDefinitionBody};

/// Judges a definition with its overrides and renders it.
///
/// # Errors
/// When the rules refuse it: with everything that was found, placed into the request's body.
async fn rendered(
    state: &Scoped,
    definition: &Map<String, Value>,
    overrides: &Map<String, Value>,
    format: Format,
    is_inline: bool,
) -> Result<Rendering, ApiError> {
    let merged = judge::with_overrides(definition, overrides);
    let judged = judged(state, &merged).await?;
    let Some(accepted) = &judged.verdict.accepted else {
        let mut findings = judged.verdict.findings;
        if is_inline {
            findings = Placement { base: "/estimator", is_inline, overrides }.place(findings);
        } else {
            // A stored definition is not in the body: its findings point into the definition that is shown, where a patch of
            // this body cannot reach.
            for finding in &mut findings {
                let sent =
                    json::first_token(&finding.pointer).is_some_and(|name| overrides.contains_key(&name));
                finding.fix.patch = finding.fix.patch.take().filter(|_| sent);
            }
        }
        return Err(refused(findings));
    };
    let plan = judge::plan(accepted);
    Ok(render::render(format, &Subject { plan: &plan, definition: Some(&accepted.definition) }))
}

const fn refused(findings: Vec<Finding>) -> ApiError {
    ApiError::Refused { kind: ProblemKind::InvalidDefinition, findings }
}
