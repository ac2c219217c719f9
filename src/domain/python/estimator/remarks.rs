//! What has to be said of a call: mostly what cannot be read off the source, and what to write in its place.

use crate::domain::{
    definition::shortened,
    finding::{Doc, Finding, Fix, Severity},
    json,
};

/// How many findings one call gets.
const MAX_FINDINGS: usize = 200;

/// The rule of values that cannot be read off the source.
pub(super) const FILL_IN: &str = "value-to-fill-in";

/// What a name may hold that nobody is to see.
const SECRET: &[&str] =
    &["password", "passwd", "pwd", "secret", "token", "credential", "key", "sas", "registry", "connection"];

/// The findings of one call.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    found: Vec<Finding>,
    overflow: bool,
}

impl Remarks {
    pub(super) fn len(&self) -> usize {
        self.found.len()
    }

    /// There is more to say than is kept.
    pub(super) fn overflow(&mut self) {
        self.overflow = true;
    }

    /// Forgets what came after a length.
    pub(super) fn truncate(&mut self, len: usize) {
        self.found.truncate(len);
    }

    pub(super) fn add(
        &mut self,
        severity: Severity,
        rule: &str,
        pointer: &str,
        message: String,
        fix: impl Into<String>,
    ) {
        if self.found.len() >= MAX_FINDINGS {
            self.overflow = true;
            return;
        }
        let finding = finding(severity, rule, pointer, message, fix);
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }

    pub(super) fn finish(mut self) -> Vec<Finding> {
        if self.overflow {
            self.found.push(finding(
                Severity::Error,
                FILL_IN,
                "",
                format!(
                    "More than {MAX_FINDINGS} things are to be said of this call; the rest is not listed."
                ),
                "Mend what is listed and send the source again.",
            ));
        }
        self.found
    }
}

/// A finding of this operation.
pub(super) fn finding(
    severity: Severity,
    rule: &str,
    pointer: &str,
    message: String,
    fix: impl Into<String>,
) -> Finding {
    Finding {
        rule: rule.to_owned(),
        severity,
        pointer: pointer.to_owned(),
        parameters: json::first_token(pointer).into_iter().collect(),
        message,
        fix: Fix { description: fix.into(), patch: None },
        doc: Doc {
            text: "The operation's description in the API documentation of this service.".to_owned(),
            url: "/docs/".to_owned(),
        },
    }
}

/// A piece of source as it may be shown: on one line, shortened, and without what its texts hold, which may be secrets.
pub(super) fn shown(source: &str) -> String {
    let mut plain = String::new();
    let mut rest = source;
    while let Some(start) = rest.find(['"', '\'']) {
        let (before, text) = rest.split_at(start);
        plain.push_str(before);
        let quote = &text[..1];
        let triple = quote.repeat(3);
        let quote = if text.starts_with(&triple) { triple.as_str() } else { quote };
        plain.push_str(quote);
        rest = behind(&text[quote.len()..], quote);
        plain.push('…');
        plain.push_str(quote);
    }
    plain.push_str(rest);
    shortened(&plain.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// What follows the end of a text.
fn behind<'a>(text: &'a str, quote: &str) -> &'a str {
    let mut from = 0;
    while let Some(at) = text[from..].find(['\\', '"', '\'']).map(|at| from + at) {
        if text[at..].starts_with(quote) {
            return &text[at + quote.len()..];
        }
        from = at + 1;
        if text.as_bytes()[at] == b'\\' {
            from += text[from..].chars().next().map_or(0, char::len_utf8);
        }
    }
    ""
}

/// Whether what stands at a place, or what it is read from, may be a secret.
pub(super) fn is_secret(pointer: &str, source: &str) -> bool {
    let last = pointer.rsplit('/').next().unwrap_or_default();
    pointer.contains("registry")
        || [last, source].iter().any(|text| {
            let text = text.to_lowercase();
            SECRET.iter().any(|word| text.contains(word))
        })
}

/// What to write at a place.
pub(super) fn advice(pointer: &str) -> String {
    let first = json::first_token(pointer).unwrap_or_default();
    match first.as_str() {
        "" => "Write the members of the definition that it stands for.".to_owned(),
        "compute_target" => "Write the name of a compute target of this service, or \"local\".".to_owned(),
        "source_directory_data_store" => "Write the name of a datastore of this service.".to_owned(),
        "inputs" => "Write the name of a datastore, a `DataReference` or a `DatasetConsumptionConfig` as an object.".to_owned(),
        "resume_from" => {
            "Write {\"type\": \"DataPath\", \"datastore\": …, \"path_on_datastore\": …}.".to_owned()
        }
        "distributed_training" => {
            "Write {\"type\": \"Mpi\", \"process_count_per_node\": …}, if the script is to run under MPI.".to_owned()
        }
        "environment_definition" => "Write the environment out as an object: `name`, `python.conda_dependencies`, `docker` and \
             `environment_variables`; or name the file in `conda_dependencies_file` or `pip_requirements_file` instead."
            .to_owned(),
        "image_registry_details" => {
            "Write `address`, and `username` and `password` where the registry wants them.".to_owned()
        }
        _ => format!("Write the value that it has when the script runs at `{pointer}`."),
    }
}
