//! One small piece per rule, and the catalogue of all.
//!
//! A rule is one item of a file's `RULES` and the function that it names. To add one, write both; nothing else has to change:
//! `GET /v1/rules`, its examples, their test and `docs/rules.md` come from the item.

mod catalogue;
mod context;
mod data;
mod disagreements;
mod distributed;
mod environment;
mod environment_sections;
pub mod examples;
mod files;
#[cfg(test)]
mod fuzz;
mod general;
pub(crate) mod grammar;
mod images;
mod kubernetes;
pub mod markdown;
mod packages;
#[cfg(test)]
mod properties;
mod script;
mod source;
mod target;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{HashMap, HashSet};

use json_patch::PatchOperation;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub use catalogue::RULE_SET_VERSION;
pub(crate) use catalogue::catalogue;
pub(crate) use context::{Context, FileState};
pub use disagreements::{DISAGREEMENTS, Disagreement};

use super::{
    definition::{SIGNATURE, rank},
    finding::{Doc, Finding, Fix, Severity},
    json, patch,
};

/// The reference page of the class.
pub const CHAINER_PAGE: &str = "https://learn.microsoft.com/en-us/python/api/azureml-train-core/azureml.train.dnn.chainer?view=azure-ml-py";

/// A rule: what it says, and what it rests on.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its stable name.
    pub slug: &'static str,
    /// How grave its findings are.
    pub severity: Severity,
    /// The parameters that it looks at; empty for those that concern every parameter.
    pub parameters: &'static [&'static str],
    /// What it says.
    pub summary: &'static str,
    /// The documented sentence that it rests on, paraphrased.
    pub doc: &'static str,
    /// Where that is written.
    pub url: &'static str,
    /// A definition that the rule speaks about, as members to put over [`examples::base`]; null removes one.
    pub refused: &'static str,
    /// One that comes close and that it says nothing about; none for a rule that always speaks.
    pub accepted: Option<&'static str>,
    check: fn(&Context<'_>, &mut Sink<'_>),
}

/// A rule as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RuleView {
    /// Its stable name.
    #[schema(example = "distributed-requires-mpi")]
    pub rule: &'static str,
    /// How grave its findings are.
    pub severity: Severity,
    /// The parameters that it looks at; empty for those that concern every parameter.
    pub parameters: Vec<&'static str>,
    /// What it says.
    pub summary: &'static str,
    /// What it rests on.
    pub doc: Doc,
    /// One definition that it speaks about and one that it does not.
    pub examples: RuleExamples,
}

/// The examples of a rule: whole definitions. They are judged in the world of `example_world`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct RuleExamples {
    /// The rule speaks about it. Where the rule warns or informs only, it is accepted with that finding.
    #[schema(value_type = Object)]
    pub refused: Map<String, Value>,
    /// The rule says nothing about it; null for a rule that always speaks.
    #[schema(value_type = Option<Object>)]
    pub accepted: Option<Map<String, Value>>,
}

impl Rule {
    /// The rule as it is shown.
    #[must_use]
    pub fn view(&self) -> RuleView {
        RuleView {
            rule: self.slug,
            severity: self.severity,
            parameters: self.parameters.to_vec(),
            summary: self.summary,
            doc: Doc { text: self.doc.to_owned(), url: self.url.to_owned() },
            examples: RuleExamples {
                refused: examples::definition(self.refused),
                accepted: self.accepted.map(examples::definition),
            },
        }
    }
}

/// Every rule.
pub fn all() -> impl Iterator<Item = &'static Rule> {
    catalogue()
}

/// The rule of that name.
#[must_use]
pub fn find(slug: &str) -> Option<&'static Rule> {
    all().find(|rule| rule.slug == slug)
}

/// Where a rule puts what it finds.
pub(crate) struct Sink<'a> {
    rule: &'static Rule,
    findings: &'a mut Vec<Finding>,
    /// The pointers that this rule has reported.
    seen: HashSet<String>,
}

impl<'a> Sink<'a> {
    fn new(rule: &'static Rule, findings: &'a mut Vec<Finding>) -> Self {
        Self { rule, findings, seen: HashSet::new() }
    }

    /// Whether a suggestion may still be searched for: a body with thousands of faults gets no thousands of them.
    pub(crate) fn may_suggest(&self) -> bool {
        self.seen.len() < 100
    }

    /// Reports a finding about the parameter that the pointer begins with.
    pub(crate) fn report(&mut self, pointer: impl Into<String>, message: impl Into<String>, fix: Fix) {
        self.report_about(&[], pointer, message, fix);
    }

    /// Reports a finding that further parameters are involved in.
    pub(crate) fn report_about(
        &mut self,
        others: &[&str],
        pointer: impl Into<String>,
        message: impl Into<String>,
        fix: Fix,
    ) {
        let pointer = pointer.into();
        if !self.seen.insert(pointer.clone()) {
            return;
        }
        let mut parameters: Vec<String> = json::first_token(&pointer).into_iter().collect();
        for other in others {
            if !parameters.iter().any(|name| name == other) {
                parameters.push((*other).to_owned());
            }
        }
        self.findings.push(Finding {
            rule: self.rule.slug.to_owned(),
            severity: self.rule.severity,
            pointer,
            parameters,
            message: message.into(),
            fix,
            doc: Doc { text: self.rule.doc.to_owned(), url: self.rule.url.to_owned() },
        });
    }
}

/// A fix in words.
pub(crate) fn words(description: impl Into<String>) -> Fix {
    Fix { description: description.into(), patch: None }
}

/// A fix in words and as a JSON Patch.
pub(crate) fn patched(
    description: impl Into<String>,
    operations: impl IntoIterator<Item = PatchOperation>,
) -> Fix {
    Fix { description: description.into(), patch: Some(patch::patch(operations)) }
}

/// Everything that the rules find, in the order of the signature.
pub(crate) fn run(context: &Context<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for rule in catalogue() {
        (rule.check)(context, &mut Sink::new(rule, &mut findings));
    }
    in_order(context.body, &mut findings);
    findings
}

/// Sorts by place: the whole body first, then the signature, then unknown keys in the order sent.
fn in_order(body: &Map<String, Value>, findings: &mut [Finding]) {
    let unknown = body.keys().filter(|key| rank(key).is_none());
    let sent: HashMap<&str, usize> = unknown.enumerate().map(|(at, key)| (key.as_str(), at)).collect();
    findings.sort_by_cached_key(|finding| {
        let Some(name) = json::first_token(&finding.pointer) else {
            return 0;
        };
        match rank(&name) {
            Some(rank) => 1 + rank,
            None => 1 + SIGNATURE.len() + sent.get(name.as_str()).copied().unwrap_or(sent.len()),
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_parameters_exist() {
        let mut slugs: Vec<_> = catalogue().map(|rule| rule.slug).collect();
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), catalogue().count());
        for rule in catalogue() {
            assert!(rule.slug.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{}", rule.slug);
            assert!(rule.url.starts_with("https://"), "{}", rule.slug);
            assert!(rule.summary.ends_with('.') && rule.doc.ends_with('.'), "{}", rule.slug);
            for parameter in rule.parameters {
                assert!(rank(parameter).is_some(), "{}: {parameter}", rule.slug);
            }
        }
    }

    #[test]
    fn rules_are_found_by_name() {
        let rule = find("distributed-requires-mpi").unwrap();
        assert_eq!(rule.view().rule, "distributed-requires-mpi");
        assert!(find("no-such-rule").is_none());
    }
}
