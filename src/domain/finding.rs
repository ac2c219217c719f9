//! What validation has to say about one place of a definition.

use json_patch::Patch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The definition is refused.
    Error,
    /// Accepted, but something is not as its author may think.
    Warning,
    /// Accepted; good to know.
    Info,
}

impl Severity {
    /// The word as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}

/// What to write instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Fix {
    /// In words.
    pub description: String,
    /// A JSON Patch (RFC 6902) against the definition, where the fix is mechanical.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub patch: Option<Patch>,
}

/// The documented sentence that a rule rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Doc {
    /// The sentence, paraphrased.
    pub text: String,
    /// Where it is written.
    pub url: String,
}

/// One finding: a rule that fired at one place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    /// The rule's stable slug.
    #[schema(example = "distributed-requires-mpi")]
    pub rule: String,
    /// How grave it is.
    pub severity: Severity,
    /// JSON Pointer (RFC 6901) into the request body: the place to change. Where something is
    /// missing it names the place where it belongs, so it need not resolve.
    #[schema(example = "/distributed_training")]
    pub pointer: String,
    /// The parameters involved.
    pub parameters: Vec<String>,
    /// What was given and what is allowed.
    pub message: String,
    /// What to write instead.
    pub fix: Fix,
    /// What the rule rests on.
    pub doc: Doc,
}
