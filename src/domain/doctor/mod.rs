//! `estimatord doctor`: from what was seen of an installation to what is wrong with it, and how to mend that.

mod database;
mod machine;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::Serialize;

pub use database::{DatabaseFacts, Kept, database, notifications, schema, schema_objects, secrets};
pub use machine::{
    Asked, DirectoryFacts, Program, ProgramFacts, ServiceFacts, artifacts, data_directory, open_files,
    program, runs_as_root, service, service_at,
};

/// How much something matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it should be.
    Ok,
    /// It works, and should be looked at; or it could not be looked at.
    Warning,
    /// The service does not start so, does not do all that it is asked, or may lose something.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What was found out by one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub check: String,
    /// How much it matters.
    pub severity: Severity,
    /// What is so.
    pub message: String,
    /// What to do about it; none when it is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    /// It is as it should be.
    #[must_use]
    pub fn ok(check: impl Into<String>, message: impl Into<String>) -> Self {
        Self { check: check.into(), severity: Severity::Ok, message: message.into(), mend: None }
    }

    /// It works, and should be looked at.
    #[must_use]
    pub fn warning(check: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) -> Self {
        let (check, message, mend) = (check.into(), message.into(), Some(mend.into()));
        Self { check, severity: Severity::Warning, message, mend }
    }

    /// It does not work, or may lose something.
    #[must_use]
    pub fn error(check: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) -> Self {
        let (check, message, mend) = (check.into(), message.into(), Some(mend.into()));
        Self { check, severity: Severity::Error, message, mend }
    }
}

/// Everything that was found out.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many errors there are.
    pub errors: usize,
    /// How many warnings there are.
    pub warnings: usize,
    /// In the order in which it was looked at.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Of these findings.
    #[must_use]
    pub fn of(findings: Vec<Finding>) -> Self {
        let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
        Self { errors: count(Severity::Error), warnings: count(Severity::Warning), findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { check, severity, message, mend } in &self.findings {
            writeln!(f, "{severity:8} {check}: {message}")?;
            if let Some(mend) = mend {
                writeln!(f, "         -> {mend}")?;
            }
        }
        match (self.errors, self.warnings) {
            (0, 0) => write!(f, "Nothing is wrong."),
            (errors, warnings) => write!(f, "{errors} error(s), {warnings} warning(s)."),
        }
    }
}
