//! Bearer tokens that the service makes: shown once, kept as digests.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use super::secret::Secret;

/// What every token begins with, so that scanners of repositories and logs know one when they meet it.
pub const PREFIX: &str = "estimatord_";

/// Nobody guesses 256 bits; that is also why a plain digest of them is as good as a slow one.
const SECRET_BYTES: usize = 32;
/// Hexadecimal digits of the check at the end.
const CHECK_DIGITS: usize = 8;
/// What people read in lists, and no more.
const MAX_NAME_CHARACTERS: usize = 64;

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// The digest by which a token is known, whoever made it.
#[must_use]
pub fn digest(token: &str) -> TokenDigest {
    Sha256::digest(token.as_bytes()).into()
}

/// A token of 32 random bytes: the prefix, 64 hexadecimal digits, and eight more by which a mistyped or made-up one is known
/// without asking the database.
#[must_use]
pub fn generate(random: [u8; SECRET_BYTES]) -> Secret {
    let secret = hex(&random);
    Secret::new(format!("{PREFIX}{secret}{}", check(&secret)))
}

/// Whether a text has the form of a token that the service made.
#[must_use]
pub fn is_well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    rest.len() == SECRET_BYTES * 2 + CHECK_DIGITS
        && rest.is_ascii()
        && check(&rest[..SECRET_BYTES * 2]) == rest[SECRET_BYTES * 2..]
}

fn check(secret: &str) -> String {
    hex(&digest(secret)[..CHECK_DIGITS / 2])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The name of a token: its caller's name. Several tokens may have the same one, so that one can be replaced by another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, pattern = "^[A-Za-z0-9._-]{1,64}$", example = "ci")]
pub struct TokenName(String);

/// What is no name of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a caller's name has 1 to {MAX_NAME_CHARACTERS} letters, digits, `.`, `_` and `-`")]
pub struct NoTokenName;

impl TokenName {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TokenName {
    type Err = NoTokenName;

    fn from_str(text: &str) -> Result<Self, NoTokenName> {
        let fits = (1..=MAX_NAME_CHARACTERS).contains(&text.len());
        let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
        if fits && text.bytes().all(is_plain) { Ok(Self(text.to_owned())) } else { Err(NoTokenName) }
    }
}

impl TryFrom<String> for TokenName {
    type Error = NoTokenName;

    fn try_from(text: String) -> Result<Self, NoTokenName> {
        text.parse()
    }
}

impl From<TokenName> for String {
    fn from(name: TokenName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_by_its_form() {
        let token = generate([7; 32]);
        let text = token.expose();
        assert!(is_well_formed(text) && text.starts_with("estimatord_0707") && text.len() == 83, "{text}");
        assert_eq!(format!("{token:?}"), "[redacted]");
        for wrong in [
            "",
            "estimatord_",
            &text[1..],
            &text[..82],
            &text.replace("0707", "0708"),
            &format!("{text}0"),
            &"é".repeat(50),
        ] {
            assert!(!is_well_formed(wrong), "{wrong}");
        }
        assert!(!is_well_formed(&format!("{PREFIX}{}", "é".repeat(36))));
    }

    #[test]
    fn other_bytes_are_another_token() {
        assert_ne!(generate([0; 32]).expose(), generate([1; 32]).expose());
        assert_ne!(digest("a"), digest("b"));
    }

    #[test]
    fn names_are_plain() {
        for (text, good) in [("ci", true), ("a.b_c-D9", true), ("", false), ("a b", false), ("a/b", false)] {
            assert_eq!(text.parse::<TokenName>().is_ok(), good, "{text}");
        }
        assert!("x".repeat(65).parse::<TokenName>().is_err());
    }
}
