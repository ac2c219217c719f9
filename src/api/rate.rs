//! How many requests a caller may send: a minute's worth at once, then as many as a minute brings back. Every answer says how many
//! are left (`RateLimit`, `RateLimit-Policy`: draft-ietf-httpapi-ratelimit-headers).

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::keyed::HashMapStateStore,
};

use crate::domain::access::{Credential, Principal};

/// What a quota is counted by, in seconds.
const WINDOW_SECONDS: u32 = 60;

/// How many requests are counted before the callers who have been silent are forgotten.
const TIDY_EVERY: u32 = 10_000;

static RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
static RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Who is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    /// A caller whom the operator gave a name.
    Caller(String),
    /// Those who come from an address with a token that has no name: others from there use up nothing of theirs.
    Nameless(Option<IpAddr>),
    /// Everybody else who comes from an address.
    Address(IpAddr),
    /// Everybody else: the address is not known.
    Nobody,
}

impl Party {
    /// Who sent a request: by its caller's name, else by the address.
    #[must_use]
    pub fn of(principal: &Principal, address: Option<IpAddr>) -> Self {
        match (principal.caller(), &principal.credential) {
            (name, _) if !name.is_empty() => Self::Caller(name),
            (_, Credential::None) => Self::of_address(address),
            _ => Self::Nameless(address),
        }
    }

    /// Everybody who comes from an address.
    #[must_use]
    pub fn of_address(address: Option<IpAddr>) -> Self {
        address.map_or(Self::Nobody, Self::Address)
    }
}

/// What a caller has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// How many requests a minute brings.
    pub limit: NonZeroU32,
    /// How many may be sent at once now.
    pub left: u32,
    /// After how many seconds the next may be sent, when there is none left; else after how many it is the whole limit again.
    pub seconds: u64,
}

impl Allowance {
    /// Writes it into the headers of an answer.
    pub fn write(self, headers: &mut HeaderMap) {
        let limit = self.limit;
        let policy = format!("\"caller\";q={limit};w={WINDOW_SECONDS}");
        let state = format!("\"caller\";r={};t={}", self.left, self.seconds);
        for (name, value) in [(&RATE_LIMIT_POLICY, policy), (&RATE_LIMIT, state)] {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        }
    }
}

/// Whether a header says what a caller has left.
#[must_use]
pub fn is_about_allowance(name: &HeaderName) -> bool {
    *name == RATE_LIMIT || *name == RATE_LIMIT_POLICY
}

type Counts = RateLimiter<Party, HashMapStateStore<Party>, MonotonicClock, StateInformationMiddleware>;

/// Counts requests.
pub struct Rates {
    counts: Counts,
    limit: NonZeroU32,
    counted: AtomicU32,
}

impl Rates {
    /// With so many requests a minute for each.
    #[must_use]
    pub fn new(limit: NonZeroU32) -> Self {
        let counts = RateLimiter::hashmap_with_clock(Quota::per_minute(limit), MonotonicClock);
        Self { counts: counts.with_middleware(), limit, counted: AtomicU32::new(0) }
    }

    /// Counts a request; an error when there was none left.
    ///
    /// # Errors
    /// The allowance, with the time after which there is one again.
    pub fn count(&self, party: &Party) -> Result<Allowance, Allowance> {
        if self.counted.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.counts.retain_recent();
        }
        let limit = self.limit;
        match self.counts.check_key(party) {
            Ok(state) => {
                let left = state.remaining_burst_capacity();
                let used = u64::from(limit.get().saturating_sub(left));
                let seconds = (used * u64::from(WINDOW_SECONDS)).div_ceil(u64::from(limit.get()));
                Ok(Allowance { limit, left, seconds })
            }
            Err(until) => {
                let wait = until.wait_time_from(MonotonicClock.now());
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                Err(Allowance { limit, left: 0, seconds: seconds.max(1) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_by_themselves() {
        let rates = Rates::new(NonZeroU32::new(3).expect("not 0"));
        let one = Party::Caller("one".to_owned());
        let left: Vec<_> = (0..3).map(|_| rates.count(&one).expect("allowed").left).collect();
        assert_eq!(left, [2, 1, 0]);
        let refused = rates.count(&one).expect_err("none left");
        assert!((1..=20).contains(&refused.seconds) && refused.left == 0, "{refused:?}");
        assert_eq!(rates.count(&Party::Nobody).expect("another").left, 2);
    }

    #[test]
    fn what_is_left_is_written_as_the_draft_says() {
        let mut headers = HeaderMap::new();
        let limit = NonZeroU32::new(100).expect("not 0");
        Allowance { limit, left: 40, seconds: 36 }.write(&mut headers);
        assert_eq!(headers["ratelimit-policy"], "\"caller\";q=100;w=60");
        assert_eq!(headers["ratelimit"], "\"caller\";r=40;t=36");
    }
}
