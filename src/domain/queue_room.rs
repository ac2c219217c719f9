//! How much room a queue has, as far as that is known without counting it for every run that comes.

use chrono::{DateTime, TimeDelta, Utc};

/// How many replicas may go by one count without the queue getting longer than it may.
const REPLICAS: u32 = 8;

/// How long a count is gone by. Others count too, and add: together they may exceed the limit by what they add in this time.
const GOOD_FOR: TimeDelta = TimeDelta::milliseconds(200);

/// A long queue takes longer to count, and is counted less often.
const GOOD_FOR_AT_MOST: TimeDelta = TimeDelta::seconds(10);

/// For each so many queued runs a count is good for a millisecond: some hundred times what they take to count.
const COUNTED_A_MILLISECOND: u32 = 5;

/// What is left of the room that a count has shown.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueRoom {
    left: u32,
    counted_at: DateTime<Utc>,
    good_for: TimeDelta,
}

impl QueueRoom {
    /// After a count: of `limit` runs that may be queued, `queued` are. A share of the room can be filled before it is counted again;
    /// none where less than `reserve` is left, which others may be filling at this moment.
    #[must_use]
    pub fn counted(queued: u32, limit: u32, reserve: u32, now: DateTime<Utc>) -> Self {
        let room = limit.saturating_sub(queued).saturating_sub(reserve);
        let by_length = TimeDelta::milliseconds((queued / COUNTED_A_MILLISECOND).into());
        Self { left: room / REPLICAS, counted_at: now, good_for: by_length.clamp(GOOD_FOR, GOOD_FOR_AT_MOST) }
    }

    /// The same after places were taken that the count may not have seen.
    #[must_use]
    pub const fn without(self, places: u32) -> Self {
        Self { left: self.left.saturating_sub(places), ..self }
    }

    /// Takes places; whether there are so many for certain. If not, the queue has to be counted.
    pub fn takes(&mut self, places: u32, now: DateTime<Utc>) -> bool {
        // A clock that was set back makes no count younger.
        let is_fresh = (TimeDelta::zero()..self.good_for).contains(&(now - self.counted_at));
        let fits = is_fresh && places <= self.left;
        if fits {
            self.left -= places;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(1_800_000_000_000 + milliseconds).unwrap()
    }

    #[test]
    fn a_count_is_good_for_a_share_of_the_room_and_a_while() {
        let mut room = QueueRoom::counted(1000, 10_000, 200, at(0));
        assert!(room.takes(1100, at(0)) && !room.takes(1, at(0)));
        let mut room = QueueRoom::counted(1000, 10_000, 200, at(0));
        assert!(room.takes(1, at(199)) && !room.takes(1, at(200)) && !room.takes(1, at(-500)));
        let mut long = QueueRoom::counted(2500, 1_000_000, 200, at(0));
        assert!(long.takes(1, at(499)) && !long.takes(1, at(500)) && !long.takes(1, at(-1)));
        let mut longest = QueueRoom::counted(1_000_000, 2_000_000, 200, at(0));
        assert!(longest.takes(1, at(9999)) && !longest.takes(1, at(10_000)));
        let mut seen_later = QueueRoom::counted(1000, 10_000, 200, at(0)).without(1000);
        assert!(seen_later.takes(100, at(0)) && !seen_later.takes(1, at(0)));
        assert!(!QueueRoom::counted(1000, 10_000, 200, at(0)).without(5000).takes(1, at(0)));
        assert!(
            !QueueRoom::counted(9900, 10_000, 200, at(0)).takes(1, at(0)),
            "near the limit every run is counted"
        );
        assert!(!QueueRoom::default().takes(1, at(0)), "nothing was counted");
    }

    proptest! {
        /// Eight replicas count at the same moment and then fill what they may: never more than the limit.
        #[test]
        fn replicas_that_go_by_one_count_stay_below_the_limit(queued in 0_u32..20_000, limit in 0_u32..20_000, steps in prop::collection::vec((0_usize..8, 1_u32..50), 0..500)) {
            let mut rooms = [QueueRoom::counted(queued, limit, 256, at(0)); 8];
            let mut all = queued;
            for (replica, places) in steps {
                if rooms[replica].takes(places, at(1)) {
                    all += places;
                }
            }
            prop_assert!(all <= limit.max(queued));
        }
    }
}
