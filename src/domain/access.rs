//! Who a caller is, and what it may do.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::project::Project;

/// What a caller may do. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// See what its project has, and have definitions judged.
    Read,
    /// Upload, store definitions, start, change and cancel the project's runs.
    Submit,
    /// Manage what the project's runs read and who is told of them: datastores and webhooks.
    Operate,
    /// Manage the installation: compute targets, tokens; see the audit trail and the figures of all projects.
    Admin,
}

impl Scope {
    /// Every scope, the least first.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Operate, Self::Admin];

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that is no scope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a scope is `read`, `submit`, `operate` or `admin`")]
pub struct NoScope;

impl FromStr for Scope {
    type Err = NoScope;

    fn from_str(text: &str) -> Result<Self, NoScope> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or(NoScope)
    }
}

/// Who sent a request, in which project, and what it may do there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Its name within the project; empty for the one caller of a service without authentication.
    pub name: String,
    /// Where everything is that it sees and makes.
    pub project: Project,
    /// What it may do.
    pub scope: Scope,
    /// By what it is known.
    pub credential: Credential,
}

/// By what a caller is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// By nothing: everybody who reaches the service is this caller.
    None,
    /// By a token of the operator's file.
    File,
    /// By a token of the service's, with this id.
    Token(uuid::Uuid),
    /// By a JWT of the configured issuer.
    Oidc,
    /// By the token of an attempt: it is what runs inside a run.
    Run,
}

impl Credential {
    /// The word for it in the audit trail.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::File => "file",
            Self::Token(_) => "token",
            Self::Oidc => "oidc",
            Self::Run => "run",
        }
    }
}

impl Principal {
    /// Everybody who reaches a service that asks for no token.
    #[must_use]
    pub fn anybody() -> Self {
        Self {
            name: String::new(),
            project: Project::default(),
            scope: Scope::Admin,
            credential: Credential::None,
        }
    }

    /// The name under which the installation knows it: callers of two projects are never the same.
    #[must_use]
    pub fn caller(&self) -> String {
        self.project.qualified(&self.name).into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scope_includes_those_before_it() {
        assert!(Scope::ALL.is_sorted());
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(scope));
        }
        assert_eq!("Admin".parse::<Scope>(), Err(NoScope));
    }

    #[test]
    fn callers_of_two_projects_are_never_the_same() {
        let of = |project: &str, name: &str| Principal {
            name: name.to_owned(),
            project: project.parse().expect("a name"),
            ..Principal::anybody()
        };
        assert_eq!(of("default", "ci").caller(), "ci");
        assert_ne!(of("vision", "ci").caller(), of("default", "ci").caller());
        assert_eq!(Principal::anybody().caller(), "");
    }
}
