//! Which account the server runs under: PostgreSQL refuses to be root.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::unistd::{Gid, Uid, User, chown};

use super::Error;
use super::child::{BLOCKED, FAILED};
use super::cluster::Layout;
use super::supervise;

/// The server's account.
#[derive(Clone, Debug)]
pub(super) struct Account {
    /// For messages.
    pub(super) name: String,
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    /// Whether it is another than ours, so that children have to take it on and files be handed over.
    pub(super) switch: bool,
}

impl Account {
    /// An ordinary user runs the server as itself. Root runs it as whoever has the cluster already, else as
    /// `postgres`, else as `nobody`.
    pub(super) fn choose(layout: &Layout) -> Result<Self, Error> {
        let cluster = &layout.cluster;
        let owner = match fs::metadata(cluster) {
            Ok(found) => Some((Uid::from_raw(found.uid()), Gid::from_raw(found.gid()))),
            Err(_) => None,
        };
        let us = Uid::effective();
        if !us.is_root() {
            return Self::ourselves(us, owner.map(|(uid, _)| uid), cluster);
        }
        match owner.filter(|_| layout.has_cluster()) {
            Some((uid, gid)) if !uid.is_root() => {
                let user = find_user(uid);
                Ok(Self {
                    name: name_of(uid, user.as_ref()),
                    uid,
                    gid: user.map_or(gid, |user| user.gid),
                    switch: true,
                })
            }
            Some(_) => Err(Error::OwnedByRoot { cluster: cluster.clone(), account: default_account()?.name }),
            None => default_account(),
        }
    }

    fn ourselves(us: Uid, owner: Option<Uid>, cluster: &Path) -> Result<Self, Error> {
        let user = find_user(us);
        let name = name_of(us, user.as_ref());
        match owner.filter(|owner| *owner != us) {
            Some(owner) => Err(Error::WrongOwner {
                cluster: cluster.to_owned(),
                owner: name_of(owner, find_user(owner).as_ref()),
                ours: name,
            }),
            None => Ok(Self { name, uid: us, gid: Gid::effective(), switch: false }),
        }
    }

    /// `initdb` needs an entry in the user database; the server itself does not.
    pub(super) fn check_entry(&self) -> Result<(), Error> {
        match find_user(self.uid) {
            Some(_) => Ok(()),
            None => Err(Error::NoPasswdEntry { uid: self.uid.as_raw() }),
        }
    }

    /// Whether the account can be taken on at all, and gets as far as the data directory. Without this the
    /// answer would be a bare "Permission denied" of `initdb`.
    pub(super) fn check_reach(&self, trampoline: &Path, layout: &Layout) -> Result<(), Error> {
        if !self.switch {
            return Ok(());
        }
        let mut command = supervise::command(trampoline, self);
        command.arg("--reach").arg(&layout.root);
        let output =
            command.output().map_err(|source| Error::Spawn { program: trampoline.to_owned(), source })?;
        match output.status.code() {
            Some(0) => Ok(()),
            Some(code) if code == i32::from(BLOCKED) => Err(Error::Blocked {
                account: self.name.clone(),
                blocker: PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end()),
            }),
            _ => Err(self.failed(&output)),
        }
    }

    /// The error for a trampoline that could not take on the account.
    fn failed(&self, output: &Output) -> Error {
        let said = String::from_utf8_lossy(&output.stderr);
        let detail = match output.status.code() {
            Some(code) if code == i32::from(FAILED) => said.trim().to_owned(),
            _ => format!("{} {}", output.status, said.trim()),
        };
        Error::Account { account: self.name.clone(), detail }
    }

    /// Hands a file or directory over to the account.
    pub(super) fn give(&self, path: &Path) -> Result<(), Error> {
        if !self.switch {
            return Ok(());
        }
        chown(path, Some(self.uid), Some(self.gid))
            .map_err(|errno| Error::io("hand over to the server's account", path)(errno.into()))
    }
}

fn default_account() -> Result<Account, Error> {
    let user = ["postgres", "nobody"]
        .into_iter()
        .find_map(|name| User::from_name(name).ok().flatten())
        .filter(|user| !user.uid.is_root())
        .ok_or(Error::NoAccount)?;
    Ok(Account { name: user.name, uid: user.uid, gid: user.gid, switch: true })
}

fn find_user(uid: Uid) -> Option<User> {
    User::from_uid(uid).ok().flatten()
}

fn name_of(uid: Uid, user: Option<&User>) -> String {
    match user {
        Some(user) => user.name.clone(),
        None => format!("user id {uid}"),
    }
}
