//! One look for all who watch the same thing. However many follow a run's events or one of its logs, the database is asked
//! once a round, each part of a log is read and written out once, and all of them send the same bytes. Everybody has a place of
//! their own: who is slow holds nobody up.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use axum::body::Bytes;
use tokio::{sync::watch, task::AbortHandle};

use super::error::ApiError;
use crate::{
    domain::{ids::RunId, run::Status},
    storage::{Storage, StorageError},
};

/// How often the database is asked whether there is more.
const POLL: Duration = Duration::from_millis(250);

/// How long it is left alone when it does not answer.
const POLL_IN_TROUBLE: Duration = Duration::from_secs(2);

/// How many parts are kept for those who come to them a little later.
const KEPT_PIECES: usize = 8;

/// What is watched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The status and the events of a run.
    Run(RunId),
    /// A log of an attempt of a run; attempt 0 stands for the first that there will be.
    Log(LogName),
}

/// Which log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogName {
    /// Of which run.
    pub run: RunId,
    /// Of which attempt.
    pub attempt: u32,
    /// Its path.
    pub name: String,
}

impl Topic {
    const fn run(&self) -> RunId {
        match self {
            Self::Run(run) => *run,
            Self::Log(log) => log.run,
        }
    }
}

/// What the last look saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The run's status.
    pub status: Status,
    /// The attempt whose log it is, or the run's present one.
    pub attempt: u32,
    /// The run's present attempt.
    pub latest: u32,
    /// How many bytes the log has, or how many events the run.
    pub end: u64,
    /// Whether nothing will be added.
    pub over: bool,
}

/// How a part is written out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The bytes as they are.
    Plain,
    /// Server-sent events.
    Events,
}

/// A part of what is followed, as it is sent.
#[derive(Clone, Debug)]
pub struct Piece {
    start: u64,
    format: Format,
    /// Where the next part begins.
    pub next: u64,
    /// What is sent; shared by all who send it.
    pub bytes: Bytes,
}

/// What is watched by somebody now.
#[derive(Default)]
pub struct Feeds(Mutex<HashMap<Topic, Weak<Feed>>>);

/// One thing that is watched. The looking ends when the last who holds it lets go.
pub struct Feed {
    seen: watch::Sender<Option<Seen>>,
    pieces: tokio::sync::Mutex<VecDeque<Piece>>,
    looking: Mutex<Option<AbortHandle>>,
}

impl Feeds {
    /// The feed of a topic: that of the others who watch it, or a new one.
    pub fn join(&self, storage: &Storage, topic: &Topic) -> Arc<Feed> {
        let mut feeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = feeds.get(topic).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed {
            seen: watch::Sender::new(None),
            pieces: tokio::sync::Mutex::default(),
            looking: Mutex::default(),
        });
        feeds.insert(topic.clone(), Arc::downgrade(&feed));
        let looking = tokio::spawn(look(storage.clone(), topic.clone(), Arc::downgrade(&feed)));
        *feed.looking.lock().unwrap_or_else(PoisonError::into_inner) = Some(looking.abort_handle());
        feed
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(looking) = self.looking.get_mut().unwrap_or_else(PoisonError::into_inner) {
            looking.abort();
        }
    }
}

impl Feed {
    /// What every look sees from now on; none before the first.
    pub fn watch(&self) -> watch::Receiver<Option<Seen>> {
        self.seen.subscribe()
    }

    /// The part that begins at `start`: the one that another follower had, or what `read` makes of it, with where the next one
    /// begins. One reads at a time.
    ///
    /// # Errors
    /// Those of `read`.
    pub async fn piece<R>(&self, start: u64, format: Format, read: R) -> Result<Option<Piece>, ApiError>
    where
        R: Future<Output = Result<Option<(u64, Bytes)>, ApiError>>,
    {
        let mut pieces = self.pieces.lock().await;
        if let Some(piece) = pieces.iter().find(|piece| piece.start == start && piece.format == format) {
            return Ok(Some(piece.clone()));
        }
        let Some((next, bytes)) = read.await? else { return Ok(None) };
        let piece = Piece { start, format, next, bytes };
        if pieces.len() == KEPT_PIECES {
            pieces.pop_front();
        }
        pieces.push_back(piece.clone());
        Ok(Some(piece))
    }
}

/// Looks again and again, for as long as there is somebody to tell.
async fn look(storage: Storage, mut topic: Topic, feed: Weak<Feed>) {
    let mut is_in_trouble = false;
    loop {
        let pause = match see(&storage, &mut topic).await {
            Ok(Some(seen)) => {
                is_in_trouble = false;
                let Some(feed) = feed.upgrade() else { return };
                feed.seen.send_if_modified(|known| known.replace(seen) != Some(seen));
                if seen.over {
                    return;
                }
                POLL
            }
            // Deleted because it was old: it had ended long before, and so has whoever followed it.
            Ok(None) => return,
            Err(error) => {
                // Whoever follows waits meanwhile: what they have not had comes when the database does.
                if !is_in_trouble {
                    let run = topic.run();
                    tracing::warn!(run.id = %run, "run {run}: what is followed cannot be looked at: {error}");
                }
                is_in_trouble = true;
                POLL_IN_TROUBLE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn see(storage: &Storage, topic: &mut Topic) -> Result<Option<Seen>, StorageError> {
    match topic {
        Topic::Run(run) => Ok(storage.run_progress(*run).await?.map(|progress| Seen {
            status: progress.status,
            attempt: progress.attempt,
            latest: progress.attempt,
            end: progress.events,
            over: progress.status.is_terminal(),
        })),
        Topic::Log(log) => {
            let Some(progress) = storage.log_progress(log.run, log.attempt, &log.name).await? else {
                return Ok(None);
            };
            if log.attempt == 0 {
                log.attempt = progress.attempt;
            }
            Ok(Some(Seen {
                status: progress.status,
                attempt: log.attempt,
                latest: progress.attempt,
                end: progress.bytes,
                // An attempt that another one has followed is over, too.
                over: progress.status.is_terminal() || progress.attempt > log.attempt,
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn storage() -> Storage {
        Storage::from_pool(sqlx::PgPool::connect_lazy("postgres://127.0.0.1:1/none").expect("lazy"))
    }

    fn topic() -> Topic {
        let run = "01926b3c-0f0e-7c3a-9a55-0f6f6f1b7a10".parse().expect("an id");
        Topic::Log(LogName { run, attempt: 1, name: "user_logs/std_log.txt".to_owned() })
    }

    #[tokio::test]
    async fn who_watches_the_same_shares_a_feed_and_the_last_ends_it() {
        let feeds = Feeds::default();
        let storage = storage();
        let first = feeds.join(&storage, &topic());
        let second = feeds.join(&storage, &topic());
        assert!(Arc::ptr_eq(&first, &second));
        let looking = first.looking.lock().expect("nobody panicked").clone().expect("a task");
        drop(first);
        assert!(!looking.is_finished());
        drop(second);
        while !looking.is_finished() {
            tokio::task::yield_now().await;
        }
        let third = feeds.join(&storage, &topic());
        assert_eq!(Arc::strong_count(&third), 1);
    }

    #[tokio::test]
    async fn a_piece_is_made_once_for_all() {
        let feed = Feeds::default().join(&storage(), &topic());
        let made = AtomicUsize::new(0);
        let (feed, made) = (&feed, &made);
        let piece = |start: u64, format| {
            feed.piece(start, format, async move {
                made.fetch_add(1, Ordering::Relaxed);
                Ok(Some((start + 3, Bytes::from_static(b"abc"))))
            })
        };
        for _ in 0..5 {
            let piece = piece(0, Format::Plain).await.expect("read").expect("there");
            assert_eq!((piece.next, &piece.bytes[..]), (3, &b"abc"[..]));
        }
        assert_eq!(made.load(Ordering::Relaxed), 1);
        piece(0, Format::Events).await.expect("read");
        assert_eq!(made.load(Ordering::Relaxed), 2);
        // Who is far behind reads for themselves again, and takes nothing from the others but a place.
        for start in 1..=10 {
            piece(start * 3, Format::Plain).await.expect("read");
        }
        piece(0, Format::Plain).await.expect("read");
        assert_eq!(made.load(Ordering::Relaxed), 13);
        assert_eq!(feed.pieces.lock().await.len(), KEPT_PIECES);
    }
}
