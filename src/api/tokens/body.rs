//! The body of `POST /v1/tokens`: read member by member, so that everything wrong is said at once.

use std::str::FromStr;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::findings::{Members, nearest},
    domain::{access::Scope, api_token::TokenName, finding::Finding, project::Project},
};

/// A quarter of a year: what nobody uses any more ends by itself.
const DEFAULT_SECONDS: i64 = 90 * 24 * 3600;
/// Ten years: for ever is not to be had.
const MAX_SECONDS: i64 = 10 * 366 * 24 * 3600;

// It documents the body; `read` reads it.
/// The token to make.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"name": "ci", "project": "default", "scope": "submit", "expires_in_seconds": 7_776_000}))]
pub struct TokenBody {
    /// The name of its caller. Several tokens may have the same one, so that one can be replaced by another.
    pub name: TokenName,
    /// The project of its caller; `default` when not given.
    #[schema(pattern = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", default = "default", required = false)]
    pub project: String,
    /// What its caller may do; each scope includes those before it.
    pub scope: Scope,
    /// For how long it is good; 90 days when not given.
    #[schema(minimum = 60, maximum = 316_224_000, default = 7_776_000, required = false)]
    pub expires_in_seconds: i64,
}

/// A token that can be made.
pub(super) struct NewToken {
    pub(super) name: TokenName,
    pub(super) project: Project,
    pub(super) scope: Scope,
    pub(super) expires_in_seconds: i64,
}

pub(super) fn read(body: &Map<String, Value>) -> Result<NewToken, Vec<Finding>> {
    let mut members = Members::new(body, "");
    let name = required::<TokenName>(&mut members, "name", "the name of its caller, such as `ci`");
    let project = match members.text("project") {
        Some(text) => parsed::<Project>(&mut members, "project", text, "a project's name, such as `vision`"),
        None => Some(Project::default()),
    };
    let words = Scope::ALL.map(Scope::as_str);
    let form = format!("one of `{}`", words.join("`, `"));
    let scope = required::<Scope>(&mut members, "scope", &form);
    let expires_in_seconds =
        members.integer("expires_in_seconds", 60..=MAX_SECONDS).unwrap_or(DEFAULT_SECONDS);
    let findings = members.finish();
    match (name, project, scope) {
        (Some(name), Some(project), Some(scope)) if findings.is_empty() => {
            Ok(NewToken { name, project, scope, expires_in_seconds })
        }
        _ => Err(findings),
    }
}

fn required<T: FromStr<Err: std::fmt::Display>>(
    members: &mut Members<'_>,
    name: &'static str,
    form: &str,
) -> Option<T> {
    let before = members.findings.len();
    match members.text(name) {
        Some(text) => parsed(members, name, text, form),
        None => {
            if members.findings.len() == before {
                members.missing(name, form);
            }
            None
        }
    }
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(
    members: &mut Members<'_>,
    name: &'static str,
    text: &str,
    form: &str,
) -> Option<T> {
    match text.parse() {
        Ok(value) => Some(value),
        Err(why) => {
            let near = nearest(text, &Scope::ALL.map(Scope::as_str)).filter(|_| name == "scope");
            let fix = near.map_or_else(|| format!("write {form}"), |near| format!("write `{near}`"));
            members.refuse("malformed-value", name, format!("`{name}`: {why}"), fix);
            None
        }
    }
}
