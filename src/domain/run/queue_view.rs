//! How busy the targets are, as a run finds them that is about to be accepted.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{Status, Waiting, blocked::Since};

/// Of as many live runs as this a view costs little, and is looked at anew for everybody.
const SMALL: i64 = 1000;

/// How old a view of more gets before somebody looks again, and at least may be gone by.
const GOOD_FOR: TimeDelta = TimeDelta::milliseconds(200);

/// What takes longer to look at is looked at less often.
const GOOD_FOR_AT_MOST: TimeDelta = TimeDelta::seconds(10);

/// For each so many live runs a view is a millisecond older when it is time to look again: some twenty times what they take to look at.
const SEEN_A_MILLISECOND: i64 = 20;

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetView {
    /// Targets of one pool share their places.
    pub pool: String,
    /// How many runs may be active; null before a worker has said so.
    pub limit: Option<u32>,
    /// Why it cannot be reached, if that is so.
    pub unreachable: Option<Since>,
}

/// A run, as far as its place in the queue goes.
#[derive(Clone, Copy, Debug)]
pub struct Entrant<'a> {
    /// Where it is to run.
    pub compute_target: &'a str,
    /// Higher goes first.
    pub priority: i32,
    /// Whose it is.
    pub caller: &'a str,
    /// When it came.
    pub created_at: DateTime<Utc>,
}

/// All targets, who is active on them and who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueView {
    /// By name.
    pub targets: BTreeMap<String, TargetView>,
    /// Runs that are due in the queue, by pool and priority.
    pub queued: BTreeMap<(String, i32), u64>,
    /// All runs in the queue, those that wait for their next attempt as well.
    pub queued_in_all: u64,
    /// Active runs, by pool and caller.
    pub active: BTreeMap<(String, String), u64>,
    /// When a worker was last heard of.
    pub worker_seen_at: Option<DateTime<Utc>>,
    /// When it was looked at, by the database's clock.
    pub now: DateTime<Utc>,
}

impl QueueView {
    /// Whether it can be gone by for runs that come `age` after it was looked at. What is exact costs as much as there are live runs.
    #[must_use]
    pub fn is_good_after(&self, age: TimeDelta) -> bool {
        let good_for = TimeDelta::milliseconds(self.live()).clamp(GOOD_FOR, GOOD_FOR_AT_MOST);
        self.live() > SMALL && (TimeDelta::zero()..good_for).contains(&age)
    }

    /// Whether it is time to look again, so that nobody has to wait for that once it is no good any more.
    #[must_use]
    pub fn is_aging_after(&self, age: TimeDelta) -> bool {
        age >= TimeDelta::milliseconds(self.live() / SEEN_A_MILLISECOND).clamp(GOOD_FOR, GOOD_FOR_AT_MOST / 2)
    }

    fn live(&self) -> i64 {
        // So many that no run is missed fit into no database.
        i64::try_from(self.queued.values().chain(self.active.values()).sum::<u64>()).unwrap_or(i64::MAX)
    }

    /// What a new run waits for; it goes behind those of its priority. It stands in the queue from now on.
    pub fn enter(&mut self, run: Entrant<'_>, caller_limit: Option<u32>) -> Waiting {
        let target = self.targets.get(run.compute_target);
        let pool = target.map(|target| target.pool.clone());
        let (mut active, mut ahead) = (0, 0);
        if let Some(pool) = &pool {
            let is_of = |of: &String| of == pool;
            active = self.active.iter().filter(|((of, _), _)| is_of(of)).map(|(_, runs)| runs).sum();
            let first =
                self.queued.range((pool.clone(), run.priority)..).take_while(|((of, _), _)| is_of(of));
            ahead = first.map(|(_, runs)| runs).sum();
        }
        let of_caller =
            self.active.iter().filter(|((_, caller), _)| caller == run.caller).map(|(_, runs)| runs).sum();
        let waiting = Waiting {
            status: Status::Queued,
            status_since: Some(run.created_at),
            compute_target: run.compute_target.to_owned(),
            active,
            limit: target.and_then(|target| target.limit),
            ahead,
            caller: (run.caller.to_owned(), of_caller),
            caller_limit,
            queued_at: Some(run.created_at),
            not_before: None,
            waits_for: None,
            unreachable: target.and_then(|target| target.unreachable.clone()),
            node_away: None,
            worker_seen_at: self.worker_seen_at,
            now: self.now,
        };
        if let Some(pool) = pool {
            *self.queued.entry((pool, run.priority)).or_default() += 1;
        }
        waiting
    }

    /// Takes out a run that was refused after it had entered.
    pub fn leave(&mut self, run: Entrant<'_>) {
        if let Some(target) = self.targets.get(run.compute_target)
            && let Some(queued) = self.queued.get_mut(&(target.pool.clone(), run.priority))
        {
            *queued = queued.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> QueueView {
        let target = |pool: &str| TargetView { pool: pool.into(), limit: Some(2), unreachable: None };
        QueueView {
            targets: [("a".into(), target("p")), ("b".into(), target("p")), ("c".into(), target("q"))].into(),
            queued: [(("p".into(), 0), 3), (("p".into(), 5), 2), (("q".into(), 0), 7)].into(),
            queued_in_all: 12,
            active: [
                (("p".into(), "me".into()), 1),
                (("p".into(), "you".into()), 1),
                (("q".into(), "me".into()), 4),
            ]
            .into(),
            worker_seen_at: None,
            now: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    fn entrant(compute_target: &str, priority: i32) -> Entrant<'_> {
        Entrant {
            compute_target,
            priority,
            caller: "me",
            created_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    #[test]
    fn a_run_goes_behind_those_of_its_priority_and_of_its_pool() {
        let mut view = view();
        for (target, priority, ahead) in
            [("a", 0, 5), ("b", 0, 6), ("a", 5, 2), ("a", 9, 0), ("a", -1, 9), ("c", 0, 7)]
        {
            let waiting = view.enter(entrant(target, priority), None);
            assert_eq!(waiting.ahead, ahead, "{target} {priority}");
        }
        let waiting = view.enter(entrant("b", 0), Some(4));
        assert_eq!((waiting.active, waiting.limit), (2, Some(2)));
        assert_eq!((waiting.caller, waiting.caller_limit), (("me".into(), 5), Some(4)));
    }

    #[test]
    fn who_was_refused_is_before_nobody() {
        let mut view = view();
        let before = view.clone();
        view.enter(entrant("a", 5), None);
        view.leave(entrant("a", 5));
        assert_eq!(view, before);
        view.leave(entrant("made-for-it", 5));
        view.leave(entrant("a", 77));
        assert_eq!(view, before, "there is nobody to take out");
    }

    #[test]
    fn a_target_of_its_own_is_as_empty_as_can_be() {
        let waiting = view().enter(entrant("made-for-it", 0), None);
        assert_eq!((waiting.active, waiting.ahead, waiting.limit), (0, 0, None));
    }

    #[test]
    fn a_large_view_is_good_for_a_while_and_a_small_one_for_nobody_else() {
        let mut view = view();
        assert!(!view.is_good_after(TimeDelta::zero()));
        let mut with = |queued, milliseconds| {
            view.queued.insert(("p".into(), 1), queued);
            let age = TimeDelta::milliseconds(milliseconds);
            (view.is_good_after(age), view.is_aging_after(age))
        };
        assert_eq!(with(1000, 0), (true, false));
        assert_eq!(with(1000, -1), (false, false), "a clock that was set back makes no view younger");
        assert_eq!((with(1000, 199), with(1000, 200)), ((true, false), (true, true)));
        assert_eq!((with(2000, 2000), with(2000, 3000)), ((true, true), (false, true)));
        assert_eq!((with(40_000, 1999), with(40_000, 2002)), ((true, false), (true, true)));
        assert_eq!((with(1_000_000, 4999), with(1_000_000, 5000)), ((true, false), (true, true)));
        assert_eq!((with(1_000_000, 9999), with(1_000_000, 10_000)), ((true, true), (false, true)));
    }
}
