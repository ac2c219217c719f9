//! How source tree and data get to pods that share no disk with the service, and how what scripts write gets back: the names of it.
//!
//! A tar each way. On the way there it has `work/…`, for the working directory, and `home/…`, for what belongs to the service: data,
//! the module for scripts. On the way back it has the same two, with what the script wrote.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The top-level directory for the working directory of the script.
pub const WORK: &str = "work";
/// The top-level directory for what belongs to the service.
pub const HOME: &str = "home";
/// Below [`HOME`]: what the module for scripts records.
pub const RECORDS: &str = "records";

/// Why a text is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a part is that of a pod: 1 to 63 small letters, digits and inner `-`")]
pub struct PartNameError;

/// Which pod sends something: its name, a label of DNS.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
pub struct PartName(String);

impl PartName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PartName {
    type Err = PartNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_end = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let is_inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let sound = is_end(text.bytes().next()) && is_end(text.bytes().last()) && text.bytes().all(is_inner);
        if sound && text.len() <= 63 { Ok(Self(text.to_owned())) } else { Err(PartNameError) }
    }
}

impl TryFrom<String> for PartName {
    type Error = PartNameError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PartName> for String {
    fn from(name: PartName) -> Self {
        name.0
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_the_name_of_a_pod() {
        let longest = "a".repeat(63);
        for name in ["a", "run-0-a1-x7k2p", "0", &longest] {
            assert_eq!(name.parse::<PartName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(64);
        for name in ["", "-a", "a-", "A", "a.b", "a/b", "..", "a_b", "é", &too_long] {
            assert_eq!(name.parse::<PartName>(), Err(PartNameError), "{name}");
        }
    }
}
