//! The keys of an issuer: fetched when they are needed, kept for a while, fetched anew when a token names one that is not among them.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse},
};
use reqwest::{Client, redirect::Policy};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::{Mutex, OnceCell, RwLock};
use url::Url;

use crate::{api::error::ApiError, domain::oidc::is_trustworthy};

/// After which keys are fetched anew: so long a key that the issuer has withdrawn is still good.
const FRESH: TimeDelta = TimeDelta::minutes(10);
/// For how long keys are good when the issuer does not answer.
const KEPT: TimeDelta = TimeDelta::hours(24);
/// Between two fetches because of a key that is not known: tokens that are made up must not have the issuer asked each time.
const PAUSE: TimeDelta = TimeDelta::seconds(10);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A hundred keys have a tenth of it.
const MAX_BYTES: usize = 1 << 20;

struct Fetched {
    keys: Arc<JwkSet>,
    at: DateTime<Utc>,
}

/// The keys of one issuer.
pub(super) struct Keys {
    issuer: String,
    given: Option<Url>,
    client: OnceCell<Client>,
    fetched: RwLock<Option<Fetched>>,
    /// When they were last asked for, whether or not they came. Held while somebody asks: the others wait for that.
    asked: Mutex<Option<DateTime<Utc>>>,
}

/// What an issuer says of itself (OpenID Connect Discovery).
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    pub(super) fn new(issuer: String, given: Option<Url>) -> Self {
        let (client, fetched, asked) = (OnceCell::new(), RwLock::default(), Mutex::default());
        Self { issuer, given, client, fetched, asked }
    }

    /// The one key of this name that fits; none when the issuer has none, or several.
    ///
    /// # Errors
    /// When the issuer's keys are not known.
    pub(super) async fn find(
        &self,
        kid: &str,
        now: DateTime<Utc>,
        fits: impl Fn(&Jwk) -> bool,
    ) -> Result<Option<Jwk>, ApiError> {
        let look = |keys: &JwkSet| {
            let named = keys.keys.iter().filter(|key| key.common.key_id.as_deref() == Some(kid));
            let mut fitting = named.filter(|key| fits(key));
            let first = fitting.next().cloned();
            // Which of two is meant must not depend on their order.
            if fitting.next().is_some() { None } else { first }
        };
        let known = self.known(now, FRESH).await;
        if let Some(found) = known.as_deref().and_then(look) {
            return Ok(Some(found));
        }
        self.ask(now, known.is_none()).await;
        match self.known(now, KEPT).await {
            Some(keys) => Ok(look(&keys)),
            None => Err(ApiError::IssuerUnavailable),
        }
    }

    async fn known(&self, now: DateTime<Utc>, age: TimeDelta) -> Option<Arc<JwkSet>> {
        let fetched = self.fetched.read().await;
        fetched.as_ref().filter(|fetched| now - fetched.at < age).map(|fetched| Arc::clone(&fetched.keys))
    }

    /// Asks the issuer, unless somebody did a moment ago.
    async fn ask(&self, now: DateTime<Utc>, is_stale: bool) {
        let mut asked = self.asked.lock().await;
        let is_early = asked.is_some_and(|asked| now - asked < PAUSE);
        // Who waited for the lock finds what was fetched meanwhile.
        if is_early || (is_stale && self.known(now, FRESH).await.is_some()) {
            return;
        }
        *asked = Some(now);
        match self.fetch().await {
            Ok(keys) => *self.fetched.write().await = Some(Fetched { keys: Arc::new(keys), at: now }),
            Err(why) => tracing::warn!("the keys of the issuer {} cannot be fetched: {why}", self.issuer),
        }
    }

    async fn fetch(&self) -> Result<JwkSet, String> {
        let address = match &self.given {
            Some(address) => address.clone(),
            None => {
                let base = self.issuer.trim_end_matches('/');
                let place = format!("{base}/.well-known/openid-configuration");
                let place = Url::parse(&place).map_err(|error| error.to_string())?;
                let found: Discovered = self.get(place).await?;
                if found.issuer != self.issuer {
                    return Err(format!("it calls itself {}", found.issuer));
                }
                let address = Url::parse(&found.jwks_uri).map_err(|error| error.to_string())?;
                if !is_trustworthy(&address) {
                    return Err(format!("its keys are at {address}, which anybody on the way could change"));
                }
                address
            }
        };
        self.get(address).await
    }

    async fn get<T: DeserializeOwned>(&self, address: Url) -> Result<T, String> {
        let client = self.client.get_or_try_init(|| async { client() }).await?;
        let said = |error: reqwest::Error| error.without_url().to_string();
        let mut response = client.get(address).send().await.map_err(said)?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(said)? {
            body.extend_from_slice(&part);
            if body.len() > MAX_BYTES {
                return Err(format!("its answer has more than {MAX_BYTES} bytes"));
            }
        }
        serde_json::from_slice(&body).map_err(|error| error.to_string())
    }
}

fn client() -> Result<Client, String> {
    // Another part of the process may have installed it before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::builder()
        .user_agent(concat!("estimatord/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .redirect(Policy::none());
    client.build().map_err(|error| error.to_string())
}

/// Whether a key is there to verify signatures of an algorithm.
pub(super) fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let common = &key.common;
    let is_for_signatures =
        common.public_key_use.as_ref().is_none_or(|what| *what == PublicKeyUse::Signature);
    let may_verify =
        common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let is_the_algorithm =
        common.key_algorithm.is_none_or(|named| named.to_string() == format!("{algorithm:?}"));
    let is_of_the_kind = match &key.algorithm {
        AlgorithmParameters::RSA(_) => algorithm.family() == AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(parameters) => matches!(
            (&parameters.curve, algorithm),
            (EllipticCurve::P256, Algorithm::ES256) | (EllipticCurve::P384, Algorithm::ES384)
        ),
        AlgorithmParameters::OctetKeyPair(_) => algorithm.family() == AlgorithmFamily::Ed,
        // A shared secret has no place among public keys.
        _ => false,
    };
    is_for_signatures && may_verify && is_the_algorithm && is_of_the_kind
}
