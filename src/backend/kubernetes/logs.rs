//! Bringing containers' logs over while they grow, for they go with their pods.
//!
//! Each log is followed into a file on this worker's disk, beside which its position lies. A stream that breaks is taken up where
//! the position says; one that was never followed here is read from its beginning.

use std::{
    collections::HashMap,
    fs::{self, File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::AsyncBufReadExt as _;
use tokio::{sync::watch, task::JoinHandle};
use tracing::{debug, warn};

use super::{
    super::process::layout,
    cluster::{CallError, Cluster},
};
use crate::domain::kubernetes::{LogPosition, LogReader};

/// Before a stream that broke is taken up again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the rest of a log may take that was followed to the end of its container.
const REST: Duration = Duration::from_secs(20);

/// One log: of which container, and where it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Log {
    pub(super) pod: String,
    pub(super) container: String,
    pub(super) file: PathBuf,
    /// Where its position is kept: not beside it, where logs are looked for.
    pub(super) position: PathBuf,
}

/// A log that is followed.
#[derive(Debug)]
struct Following {
    /// Tells whether the container is known to have ended: then the end of a stream is the end of the log.
    ended: watch::Sender<bool>,
    /// Whether all of it is here.
    whole: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Drop for Following {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The logs that are followed.
#[derive(Debug, Default)]
pub(super) struct Logs {
    following: Mutex<HashMap<Log, Arc<Following>>>,
}

impl Logs {
    /// Follows a log, unless it is followed already. `ended` says that its container has ended.
    pub(super) fn follow(&self, cluster: &Cluster, log: &Log, ended: bool) {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        let followed = following.entry(log.clone()).or_insert_with(|| {
            let (ended_sender, ended) = watch::channel(false);
            let (whole, whole_receiver) = watch::channel(false);
            let task = tokio::spawn(follow(cluster.clone(), log.clone(), ended, whole));
            Arc::new(Following { ended: ended_sender, whole: whole_receiver, task })
        });
        if ended {
            followed.ended.send_replace(true);
        }
    }

    /// Waits until all of a log is here that is followed and whose container has ended, or is gone.
    pub(super) async fn finish(&self, log: &Log) {
        let followed = {
            let following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
            following.get(log).cloned()
        };
        let Some(followed) = followed else { return };
        followed.ended.send_replace(true);
        let mut whole = followed.whole.clone();
        let rest = tokio::time::timeout(REST, async { whole.wait_for(|whole| *whole).await.is_ok() }).await;
        if rest.is_err() {
            warn!("the rest of the log of {} in {} did not come in time", log.container, log.pod);
        }
    }

    /// Stops following what is kept in a directory.
    pub(super) fn forget(&self, directory: &Path) {
        let mut following = self.following.lock().unwrap_or_else(PoisonError::into_inner);
        following.retain(|log, _| !log.file.starts_with(directory));
    }
}

async fn follow(cluster: Cluster, log: Log, mut ended: watch::Receiver<bool>, whole: watch::Sender<bool>) {
    let mut half = Vec::new();
    loop {
        // Known before the stream is opened: it then has all that the container wrote.
        let had_ended = *ended.borrow();
        match once(&cluster, &log, had_ended, &mut half).await {
            Ok(true) => {
                whole.send_replace(true);
                return;
            }
            Ok(false) => {}
            Err(error) => debug!("the log of {} in {}: {error}", log.container, log.pod),
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            _ = ended.changed(), if !had_ended => {}
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LogError {
    #[error("{0}")]
    Call(#[from] CallError),
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Takes over what there is until the stream ends; whether that is all of it. `half` is the beginning of a line whose rest may come
/// with the next stream, which has that line from its beginning.
async fn once(cluster: &Cluster, log: &Log, had_ended: bool, half: &mut Vec<u8>) -> Result<bool, LogError> {
    let mut spool = Spool::open(log)?;
    let since = spool.reader.since();
    let mut stream = match cluster.log(&log.pod, &log.container, since.as_deref(), !had_ended).await {
        Ok(stream) => stream,
        // The pod is gone: there will be no other half.
        Err(CallError::NotFound(_)) => {
            spool.take(half)?;
            spool.keep()?;
            return Ok(true);
        }
        Err(error) => return Err(error.into()),
    };
    half.clear();
    loop {
        let read = stream.read_until(b'\n', half).await;
        if half.ends_with(b"\n") {
            spool.take(half)?;
            half.clear();
            continue;
        }
        let is_whole = had_ended && read.is_ok();
        if is_whole && !half.is_empty() {
            spool.take(half)?;
        }
        spool.keep()?;
        read?;
        // A stream that was followed may have been cut off: the next one, which does not follow, has the rest.
        return Ok(is_whole);
    }
}

/// A log's file, and how far it is.
struct Spool {
    file: File,
    reader: LogReader,
    position: PathBuf,
    unkept: u64,
}

/// After so many bytes the position is written down: what is behind it is read again after a crash.
const KEEP_EVERY: u64 = 1 << 16;

impl Spool {
    fn open(log: &Log) -> io::Result<Self> {
        let position: LogPosition = match fs::read(&log.position) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => LogPosition::default(),
            Err(error) => return Err(error),
        };
        for file in [&log.file, &log.position] {
            file.parent().map_or(Ok(()), layout::create_private_dir)?;
        }
        let mut file =
            OpenOptions::new().create(true).truncate(false).write(true).read(true).open(&log.file)?;
        // A position that says more than there is belongs to another file.
        let position =
            if file.metadata()?.len() < position.bytes { LogPosition::default() } else { position };
        file.set_len(position.bytes)?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { file, reader: LogReader::new(position), position: log.position.clone(), unkept: 0 })
    }

    fn take(&mut self, line: &[u8]) -> io::Result<()> {
        if line.is_empty() {
            return Ok(());
        }
        if let Some(content) = self.reader.take(line) {
            self.file.write_all(content)?;
            self.unkept += content.len() as u64;
            if self.unkept >= KEEP_EVERY {
                self.keep()?;
            }
        }
        Ok(())
    }

    fn keep(&mut self) -> io::Result<()> {
        self.unkept = 0;
        layout::write_json(&self.position, self.reader.position())
    }
}
