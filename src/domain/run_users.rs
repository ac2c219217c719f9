//! The users that runs are given: a range of user ids that nobody else has, one for each attempt.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Below are the accounts of a machine's own services.
const LOWEST: u32 = 1000;
/// `nobody`, and what 16 bits take for no user at all.
const RESERVED: [u32; 2] = [65_534, 65_535];

/// User ids, first and last included. Each is a group id as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRange {
    first: u32,
    last: u32,
}

/// What an operator says of the users of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunUsers {
    /// Runs have the service's own user.
    OfTheService,
    /// Each attempt has one of these.
    Own(UserRange),
}

/// Why a text names no users for runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// It has another form.
    #[error("expected FIRST-LAST, two user ids such as 70000-79999, or none")]
    Form,
    /// Nobody is in it.
    #[error("the first user id is above the last")]
    Empty,
    /// It has ids in it that are somebody's on every machine.
    #[error("user ids below {LOWEST} and the ids 65534 and 65535 are somebody's on every machine")]
    Reserved,
}

impl UserRange {
    /// What runs get where nobody says: no distribution gives these ids to anybody. Accounts end at 60,000, systemd's own users at
    /// 65,519, and what users of containers are mapped to begins at 100,000 (subordinate ids) or later; directory services map
    /// theirs from 200,000 on. As many as a service may have runs.
    pub const DEFAULT: Self = Self { first: 70_000, last: 79_999 };

    /// The range of these ids.
    ///
    /// # Errors
    /// When it is empty, or has ids in it that are somebody's.
    pub fn new(first: u32, last: u32) -> Result<Self, RangeError> {
        if first > last {
            return Err(RangeError::Empty);
        }
        let range = Self { first, last };
        // The very last id means "unchanged" where ids are set.
        if first < LOWEST || last == u32::MAX || RESERVED.iter().any(|id| range.contains(*id)) {
            return Err(RangeError::Reserved);
        }
        Ok(range)
    }

    /// The first id.
    #[must_use]
    pub const fn first(self) -> u32 {
        self.first
    }

    /// Whether an id is one of these.
    #[must_use]
    pub const fn contains(self, id: u32) -> bool {
        self.first <= id && id <= self.last
    }

    /// An id that is not taken: the first from a place in the range on that the seed tells, so that an id which was just given
    /// back is not the next one given. `None` when all are taken.
    pub fn choose(self, seed: u64, is_taken: impl Fn(u32) -> bool) -> Option<u32> {
        let count = u64::from(self.last - self.first) + 1;
        // Below the count, which fits 33 bits, and from the first on below the last.
        let nth = |n: u64| self.first + u32::try_from((seed % count + n) % count).unwrap_or(0);
        (0..count).map(nth).find(|id| !is_taken(*id))
    }

    /// Somebody on this machine who has one of these ids: name and id, from the lines of `passwd(5)` or `group(5)`.
    #[must_use]
    pub fn occupant(self, accounts: &str) -> Option<(String, u32)> {
        accounts.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?, fields.nth(1)?.parse().ok()?);
            self.contains(id).then(|| (name.to_owned(), id))
        })
    }

    /// Whose subordinate ids, which containers of that user run as, are among these, from the lines of `subuid(5)`.
    #[must_use]
    pub fn subordinate(self, ranges: &str) -> Option<String> {
        ranges.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, first) = (fields.next()?, fields.next()?.parse::<u64>().ok()?);
            let count = fields.next()?.trim().parse::<u64>().ok()?;
            let overlaps =
                first <= u64::from(self.last) && u64::from(self.first) < first.saturating_add(count);
            overlaps.then(|| name.to_owned())
        })
    }
}

impl fmt::Display for UserRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for RunUsers {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if text == "none" {
            return Ok(Self::OfTheService);
        }
        let (first, last) = text.split_once('-').ok_or(RangeError::Form)?;
        let id = |text: &str| text.trim().parse::<u32>().map_err(|_| RangeError::Form);
        Ok(Self::Own(UserRange::new(id(first)?, id(last)?)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Result<UserRange, RangeError> {
        match text.parse()? {
            RunUsers::Own(range) => Ok(range),
            RunUsers::OfTheService => panic!("no range"),
        }
    }

    #[test]
    fn a_range_is_read_and_others_ids_are_refused() {
        assert_eq!(range("70000-79999"), Ok(UserRange::DEFAULT));
        assert_eq!(UserRange::DEFAULT.to_string(), "70000-79999");
        assert_eq!("none".parse(), Ok(RunUsers::OfTheService));
        for (text, error) in [
            ("70000", RangeError::Form),
            ("a-b", RangeError::Form),
            ("-1-5", RangeError::Form),
            ("79999-70000", RangeError::Empty),
            ("0-70000", RangeError::Reserved),
            ("999-2000", RangeError::Reserved),
            ("60000-70000", RangeError::Reserved),
            ("70000-4294967295", RangeError::Reserved),
        ] {
            assert_eq!(range(text), Err(error), "{text}");
        }
    }

    #[test]
    fn whoever_is_free_is_chosen_and_nobody_twice() {
        let small = UserRange::new(70_000, 70_002).unwrap();
        let mut taken = Vec::new();
        for _ in 0..3 {
            let chosen = small.choose(7, |id| taken.contains(&id)).unwrap();
            assert!(small.contains(chosen) && !taken.contains(&chosen));
            taken.push(chosen);
        }
        assert_eq!(taken[0], 70_001, "7 % 3");
        assert_eq!(small.choose(7, |id| taken.contains(&id)), None);
        let all = UserRange::new(65_536, u32::MAX - 1).unwrap();
        assert!(all.contains(all.choose(u64::MAX, |_| false).unwrap()));
    }

    #[test]
    fn accounts_in_the_range_are_found() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbuild:x:70100:100::/:/bin/sh\n";
        assert_eq!(UserRange::DEFAULT.occupant(passwd), Some(("build".to_owned(), 70_100)));
        assert_eq!(UserRange::DEFAULT.occupant("root:x:0:0::/:/bin/sh\n+\n"), None);
        let default = UserRange::DEFAULT;
        assert_eq!(default.subordinate("ann:100000:65536\n"), None);
        assert_eq!(default.subordinate("ann:10000:60001\n"), Some("ann".to_owned()));
        assert_eq!(default.subordinate("ann:10000:60000\n"), None);
    }
}
