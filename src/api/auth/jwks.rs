//! The keys of an issuer: fetched when they are needed, kept for a while, fetched anew when a token names one that is not among them.

use std::{
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{
    Algorithm, AlgorithmFamily,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyOperations, PublicKeyUse},
};
use reqwest::{Client, redirect::Policy};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::sync::{OnceCell, watch};
use url::Url;

use crate::{api::error::ApiError, domain::oidc::is_trustworthy};

/// After which keys are fetched anew when they are next needed: so long, and until that has been answered, a key that the issuer has
/// withdrawn is still good.
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
    asking: Mutex<Asking>,
}

#[derive(Default)]
struct Asking {
    /// When they were last asked for, whether or not they came.
    at: Option<DateTime<Utc>>,
    /// Ends when the last fetch has.
    under_way: Option<watch::Receiver<()>>,
}

/// What an issuer says of itself (OpenID Connect Discovery).
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Keys {
    pub(super) fn new(issuer: String, given: Option<Url>) -> Self {
        let (client, fetched, asking) = (OnceCell::new(), RwLock::default(), Mutex::default());
        Self { issuer, given, client, fetched, asking }
    }

    /// The key of this name, if it fits; none when the issuer has none, or several. Whoever names a key that is known is not kept
    /// waiting by an issuer that is slow, also when the keys are to be fetched anew; whoever names another waits for the fetch that is
    /// under way.
    ///
    /// # Errors
    /// When the issuer's keys are not known.
    pub(super) async fn find(
        self: &Arc<Self>,
        kid: &str,
        now: DateTime<Utc>,
        fits: impl Fn(&Jwk) -> bool,
    ) -> Result<Option<Jwk>, ApiError> {
        let look = |keys: &JwkSet| {
            let mut named = keys.keys.iter().filter(|key| key.common.key_id.as_deref() == Some(kid));
            match (named.next(), named.next()) {
                (Some(only), None) => Some(only).filter(|key| fits(key)).cloned(),
                // Which of two is meant must not depend on anything but the name.
                _ => None,
            }
        };
        if let Some(found) = self.known(now, FRESH).as_deref().and_then(look) {
            return Ok(Some(found));
        }
        let under_way = self.ask(now);
        if let Some(found) = self.known(now, KEPT).as_deref().and_then(look) {
            return Ok(Some(found));
        }
        if let Some(mut under_way) = under_way {
            // Nothing is ever sent: it ends with the fetch.
            while under_way.changed().await.is_ok() {}
        }
        match self.known(now, KEPT) {
            Some(keys) => Ok(look(&keys)),
            None => Err(ApiError::IssuerUnavailable),
        }
    }

    fn known(&self, now: DateTime<Utc>, age: TimeDelta) -> Option<Arc<JwkSet>> {
        // What is in it is whole, whoever panicked.
        let fetched = self.fetched.read().unwrap_or_else(PoisonError::into_inner);
        fetched.as_ref().filter(|fetched| now - fetched.at < age).map(|fetched| Arc::clone(&fetched.keys))
    }

    /// Has the issuer asked, unless it is being asked or was a moment ago. The answer ends when the asking that is under way has; none
    /// when none is.
    fn ask(self: &Arc<Self>, now: DateTime<Utc>) -> Option<watch::Receiver<()>> {
        let mut asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(under_way) = asking.under_way.as_ref().filter(|fetch| fetch.has_changed().is_ok()) {
            return Some(under_way.clone());
        }
        if asking.at.is_some_and(|at| now - at < PAUSE) {
            return None;
        }
        let (ends, under_way) = watch::channel(());
        *asking = Asking { at: Some(now), under_way: Some(under_way.clone()) };
        let this = Arc::clone(self);
        // It goes on when whoever had it begun goes away.
        tokio::spawn(async move {
            this.refresh(now).await;
            drop(ends);
        });
        Some(under_way)
    }

    async fn refresh(&self, now: DateTime<Utc>) {
        match self.fetch().await {
            Ok(keys) => {
                let fetched = Some(Fetched { keys: Arc::new(keys), at: now });
                *self.fetched.write().unwrap_or_else(PoisonError::into_inner) = fetched;
            }
            Err(why) => tracing::warn!("the keys of the issuer {} cannot be fetched: {why}", self.issuer),
        }
    }

    /// Asks the issuer.
    pub(super) async fn fetch(&self) -> Result<JwkSet, String> {
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
