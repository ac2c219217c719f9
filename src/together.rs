//! Work that is asked for at the same time is done together: whoever comes while it is being done for others shares the next turn.
//! Nobody waits for others to come; under load there are some.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
    vec,
};

use tokio::sync::{Semaphore, oneshot};

/// Work that costs less for many than for each.
pub trait Work: Send + Sync + 'static {
    /// What it is done for.
    type Item: Send + Sync + 'static;
    /// What comes of it.
    type Done: Send + 'static;

    /// Does it for all; answers in their order. None when it cannot be done together, and nothing was done: it is then done for each.
    fn for_all(&self, items: &[Self::Item]) -> impl Future<Output = Option<Vec<Self::Done>>> + Send;

    /// Does it for one.
    fn for_one(&self, item: Self::Item) -> impl Future<Output = Self::Done> + Send;
}

/// Whoever did it panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was being done for several requests together was broken off")]
pub struct BrokenOff;

/// Does work together.
pub struct Together<W: Work>(Arc<Shared<W>>);

/// Why it was not done in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotDone {
    /// It was begun.
    #[error(transparent)]
    BrokenOff(#[from] BrokenOff),
    /// Nothing was done, and nothing will be.
    #[error("there was no turn in time")]
    NoTurn,
}

/// With the number that it has among all who came.
type Asked<W> = (u64, <W as Work>::Item, oneshot::Sender<<W as Work>::Done>);

struct Shared<W: Work> {
    work: W,
    waiting: Mutex<Waiting<W>>,
    turns: Semaphore,
    most: usize,
}

/// Those who have asked and whose turn has not begun.
struct Waiting<W: Work> {
    asked: Vec<Asked<W>>,
    /// How many have come.
    come: u64,
    /// Whether somebody is about to take a turn for them.
    are_looked_after: bool,
}

impl<W: Work> Together<W> {
    /// `most` at once, in `turns` turns at the same time.
    pub fn new(work: W, most: usize, turns: usize) -> Self {
        let waiting = Mutex::new(Waiting { asked: Vec::new(), come: 0, are_looked_after: false });
        Self(Arc::new(Shared { work, waiting, turns: Semaphore::new(turns), most }))
    }

    /// Does it for this one, and whoever else is there. It is done also when the caller goes away.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn done_for(&self, item: W::Item) -> Result<W::Done, BrokenOff> {
        self.ask(item).1.await.map_err(|_| BrokenOff)
    }

    /// The same for whoever waits no longer than this for a turn to begin. One that has begun is waited for.
    ///
    /// # Errors
    /// When there was no turn in time, or it panicked.
    pub async fn done_in_time(&self, item: W::Item, patience: Duration) -> Result<W::Done, NotDone> {
        let (number, mut answer) = self.ask(item);
        let answered = match tokio::time::timeout(patience, &mut answer).await {
            Ok(answered) => answered,
            Err(_) if self.0.forget(number) => return Err(NotDone::NoTurn),
            Err(_) => answer.await,
        };
        Ok(answered.map_err(|_| BrokenOff)?)
    }

    fn ask(&self, item: W::Item) -> (u64, oneshot::Receiver<W::Done>) {
        let (done, answer) = oneshot::channel();
        let (number, is_first) = {
            let mut waiting = self.0.waiting();
            let number = waiting.come;
            waiting.come += 1;
            waiting.asked.push((number, item, done));
            (number, !std::mem::replace(&mut waiting.are_looked_after, true))
        };
        if is_first {
            self.0.look_after();
        }
        (number, answer)
    }
}

impl<W: Work> Shared<W> {
    fn waiting(&self) -> MutexGuard<'_, Waiting<W>> {
        // Every entry is whole, whoever panicked.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it was still waiting for its turn; it is not any more.
    fn forget(&self, number: u64) -> bool {
        let asked = &mut self.waiting().asked;
        let place = asked.iter().position(|(of, ..)| *of == number);
        place.map(|place| asked.remove(place)).is_some()
    }

    fn look_after(self: &Arc<Self>) {
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.take_turn().await });
    }

    async fn take_turn(self: Arc<Self>) {
        // It is never closed.
        let Ok(_turn) = self.turns.acquire().await else { return };
        let (taken, are_left) = {
            let mut waiting = self.waiting();
            let count = waiting.asked.len().min(self.most);
            let taken: Vec<Asked<W>> = waiting.asked.drain(..count).collect();
            waiting.are_looked_after = !waiting.asked.is_empty();
            (taken, waiting.are_looked_after)
        };
        if are_left {
            self.look_after();
        }
        let (mut items, senders): (Vec<_>, Vec<_>) =
            taken.into_iter().map(|(_, item, sender)| (item, sender)).unzip();
        if items.len() > 1
            && let Some(done) = self.work.for_all(&items).await
        {
            return answer(senders, done);
        }
        let each = items.drain(..).map(|item| self.work.for_one(item));
        answer(senders, futures_util::future::join_all(each).await);
    }
}

fn answer<D>(senders: Vec<oneshot::Sender<D>>, done: Vec<D>) {
    let mut done: vec::IntoIter<D> = done.into_iter();
    for (sender, done) in senders.into_iter().zip(done.by_ref()) {
        // Whoever went away does not want to know.
        let _ = sender.send(done);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Doubles numbers; together only when none of them is 13.
    #[derive(Default)]
    struct Doubles {
        together: AtomicUsize,
        alone: AtomicUsize,
    }

    impl Work for Arc<Doubles> {
        type Item = u32;
        type Done = u32;

        async fn for_all(&self, items: &[u32]) -> Option<Vec<u32>> {
            tokio::task::yield_now().await;
            self.together.fetch_add(1, Ordering::Relaxed);
            (!items.contains(&13)).then(|| items.iter().map(|item| item * 2).collect())
        }

        async fn for_one(&self, item: u32) -> u32 {
            tokio::task::yield_now().await;
            self.alone.fetch_add(1, Ordering::Relaxed);
            item * 2
        }
    }

    async fn all(together: &Together<Arc<Doubles>>, numbers: std::ops::Range<u32>) -> Vec<u32> {
        let each = numbers.map(|number| together.done_for(number));
        futures_util::future::try_join_all(each).await.unwrap()
    }

    #[tokio::test]
    async fn those_who_come_together_are_served_together_and_each_gets_its_own() {
        let work = Arc::<Doubles>::default();
        let together = Together::new(Arc::clone(&work), 4, 1);
        assert_eq!(all(&together, 0..10).await, (0..10).map(|number| number * 2).collect::<Vec<_>>());
        assert_eq!((work.together.load(Ordering::Relaxed), work.alone.load(Ordering::Relaxed)), (3, 0));
        assert_eq!(together.done_for(7).await, Ok(14));
        assert_eq!((work.together.load(Ordering::Relaxed), work.alone.load(Ordering::Relaxed)), (3, 1));
    }

    #[tokio::test]
    async fn what_cannot_be_done_together_is_done_for_each() {
        let work = Arc::<Doubles>::default();
        let together = Together::new(Arc::clone(&work), 100, 1);
        assert_eq!(all(&together, 10..15).await, [20, 22, 24, 26, 28]);
        assert_eq!((work.together.load(Ordering::Relaxed), work.alone.load(Ordering::Relaxed)), (1, 5));
    }

    #[tokio::test]
    async fn it_is_done_although_who_asked_went_away() {
        let work = Arc::<Doubles>::default();
        let together = Together::new(Arc::clone(&work), 100, 1);
        let mut asked = Box::pin(together.done_for(1));
        assert!(futures_util::poll!(&mut asked).is_pending());
        drop(asked);
        assert_eq!(together.done_for(2).await, Ok(4));
        let done = work.together.load(Ordering::Relaxed) * 2 + work.alone.load(Ordering::Relaxed);
        assert_eq!(done, 2);
    }

    /// Says when it has begun, and goes on when it is let.
    struct Held {
        begun: Semaphore,
        go_on: Semaphore,
        done: AtomicUsize,
    }

    impl Default for Held {
        fn default() -> Self {
            Self { begun: Semaphore::new(0), go_on: Semaphore::new(0), done: AtomicUsize::new(0) }
        }
    }

    impl Work for Arc<Held> {
        type Item = ();
        type Done = ();

        async fn for_all(&self, _: &[()]) -> Option<Vec<()>> {
            None
        }

        async fn for_one(&self, (): ()) {
            self.begun.add_permits(1);
            self.go_on.acquire().await.expect("it is not closed").forget();
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[tokio::test]
    async fn who_gets_no_turn_in_time_is_told_and_nothing_is_done_for_them_later() {
        let work = Arc::<Held>::default();
        let together = Arc::new(Together::new(Arc::clone(&work), 100, 1));
        let first = tokio::spawn({
            let together = Arc::clone(&together);
            async move { together.done_for(()).await }
        });
        work.begun.acquire().await.expect("it is not closed").forget();
        assert_eq!(together.done_in_time((), Duration::ZERO).await, Err(NotDone::NoTurn));
        work.go_on.add_permits(10);
        assert_eq!(first.await.expect("no panic"), Ok(()));
        assert_eq!(together.done_in_time((), Duration::from_secs(60)).await, Ok(()));
        assert_eq!(work.done.load(Ordering::Relaxed), 2, "nothing for the one without a turn");
    }
}
