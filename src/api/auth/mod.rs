//! Who sent a request: by a token of the operator's file, one that the service made, or a JWT of the configured issuer.

mod file_tokens;
mod jwks;
mod made_tokens;
pub mod oidc;
mod operations;
mod origin;
pub mod run_tokens;
mod turns;
mod verifier;

use std::net::{IpAddr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts, Request},
    http::{HeaderMap, header, request::Parts},
};

pub use self::{
    file_tokens::FileTokens,
    operations::{Needs, Operations, needs_of, only_judges},
    origin::why_foreign,
};
use self::{made_tokens::MadeTokens, oidc::Oidc, turns::Turns};
use super::error::ApiError;
use uuid::Uuid;

use crate::{
    clock::Clock,
    domain::{
        access::{Principal, Scope},
        api_token,
        forwarded::TrustedProxies,
    },
    storage::Storage,
};

/// By what callers are known.
#[derive(Clone, Default)]
pub struct AccessSettings {
    /// Whether a caller must be known. Else one without a token is let in, as long as only this machine can reach the service.
    pub is_required: bool,
    /// Tokens of the operator's.
    pub file: Option<FileTokens>,
    /// The issuer of JWTs.
    pub oidc: Option<oidc::Settings>,
}

/// Knows callers.
pub struct Access {
    is_required: bool,
    file: Option<FileTokens>,
    made: MadeTokens,
    oidc: Option<Oidc>,
    turns: Turns,
}

impl Access {
    /// With what callers are known by.
    #[must_use]
    pub fn new(settings: AccessSettings, storage: Storage) -> Self {
        Self {
            is_required: settings.is_required,
            file: settings.file,
            made: MadeTokens::new(storage),
            oidc: settings.oidc.map(Oidc::new),
            turns: Turns::default(),
        }
    }

    /// Who sent a request with these headers.
    ///
    /// # Errors
    /// When nobody is known by its token, or it has none and must have one; or who it is cannot be looked up.
    pub async fn identify(
        &self,
        headers: &HeaderMap,
        address: Option<IpAddr>,
        clock: &dyn Clock,
    ) -> Result<Principal, ApiError> {
        let Some(token) = bearer(headers)? else {
            return if self.is_required { Err(ApiError::Unauthorized) } else { Ok(Principal::anybody()) };
        };
        if let Some(known) = self.file.as_ref().and_then(|file| file.principal_of(token)) {
            return Ok(known.clone());
        }
        if api_token::is_well_formed(token) {
            return self.made.principal_of(token, address, &self.turns).await;
        }
        match &self.oidc {
            Some(oidc) if oidc::is_jwt(token) => oidc.principal_of(token, clock.now()).await,
            _ => Err(ApiError::Unauthorized),
        }
    }

    /// Forgets what was remembered of a token, because it was revoked.
    pub fn forget(&self, id: Uuid) {
        self.made.forget(id);
    }
}

/// The token that a request carries; none when it carries no authorization.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        // Who is who must not depend on which of them is read.
        return Err(ApiError::Malformed("the header Authorization comes twice".to_owned()));
    }
    let text = value.to_str().map_err(|_| ApiError::Unauthorized)?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() => {
            Ok(Some(token.trim()))
        }
        _ => Err(ApiError::Unauthorized),
    }
}

/// The address that a request came from, by the word of the proxies that are trusted: else that of a proxy where there is one.
#[must_use]
pub fn address_of(request: &Request, proxies: &TrustedProxies) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<SocketAddr>>()?;
    let lines = request.headers().get_all(proxies.header.name()).iter();
    // What is no text is no address.
    Some(proxies.origin(peer.ip(), lines.map(|line| line.to_str().unwrap_or_default())))
}

impl Principal {
    /// Whether it may do what needs a scope.
    pub(in crate::api) fn require(&self, needed: Scope) -> Result<(), ApiError> {
        if self.scope >= needed {
            Ok(())
        } else {
            Err(ApiError::InsufficientScope { needed, has: self.scope })
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Principal {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let known = parts.extensions.get::<Self>().cloned();
        known.ok_or_else(|| ApiError::Internal("nobody looked who the caller is".to_owned()))
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
    use super::*;

    fn carrying(values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| (header::AUTHORIZATION, value.parse().expect("a header")));
        values.collect()
    }

    #[test]
    fn a_token_comes_once_and_as_bearer() {
        assert_eq!(bearer(&HeaderMap::new()).expect("none"), None);
        assert_eq!(bearer(&carrying(&["bearer  abc "])).expect("one"), Some("abc"));
        for wrong in [&["Basic YTpi"][..], &["Bearer"], &["Bearer "], &["abc"]] {
            assert!(matches!(bearer(&carrying(wrong)), Err(ApiError::Unauthorized)), "{wrong:?}");
        }
        assert!(matches!(bearer(&carrying(&["Bearer a", "Bearer b"])), Err(ApiError::Malformed(_))));
    }

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
