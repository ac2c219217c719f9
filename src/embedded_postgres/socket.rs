//! The directory of the Unix socket, the only way to the server.
//!
//! Its mode 0700 is what keeps other users of the machine out, as the server trusts whoever gets through.

use std::env;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use sha2::{Digest as _, Sha256};

use super::account::Account;
use super::cluster::{Layout, remove};
use super::{Error, PORT};

/// Bytes in `sockaddr_un.sun_path`, without the closing zero.
const LONGEST_SOCKET: usize = 107;

/// The prepared directory.
#[derive(Debug)]
pub(super) struct SocketDir {
    path: PathBuf,
    /// Made outside the data directory, so not to be left lying around.
    elsewhere: bool,
}

impl SocketDir {
    /// Below the data directory when the path is short enough, else in the user's runtime directory or in
    /// `/tmp` under a name that is always the same for one cluster.
    pub(super) fn prepare(layout: &Layout, account: &Account) -> Result<Self, Error> {
        let socket = Self::of(layout, account);
        make(&socket.path, account)?;
        for name in socket.files() {
            remove(&name, fs::remove_file(&name))?;
        }
        Ok(socket)
    }

    /// That of a server which somebody else has started; none when there is no socket in it, or when it is not the server's own.
    pub(super) fn of_running(layout: &Layout, account: &Account) -> Option<Self> {
        let socket = Self::of(layout, account);
        let found = fs::symlink_metadata(&socket.path).ok()?;
        let is_ours = found.is_dir() && found.uid() == account.uid.as_raw() && found.mode() & 0o777 == 0o700;
        let [name, _] = socket.files();
        (is_ours && name.exists()).then_some(socket)
    }

    fn of(layout: &Layout, account: &Account) -> Self {
        let near = layout.root.join("pg.sock");
        let (path, elsewhere) = if fits(&near) { (near, false) } else { (distant(layout, account), true) };
        Self { path, elsewhere }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The value of `unix_socket_directories`: a list, so the one entry is quoted.
    pub(super) fn setting(&self) -> String {
        format!("\"{}\"", self.path.display().to_string().replace('"', "\"\""))
    }

    /// After the server's end: takes the directory away when it is not below the data directory.
    pub(super) fn discard(&self) {
        if self.elsewhere
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "the socket's directory stays");
        }
    }

    fn files(&self) -> [PathBuf; 2] {
        [self.path.join(format!(".s.PGSQL.{PORT}")), self.path.join(format!(".s.PGSQL.{PORT}.lock"))]
    }
}

/// A path of text (the client side builds it as such) that leaves room for the socket's name.
fn fits(dir: &Path) -> bool {
    dir.to_str().is_some_and(|dir| dir.len() + format!("/.s.PGSQL.{PORT}").len() <= LONGEST_SOCKET)
}

fn distant(layout: &Layout, account: &Account) -> PathBuf {
    let digest = Sha256::digest(layout.cluster.as_os_str().as_encoded_bytes());
    let hash: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("estimatord-{}-{hash}", account.uid);
    // The runtime directory is private to the user, so no use when the server is another one.
    let runtime = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|_| !account.switch);
    runtime
        .filter(|dir| dir.is_absolute() && dir.is_dir())
        .map(|dir| dir.join(&name))
        .filter(|dir| fits(dir))
        .unwrap_or_else(|| Path::new("/tmp").join(name))
}

/// Makes the directory or takes the existing one, if it is beyond doubt ours: in `/tmp` anybody may have put
/// something there.
fn make(path: &Path, account: &Account) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io("create", path)(error)),
    }
    let found = fs::symlink_metadata(path).map_err(Error::io("look at", path))?;
    let owner = Uid::from_raw(found.uid());
    let unusable = |detail| Err(Error::SocketDir { path: path.to_owned(), detail });
    if found.is_dir() && owner == Uid::effective() {
        // Made just now, or by a start that did not get to these lines. Nobody else can exchange it under our hands.
        fs::set_permissions(path, Permissions::from_mode(0o700))
            .map_err(Error::io("close to others", path))?;
        return account.give(path);
    }
    // Handed over by an earlier start. Its owner could exchange it, so as root look only.
    if !found.is_dir() || owner != account.uid {
        return unusable(format!("something of user id {owner} is in its place"));
    }
    match found.mode() & 0o777 {
        0o700 => Ok(()),
        mode => unusable(format!("its mode is {mode:o} and not 700")),
    }
}

#[cfg(test)]
mod tests {
    use nix::unistd::Gid;

    use super::*;

    fn us() -> Account {
        let (uid, gid) = (Uid::effective(), Gid::effective());
        Account { name: "us".to_owned(), uid, gid, switch: false }
    }

    #[test]
    fn a_directory_of_ours_is_taken_and_closed_to_others() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("s");
        fs::create_dir(&dir).unwrap();
        make(&dir, &us()).unwrap();
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_link_in_its_place_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("s");
        std::os::unix::fs::symlink(scratch.path(), &dir).unwrap();
        assert!(matches!(make(&dir, &us()), Err(Error::SocketDir { .. })));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("s");
        fs::create_dir(&dir).unwrap();
        let account = Account { uid: Uid::from_raw(54_321), switch: true, ..us() };
        let dir = if Uid::effective().is_root() {
            nix::unistd::chown(&dir, Some(Uid::from_raw(54_320)), None).unwrap();
            dir
        } else {
            PathBuf::from("/usr")
        };
        assert!(matches!(make(&dir, &account), Err(Error::SocketDir { .. })));
    }

    #[test]
    fn the_limit_counts_the_sockets_name() {
        let dir = |length: usize| PathBuf::from(format!("/{}", "d".repeat(length - 1)));
        assert!(fits(&dir(LONGEST_SOCKET - 14)));
        assert!(!fits(&dir(LONGEST_SOCKET - 13)));
    }
}
