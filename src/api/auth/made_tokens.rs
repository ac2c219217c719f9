//! Tokens that the service made: looked up in the database, and remembered for a moment.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::turns::Turns;
use crate::{
    api::error::ApiError,
    domain::{
        access::{Credential, Principal},
        api_token::{TokenDigest, digest},
    },
    storage::Storage,
};

/// How long a token is good without the database being asked again: so late a revocation takes effect on other replicas.
const MEMORY: Duration = Duration::from_secs(5);
/// How often its use is noted, which the database keeps to the minute.
const NOTED_EVERY: Duration = Duration::from_secs(60);
/// Far more than an installation has; whoever has more asks the database more often.
const MAX_REMEMBERED: usize = 10_000;

struct Remembered {
    principal: Principal,
    until: Instant,
    noted: Instant,
}

/// Knows callers by the tokens that they were given.
pub(super) struct MadeTokens {
    storage: Storage,
    remembered: Mutex<HashMap<TokenDigest, Remembered>>,
}

impl MadeTokens {
    pub(super) fn new(storage: Storage) -> Self {
        Self { storage, remembered: Mutex::default() }
    }

    fn remembered(&self) -> MutexGuard<'_, HashMap<TokenDigest, Remembered>> {
        // Every entry is whole, whoever panicked.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose token it is. One that is not remembered is looked up when it is its `turn`.
    ///
    /// # Errors
    /// When it is nobody's, or no more; when too many are looked up; when the database fails.
    pub(super) async fn principal_of(
        &self,
        token: &str,
        address: Option<IpAddr>,
        turns: &Turns,
    ) -> Result<Principal, ApiError> {
        let digest = digest(token);
        let (mut noted, mut turn) = (None, None);
        if let Some(known) = self.remembered().get(&digest) {
            if known.until > Instant::now() {
                return Ok(known.principal.clone());
            }
            noted = Some(known.noted);
        }
        if noted.is_none() {
            turn = Some(turns.take().await?);
        }
        let found = self.storage.good_api_token(&digest).await?;
        drop(turn);
        let Some(token) = found else {
            self.remembered().remove(&digest);
            return Err(ApiError::Unauthorized);
        };
        let now = Instant::now();
        let noted = match noted.filter(|noted| now - *noted < NOTED_EVERY) {
            Some(noted) => noted,
            None => {
                let address = address.map(|address| address.to_string());
                if let Err(error) = self.storage.note_api_token_use(token.id, address.as_deref()).await {
                    tracing::warn!(token.id = %token.id, "the use of a token was not noted: {error}");
                }
                now
            }
        };
        let principal = Principal {
            name: token.name.as_str().to_owned(),
            project: token.project,
            scope: token.scope,
            credential: Credential::Token(token.id),
        };
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED {
            remembered.retain(|_, known| known.until > now);
        }
        if remembered.len() < MAX_REMEMBERED {
            let known = Remembered { principal: principal.clone(), until: now + MEMORY, noted };
            remembered.insert(digest, known);
        }
        Ok(principal)
    }

    /// Asks anew about a token.
    pub(super) fn forget(&self, id: Uuid) {
        self.remembered().retain(|_, known| known.principal.credential != Credential::Token(id));
    }
}
