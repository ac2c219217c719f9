//! Where an attempt keeps its things, and how they are written: whole or not at all.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use super::super::BackendError;
use crate::domain::ids::RunId;

/// Logs by Azure ML's names, below `logs/` of an attempt.
pub(in crate::backend) const STD_LOG: &str = "user_logs/std_log.txt";
/// What building the environment said.
pub(in crate::backend) const BUILD_LOG: &str = "azureml-logs/20_image_build_log.txt";
/// What `mpirun` itself said; the ranks have logs of their own.
pub(in crate::backend) const MPIRUN_LOG: &str = "azureml-logs/70_mpirun_log.txt";

/// Between two looks at a lock that others hold for moments only: runs that begin together wait for one.
const LOCK_INTERVAL: Duration = Duration::from_millis(2);

/// Where the directories of all runs are.
pub(in crate::backend) fn runs(data_dir: &Path) -> PathBuf {
    data_dir.join("runs")
}

/// Where built environments are, and what is remembered of them.
pub(in crate::backend) fn environments(data_dir: &Path) -> PathBuf {
    data_dir.join("environments")
}

/// The directory of one attempt: `<data_dir>/runs/<run_id>/<attempt>`.
#[derive(Clone, Debug)]
pub(in crate::backend) struct AttemptDir {
    root: PathBuf,
}

impl AttemptDir {
    pub(in crate::backend) fn new(data_dir: &Path, run_id: RunId, number: u32) -> Self {
        Self { root: runs(data_dir).join(run_id.to_string()).join(number.to_string()) }
    }

    pub(in crate::backend) const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    pub(in crate::backend) fn root(&self) -> &Path {
        &self.root
    }

    /// The script's working directory: a private copy of the snapshot.
    pub(in crate::backend) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    /// The logs that the service keeps; the script's own are in `work/logs`.
    pub(in crate::backend) fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What its processes print: part of the logs, and the script's to write.
    pub(in crate::backend) fn user_logs(&self) -> PathBuf {
        self.logs().join("user_logs")
    }

    /// The home directory of a run that has none of its own.
    pub(in crate::backend) fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// Where such a run puts temporary files.
    pub(in crate::backend) fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Where its processes record metrics and the like, each in a file of its own.
    pub(in crate::backend) fn records(&self) -> PathBuf {
        self.root.join("records")
    }

    /// What is staged for the script, and what it writes to be sent.
    pub(in crate::backend) fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// Held while `work` is made.
    pub(in crate::backend) fn prepare_lock(&self) -> PathBuf {
        self.root.join("prepare.lock")
    }

    /// Which built environment the attempt uses, from before it is looked up.
    pub(in crate::backend) fn environment(&self) -> PathBuf {
        self.root.join("environment.json")
    }

    /// What the supervisor is to start.
    pub(in crate::backend) fn launch(&self) -> PathBuf {
        self.root.join("launch.json")
    }

    /// Held by the supervisor for its whole life.
    pub(in crate::backend) fn lock(&self) -> PathBuf {
        self.root.join("supervisor.lock")
    }

    /// Who supervises. From when this exists the attempt counts as started, whatever comes.
    pub(in crate::backend) fn supervisor(&self) -> PathBuf {
        self.root.join("supervisor.json")
    }

    /// What the supervisor itself had to say.
    pub(in crate::backend) fn supervisor_log(&self) -> PathBuf {
        self.root.join("supervisor.log")
    }

    /// Since when the script runs.
    pub(in crate::backend) fn started(&self) -> PathBuf {
        self.root.join("started.json")
    }

    /// How it ended: from when this exists no process of the attempt is left.
    pub(in crate::backend) fn exit(&self) -> PathBuf {
        self.root.join("exit.json")
    }

    /// That it was found lost, and what was left of it then.
    pub(in crate::backend) fn lost(&self) -> PathBuf {
        self.root.join("lost.json")
    }

    /// Where a job of a cluster says how it goes.
    pub(in crate::backend) fn job(&self) -> PathBuf {
        self.root.join("job")
    }

    /// That it is to end, or must never begin.
    pub(in crate::backend) fn cancel(&self) -> PathBuf {
        self.root.join("cancel")
    }
}

/// Where builds can make temporary directories of their own; it is there afterwards.
pub(in crate::backend) fn scratch(data_dir: &Path) -> io::Result<PathBuf> {
    let path = data_dir.join("cache/tmp");
    create_private_dir(&path)?;
    Ok(path)
}

/// Creates a directory, and its parents, that only the service's user can read: what is in there may be secret.
pub(in crate::backend) fn create_private_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file so that a reader finds the old content or the new one, also after a power failure.
pub(in crate::backend) fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let written = write_beside(path, content)?;
    written.as_file().sync_all()?;
    written.persist(path).map_err(|error| error.error)?;
    sync(parent(path)?)
}

/// Writes a file so that a reader finds the old content or the new one, until the machine goes down: after that perhaps neither. For what
/// only processes of this life of the machine are told.
pub(in crate::backend) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    write_beside(path, content)?.persist(path).map(drop).map_err(|error| error.error)
}

fn write_beside(path: &Path, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
    let mut temporary = tempfile::NamedTempFile::new_in(parent(path)?)?;
    temporary.write_all(content)?;
    Ok(temporary)
}

fn parent(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::Error::other("a file needs a directory"))
}

/// Has a file, or the names in a directory, survive a power failure.
pub(in crate::backend) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// [`write_atomically`] of a value as JSON.
pub(in crate::backend) fn write_json<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_atomically(path, &serde_json::to_vec_pretty(value)?)
}

/// [`write_whole`] of a value as JSON.
pub(in crate::backend) fn write_json_whole<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    write_whole(path, &serde_json::to_vec_pretty(value)?)
}

/// Reads back what [`write_json`] wrote; `None` when there is no such file.
pub(in crate::backend) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, BackendError> {
    let content = match fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(BackendError::Io { action: format!("read {}", path.display()), source });
        }
    };
    serde_json::from_slice(&content)
        .map(Some)
        .map_err(|error| BackendError::Damaged { path: path.to_owned(), detail: error.to_string() })
}

/// Whether somebody holds the lock of this file. Asking takes a shared lock for an instant, so it must only be
/// asked when nobody who has a right to the lock can still be on the way to it.
pub(in crate::backend) fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Opens (and creates) a file to lock it, readable and writable, with its content left alone. Nobody else can open it, since a lock takes
/// no more than that: a run could keep the service waiting for ever.
pub(in crate::backend) fn open_lock_file(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
    let file = File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
    // An older version left it open to others.
    let found = file.metadata()?;
    if found.mode() & 0o077 != 0 && found.uid() == nix::unistd::geteuid().as_raw() {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Waits for a lock that others hold for moments only.
pub(in crate::backend) async fn lock(path: &Path) -> io::Result<File> {
    let file = open_lock_file(path)?;
    while let Err(error) = file.try_lock() {
        match error {
            fs::TryLockError::WouldBlock => tokio::time::sleep(LOCK_INTERVAL).await,
            fs::TryLockError::Error(error) => return Err(error),
        }
    }
    Ok(file)
}

/// Opens a log to add to it.
pub(in crate::backend) fn open_log(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(directory) = path.parent() {
        create_private_dir(directory)?;
    }
    // What the supervisor says lies where the run's user may pass through.
    File::options().create(true).append(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_seen_while_it_is_held_and_not_after() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        assert!(!is_locked(&path).unwrap());
        let file = open_lock_file(&path).unwrap();
        file.try_lock().unwrap();
        assert!(is_locked(&path).unwrap());
        drop(file);
        assert!(!is_locked(&path).unwrap());
    }

    #[test]
    fn json_comes_back_and_damage_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value.json");
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), None);
        write_json(&path, &vec![1, 2]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), Some(vec![1, 2]));
        fs::write(&path, "[1,").unwrap();
        assert!(matches!(read_json::<Vec<u32>>(&path), Err(BackendError::Damaged { .. })));
    }
}
