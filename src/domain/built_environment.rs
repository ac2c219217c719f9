//! An environment that was built and is kept on a worker node.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Why a text is no key of an environment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the key of an environment is 64 lower-case hexadecimal digits")]
pub struct EnvironmentKeyError;

/// What a built environment is known by: the digest of what decides its content.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[0-9a-f]{64}$",
    example = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
pub struct EnvironmentKey(String);

impl EnvironmentKey {
    /// The digits.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EnvironmentKey {
    type Err = EnvironmentKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_digit = |b: &u8| b.is_ascii_digit() || (b'a'..=b'f').contains(b);
        if text.len() == 64 && text.as_bytes().iter().all(is_digit) {
            Ok(Self(text.to_owned()))
        } else {
            Err(EnvironmentKeyError)
        }
    }
}

impl TryFrom<String> for EnvironmentKey {
    type Error = EnvironmentKeyError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EnvironmentKey> for String {
    fn from(key: EnvironmentKey) -> Self {
        key.0
    }
}

impl fmt::Display for EnvironmentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A built environment, as it lies on a worker node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltEnvironment {
    /// What it is known by.
    pub key: EnvironmentKey,
    /// How it was built, e.g. `virtual_environment`.
    pub kind: String,
    /// Its interpreter's version.
    pub python_version: String,
    /// Installed distributions as `name==version`, sorted.
    pub packages: Vec<String>,
    /// What it takes of the disk.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_digest_and_nothing_else() {
        let key = "0123456789abcdef".repeat(4);
        assert_eq!(key.parse::<EnvironmentKey>().unwrap().as_str(), key);
        for bad in ["", "../x", &key[1..], &key.to_uppercase(), &format!("{key}0")] {
            assert_eq!(bad.parse::<EnvironmentKey>(), Err(EnvironmentKeyError), "{bad}");
        }
    }
}
