//! Requests that are being answered at once: so many in all, and a part of them of one party, so that nobody keeps everybody out.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{error::ApiError, rate::Party};

#[derive(Default)]
struct Taken {
    all: usize,
    by_party: HashMap<Party, usize>,
}

/// The places for requests that are being answered.
pub struct Crowd {
    max: usize,
    max_of_one: usize,
    taken: Mutex<Taken>,
}

/// A place, given back when it is dropped.
pub struct Place<'a> {
    crowd: &'a Crowd,
    party: Party,
}

impl Crowd {
    /// With so many places, of which one party may have a quarter.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, max_of_one: max / 4, taken: Mutex::default() }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Counts are whole, whoever panicked.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a request of this party.
    ///
    /// # Errors
    /// When there is none, or the party has as many as it may.
    pub fn enter(&self, party: &Party) -> Result<Place<'_>, ApiError> {
        let mut taken = self.taken();
        if taken.by_party.get(party).is_some_and(|own| *own >= self.max_of_one) {
            return Err(ApiError::TooManyAtOnce { limit: self.max_of_one });
        }
        if taken.all >= self.max {
            return Err(ApiError::Busy);
        }
        taken.all += 1;
        *taken.by_party.entry(party.clone()).or_default() += 1;
        Ok(Place { crowd: self, party: party.clone() })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut taken = self.crowd.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_party.get_mut(&self.party) {
            *own -= 1;
            if *own == 0 {
                taken.by_party.remove(&self.party);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_more_than_a_quarter_and_all_together_no_more_than_there_is() {
        let crowd = Crowd::new(8);
        let party = |name: &str| Party::Caller(name.to_owned());
        let enter = |name: &str| crowd.enter(&party(name));
        let first: Vec<_> = (0..2).map(|_| enter("one").expect("a place")).collect();
        assert!(matches!(enter("one"), Err(ApiError::TooManyAtOnce { limit: 2 })));
        let others: Vec<_> =
            ["two", "three", "four"].iter().flat_map(|name| [enter(name), enter(name)]).collect();
        assert!(others.iter().all(Result::is_ok));
        assert!(matches!(enter("five"), Err(ApiError::Busy)));
        drop(first);
        assert!(enter("five").is_ok() && enter("one").is_ok());
        drop(others);
        assert!(crowd.taken().by_party.is_empty() && crowd.taken().all == 0);
    }
}
