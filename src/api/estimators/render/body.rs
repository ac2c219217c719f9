//! The bodies of the two operations: read member by member, so that everything wrong is said at once.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    api::{
        estimators::{EXAMPLE_SNAPSHOT, EstimatorDefinition},
        findings::{Members, nearest},
    },
    domain::{finding::Finding, render::Format},
};

// They document the bodies; `read` reads them.
/// As what a stored estimator is rendered.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({"format": "script-run-config"}))]
pub struct RenderBody {
    /// As what.
    pub format: Format,
    /// Replaces the definition's.
    #[schema(nullable = false)]
    pub compute_target: Option<String>,
}

/// As what a definition is rendered.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "format": "azureml-v2",
    "estimator": {
        "source_directory": EXAMPLE_SNAPSHOT,
        "compute_target": "local",
        "entry_script": "train.py",
        "script_params": {"--epochs": 20, "--learning-rate": 0.002},
        "framework_version": "7.0.0",
        "pip_packages": ["scikit-learn"]
    }
}))]
pub struct RenderDefinitionBody {
    /// As what.
    pub format: Format,
    /// The definition; judged, and not stored.
    #[schema(value_type = EstimatorDefinition)]
    pub estimator: Map<String, Value>,
    /// Replaces the definition's.
    #[schema(nullable = false)]
    pub compute_target: Option<String>,
}

/// What is to be rendered, and as what.
pub(super) struct RenderRequest<'a> {
    pub format: Format,
    /// There when the operation takes one.
    pub definition: Option<&'a Map<String, Value>>,
    pub overrides: Map<String, Value>,
}

/// Reads a body, or says everything that is wrong with it.
///
/// # Errors
/// With every finding.
pub(super) fn read(body: &Map<String, Value>, is_inline: bool) -> Result<RenderRequest<'_>, Vec<Finding>> {
    let mut members = Members::new(body, "");
    let format = format(&mut members);
    let mut definition = None;
    if is_inline {
        definition = members.object("estimator");
        if body.get("estimator").is_none_or(Value::is_null) {
            members.missing("estimator", "a definition");
        }
    }
    let mut overrides = Map::new();
    if let Some(target) = members.text("compute_target").filter(|text| !text.is_empty()) {
        overrides.insert("compute_target".to_owned(), Value::String(target.to_owned()));
    }
    let findings = members.finish();
    match format {
        Some(format) if findings.is_empty() => Ok(RenderRequest { format, definition, overrides }),
        _ => Err(findings),
    }
}

fn format(members: &mut Members<'_>) -> Option<Format> {
    let known = Format::ALL.map(Format::as_str);
    let form = format!("one of `{}`", known.join("`, `"));
    let before = members.findings.len();
    let Some(word) = members.text("format") else {
        if members.findings.len() == before {
            members.missing("format", &form);
        }
        return None;
    };
    let found = Format::ALL.into_iter().find(|format| format.as_str() == word);
    if found.is_none() {
        let fix =
            nearest(word, &known).map_or_else(|| format!("write {form}"), |near| format!("write `{near}`"));
        members.refuse("format-unknown", "format", format!("`format` must be {form}"), fix);
    }
    found
}
