//! One static bearer token, where the operator set one.

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// The digest of the token: the token itself is not kept.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// Of the token's text.
    #[must_use]
    pub fn new(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Whether a request carries it. Digests have equal lengths, and are compared in constant time: how long it takes
    /// tells nothing about how much of a guess was right.
    #[must_use]
    pub fn is_carried_by(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()) else {
            return false;
        };
        let Some((scheme, given)) = value.split_once(' ') else { return false };
        let digest: [u8; 32] = Sha256::digest(given.trim().as_bytes()).into();
        scheme.eq_ignore_ascii_case("bearer") && bool::from(digest.ct_eq(&self.0))
    }
}

/// Whether a path shows or changes anything that is not public: everything but health, documentation and explanations.
#[must_use]
pub fn is_protected(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/") || path == "/metrics"
}

/// Whether a path is for the pods of attempts, which have tokens of their own: its operations look at them.
#[must_use]
pub fn is_for_pods(path: &str) -> bool {
    let parts: Vec<&str> = path.split('/').collect();
    matches!(
        parts[..],
        ["", "v1", "runs", _, "attempts", _, "bundle"] | ["", "v1", "runs", _, "attempts", _, "returned", _]
    )
}

#[cfg(test)]
mod tests {
    use super::is_for_pods;

    #[test]
    fn what_is_for_pods_is_nothing_else() {
        assert!(
            is_for_pods("/v1/runs/x/attempts/1/bundle") && is_for_pods("/v1/runs/x/attempts/1/returned/p")
        );
        for path in [
            "/v1/runs/x",
            "/v1/runs/x/attempts/1/bundle/more",
            "/v1/runs/x/outputs/attempts/1/bundle",
            "/v1/runs",
        ] {
            assert!(!is_for_pods(path), "{path}");
        }
    }
}
