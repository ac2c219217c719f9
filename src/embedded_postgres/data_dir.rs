//! The directory everything of one service lives in, and the lock that keeps a second service out.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;

use super::Error;

/// A data directory held by this process. The kernel gives the lock back whatever happens to us.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: File,
}

/// The service that has a data directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Where it listens; none when it has not said so yet.
    pub addresses: Vec<SocketAddr>,
}

impl DataDir {
    /// Where the data goes when nobody says: `/var/lib/estimatord` for root, otherwise below the user's
    /// `XDG_DATA_HOME` or `~/.local/share`.
    ///
    /// # Errors
    /// When neither variable leads anywhere.
    pub fn default_path() -> Result<PathBuf, Error> {
        default_path(Uid::effective().is_root(), env::var_os("XDG_DATA_HOME"), env::var_os("HOME"))
    }

    /// Makes the directory when it is missing and takes its lock.
    ///
    /// # Errors
    /// When another service holds it, or when it cannot be made or written.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let unusable = |at: &Path| {
            let at = at.to_owned();
            move |source| Error::DataDirUnusable { path: at, source }
        };
        create(path).map_err(unusable(path))?;
        let path = fs::canonicalize(path).map_err(unusable(path))?;
        let lock_path = path.join("service.lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(unusable(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::DataDirInUse { path, pid: read_pid(&mut lock) });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(&lock_path)(source)),
        }
        write_pid(&mut lock).map_err(unusable(&lock_path))?;
        Ok(Self { path, lock })
    }

    /// Says where the service listens, to whoever looks after it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn note_addresses(&self, addresses: &[SocketAddr]) -> io::Result<()> {
        let lines: String = addresses.iter().map(|address| format!("{address}\n")).collect();
        (&self.lock).write_all(lines.as_bytes())
    }

    /// The service that has it now. Nothing is made.
    ///
    /// # Errors
    /// When its lock cannot be looked at.
    pub fn holder(path: &Path) -> Result<Option<Holder>, Error> {
        let lock_path = path.join("service.lock");
        let unusable = |source| Error::DataDirUnusable { path: lock_path.clone(), source };
        let mut lock = match OpenOptions::new().read(true).open(&lock_path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(error)),
        };
        match lock.try_lock_shared() {
            Ok(()) => return Ok(None),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let mut text = String::new();
        lock.read_to_string(&mut text).map_err(unusable)?;
        // After the line with its process id.
        Ok(Some(Holder { addresses: text.lines().skip(1).filter_map(|line| line.parse().ok()).collect() }))
    }

    /// The directory: absolute, without symbolic links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn default_path(root: bool, xdg: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, Error> {
    if root {
        return Ok(PathBuf::from("/var/lib/estimatord"));
    }
    // The XDG specification has relative paths ignored.
    let absolute = |value: Option<OsString>| value.map(PathBuf::from).filter(|path| path.is_absolute());
    absolute(xdg)
        .or_else(|| absolute(home).map(|home| home.join(".local/share")))
        .map(|base| base.join("estimatord"))
        .ok_or(Error::NoDefaultDataDir)
}

/// Like `mkdir -p`, but what is made is private, whatever the umask. As root others may pass through, since
/// the server's account has to get to its part; they still cannot list anything.
fn create(path: &Path) -> io::Result<()> {
    let mode = if Uid::effective().is_root() { 0o711 } else { 0o700 };
    let mut missing: Vec<&Path> =
        path.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    while let Some(dir) = missing.pop() {
        match DirBuilder::new().mode(mode).create(dir) {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(mode))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Only for the message to a second service; the lock itself is what counts.
fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

fn read_pid(lock: &mut File) -> Option<u32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.lines().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_follows_the_user() {
        let some = |text: &str| Some(OsString::from(text));
        let path = |root, xdg, home| default_path(root, xdg, home).ok();
        assert_eq!(path(true, some("/x"), some("/root")), Some("/var/lib/estimatord".into()));
        assert_eq!(path(false, some("/x"), some("/home/a")), Some("/x/estimatord".into()));
        assert_eq!(path(false, some("rel"), some("/home/a")), Some("/home/a/.local/share/estimatord".into()));
        assert_eq!(path(false, None, some("")), None);
    }

    #[test]
    fn a_second_lock_names_the_holder_and_the_first_ends_with_its_value() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("a/b");
        let held = DataDir::lock(&dir).unwrap();
        let refused = DataDir::lock(&dir).unwrap_err().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        assert_eq!(DataDir::holder(&dir).unwrap(), Some(Holder::default()));
        let addresses = ["127.0.0.1:8080".parse().unwrap(), "[::]:9090".parse().unwrap()];
        held.note_addresses(&addresses).unwrap();
        assert_eq!(DataDir::holder(&dir).unwrap(), Some(Holder { addresses: addresses.to_vec() }));
        let refused = DataDir::lock(&dir).unwrap_err().to_string();
        assert!(refused.contains(&format!("(pid {})", std::process::id())), "{refused}");
        drop(held);
        assert_eq!(DataDir::holder(&dir).unwrap(), None);
        assert_eq!(DataDir::holder(scratch.path()).unwrap(), None);
        DataDir::lock(&dir).unwrap();
    }
}
