//! Projects: whose a resource is. A caller belongs to one, and knows of nothing in any other.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// As long as a label of the DNS, in which other systems keep such names.
const MAX_CHARACTERS: usize = 63;

/// The name of a project: lower-case letters, digits and `-`, a letter or digit first and last, 63 characters at most.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Project(String);

/// What is no name of a project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a project's name has lower-case letters, digits and `-`, begins and ends with a letter or digit, and has at most {MAX_CHARACTERS} characters"
)]
pub struct NoProject;

impl Project {
    /// The project of callers to whom none was given, and of everything that is older than projects.
    pub const DEFAULT: &'static str = "default";

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name under which the installation keeps what the project calls `name`.
    #[must_use]
    pub fn qualified(&self, name: &str) -> Qualified {
        match self.as_str() {
            Self::DEFAULT => Qualified(name.to_owned()),
            project => Qualified(format!("{project}/{name}")),
        }
    }
}

impl Default for Project {
    fn default() -> Self {
        Self(Self::DEFAULT.to_owned())
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Project {
    type Err = NoProject;

    fn from_str(text: &str) -> Result<Self, NoProject> {
        let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        let bytes = text.as_bytes();
        let ends_are_plain =
            bytes.first().is_some_and(|c| is_plain(*c)) && bytes.last().is_some_and(|c| is_plain(*c));
        let fits = bytes.len() <= MAX_CHARACTERS && bytes.iter().all(|c| is_plain(*c) || *c == b'-');
        if ends_are_plain && fits { Ok(Self(text.to_owned())) } else { Err(NoProject) }
    }
}

impl TryFrom<String> for Project {
    type Error = NoProject;

    fn try_from(text: String) -> Result<Self, NoProject> {
        text.parse()
    }
}

impl From<Project> for String {
    fn from(project: Project) -> Self {
        project.0
    }
}

/// A name as the installation keeps it: bare in the project `default`, `<project>/<name>` in any other, so that each project has all
/// names to itself. No name of a resource has a `/` in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Qualified(String);

impl Qualified {
    /// One that was kept.
    #[must_use]
    pub const fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// The whole of it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The whole of it.
    #[must_use]
    pub fn into_string(self) -> String {
        self.0
    }

    /// What its project calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(self.as_str(), |(_, name)| name)
    }
}

impl fmt::Display for Qualified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_projects() {
        for good in ["a", "0", "vision", "team-7", &"x".repeat(63)] {
            assert!(good.parse::<Project>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a/b", "ü", "a b", &"x".repeat(64)] {
            assert_eq!(bad.parse::<Project>(), Err(NoProject), "{bad}");
        }
    }

    #[test]
    fn a_name_is_its_projects_own() {
        let (default, vision): (Project, Project) = (Project::default(), "vision".parse().expect("a name"));
        assert_eq!(default.qualified("data").as_str(), "data");
        assert_eq!(vision.qualified("data").as_str(), "vision/data");
        assert_eq!((default.qualified("data").name(), vision.qualified("data").name()), ("data", "data"));
    }
}
