//! `GET /v1/rules` and `GET /v1/rules/{rule}`

use axum::{
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{error::ApiError, etag, extract::ApiPath, problem::Problem};
use crate::domain::rules::{
    self, DISAGREEMENTS, Disagreement, RULE_SET_VERSION, Rule, RuleView, examples::ExampleWorld,
};

/// Every rule that definitions are judged by.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Rules {
    /// In no particular order.
    pub items: Vec<RuleView>,
    /// The version of the rules: it changes with every change of what is accepted or said.
    #[schema(example = "2")]
    pub rule_set_version: &'static str,
    /// What the examples of the rules refer to.
    pub example_world: ExampleWorld,
    /// Where the documentation and the SDK disagree, and what was chosen here.
    pub disagreements: Vec<Disagreement>,
    /// Always null: there is one page.
    pub next_cursor: Option<String>,
}

/// List the validation rules
///
/// Each with what it says, how grave its findings are, which documented sentence it rests on, one definition that it speaks
/// about and one that it does not; and where documentation and SDK disagree.
#[utoipa::path(
    get, path = "/v1/rules", tag = "estimators",
    params(("If-None-Match" = Option<String>, Header, description = "Answers 304 when the rules still have this ETag")),
    responses(
        (status = 200, description = "The rules", body = Rules, headers(("ETag" = String, description = "Their entity tag"))),
        (status = 304, description = "They have the given ETag"),
    ),
)]
pub async fn list_rules(headers: HeaderMap) -> Result<Response, ApiError> {
    let rules = Rules {
        items: rules::all().map(Rule::view).collect(),
        rule_set_version: RULE_SET_VERSION,
        example_world: rules::examples::world(),
        disagreements: DISAGREEMENTS.to_vec(),
        next_cursor: None,
    };
    etag::tagged(&headers, StatusCode::OK, &rules)
}

/// Get a validation rule
///
/// As in the list: what it says, the documented sentence it rests on, and an example of what it accepts and of what it refuses.
#[utoipa::path(
    get, path = "/v1/rules/{rule}", tag = "estimators",
    params(
        ("rule" = String, Path, description = "The rule's name, as findings carry it", example = "distributed-requires-mpi"),
        ("If-None-Match" = Option<String>, Header, description = "Answers 304 when the rule still has this ETag"),
    ),
    responses(
        (status = 200, description = "The rule", body = RuleView, headers(("ETag" = String, description = "Its entity tag"))),
        (status = 304, description = "It has the given ETag"),
        (status = 404, description = "There is no such rule", body = Problem),
    ),
)]
pub async fn get_rule(ApiPath(name): ApiPath<String>, headers: HeaderMap) -> Result<Response, ApiError> {
    let rule = rules::find(&name).ok_or_else(|| ApiError::not_found("rule", &name))?;
    etag::tagged(&headers, StatusCode::OK, &rule.view())
}
