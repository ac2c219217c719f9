//! Callers who come with a JWT of the configured issuer.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::Jwk};
use serde_json::{Map, Value};
use url::Url;

use super::{
    jwks::{Keys, fits},
    verifier,
};
use crate::{
    api::error::ApiError,
    domain::{
        access::Principal,
        oidc::{Expected, principal},
    },
};

/// Larger than any that issuers make: headers of servers have 8 KiB in all.
const MAX_TOKEN_BYTES: usize = 8192;

/// The issuer, and what its tokens must say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What its tokens must say.
    pub expected: Expected,
    /// Where its keys are; looked up with the issuer when not given.
    pub keys: Option<Url>,
}

impl Settings {
    /// How many keys the issuer has that signatures are verified with. It is asked now.
    ///
    /// # Errors
    /// Why it does not say.
    pub async fn usable_keys(&self) -> Result<usize, String> {
        let keys = Keys::new(self.expected.issuer.clone(), self.keys.clone()).fetch().await?;
        let is_usable = |key: &&Jwk| {
            key.common.key_id.is_some() && verifier::ALGORITHMS.iter().any(|algorithm| fits(key, *algorithm))
        };
        Ok(keys.keys.iter().filter(is_usable).count())
    }
}

/// Knows callers by their JWTs.
pub(super) struct Oidc {
    expected: Expected,
    keys: Arc<Keys>,
}

/// Whether a token has the form of a JWT.
pub(super) fn is_jwt(token: &str) -> bool {
    token.split('.').count() == 3
}

impl Oidc {
    pub(super) fn new(settings: Settings) -> Self {
        verifier::install();
        let keys = Keys::new(settings.expected.issuer.clone(), settings.keys);
        Self { expected: settings.expected, keys: Arc::new(keys) }
    }

    /// Who the bearer of a token is. Why one is not let in is in the log, and not in the answer: whoever made it up learns nothing.
    ///
    /// # Errors
    /// When it is nobody; when the issuer does not say what its keys are.
    pub(super) async fn principal_of(&self, token: &str, now: DateTime<Utc>) -> Result<Principal, ApiError> {
        let refused = |why: &dyn std::fmt::Display| {
            tracing::info!("a JWT is refused: {why}");
            ApiError::Unauthorized
        };
        if token.len() > MAX_TOKEN_BYTES {
            return Err(refused(&format!("it has more than {MAX_TOKEN_BYTES} bytes")));
        }
        let header = decode_header(token).map_err(|error| refused(&error))?;
        if !verifier::ALGORITHMS.contains(&header.alg) {
            return Err(refused(&"its algorithm has no public key"));
        }
        // Keys that a token brings along, or names an address of, are of no interest.
        let Some(kid) = &header.kid else { return Err(refused(&"it does not name its key")) };
        let key = self.keys.find(kid, now, |key: &Jwk| fits(key, header.alg)).await?;
        let key = key.ok_or_else(|| refused(&"the issuer has no such key for its algorithm"))?;
        let key = DecodingKey::from_jwk(&key).map_err(|error| refused(&error))?;
        let claims = decode::<Map<String, Value>>(token, &key, &signature_alone(header.alg));
        let claims = claims.map_err(|error| refused(&error))?.claims;
        principal(&claims, &self.expected, now).map_err(|why| refused(&why))
    }
}

/// The library looks at the signature; what claims mean is decided in `domain::oidc`, by our own clock.
fn signature_alone(algorithm: jsonwebtoken::Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    validation
}
