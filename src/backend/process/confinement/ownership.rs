//! Whose the files of an attempt are, and who gets to them.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use super::super::layout::{self, AttemptDir};

/// Lets an attempt's user, and nobody else, pass through to what is its own in there: group and user have the same number.
pub(in super::super) fn open_to_user(directory: &AttemptDir, user: u32) -> io::Result<()> {
    let root = directory.root();
    // Those of all runs, and of the run: everybody may pass through, nobody look.
    for parent in root.ancestors().skip(1).take(2) {
        set_mode(parent, 0o711)?;
    }
    for path in [root, &directory.logs()] {
        lchown(path, None, Some(user))?;
        set_mode(path, 0o710)?;
    }
    Ok(())
}

/// Gives an attempt's user what is to be its own, before there is a process of it. What other runs use as well (links to files of
/// the cache of data) stays whose it is.
pub(in super::super) fn take_over(directory: &AttemptDir, user: u32) -> io::Result<()> {
    open_to_user(directory, user)?;
    let own = [
        directory.work(),
        directory.data(),
        directory.records(),
        directory.user_logs(),
        directory.home(),
        directory.temporary(),
    ];
    for path in own {
        layout::create_private_dir(&path)?;
        give(&path, user)?;
        set_mode(&path, 0o700)?;
    }
    Ok(())
}

/// Gives a user a file, or a directory with all that is in there. What has another name elsewhere stays whose it is.
pub(in super::super) fn give(path: &Path, user: u32) -> io::Result<()> {
    let mut open = vec![path.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if metadata.nlink() > 1 {
            continue;
        }
        lchown(&path, Some(user), Some(user))?;
    }
    Ok(())
}

/// Takes a directory that was a user's, with all that is in there. No process of the user may be left.
///
/// Nobody else may write to any of it afterwards.
///
/// # Errors
/// When something in there has another name elsewhere: it may be somebody else's, or stay in somebody's reach; or is neither file nor
/// directory nor link.
pub(in super::super) fn take_back(directory: &Path) -> io::Result<()> {
    let service = nix::unistd::geteuid().as_raw();
    let (mut open, mut linked) = (vec![directory.to_owned()], HashMap::new());
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path)?;
        if metadata.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        } else if !metadata.is_file() && !metadata.is_symlink() {
            let text = format!("{} is neither a file nor a directory nor a link", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        } else if metadata.nlink() > 1 {
            let (names, _, _) = linked
                .entry((metadata.dev(), metadata.ino()))
                .or_insert_with(|| (0_u64, metadata.nlink(), path.clone()));
            *names += 1;
            continue;
        }
        keep(&path, &metadata, service)?;
    }
    for (names, links, path) in linked.into_values() {
        if names < links {
            let text =
                format!("{} has another name elsewhere: it was not made by an installer", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        keep(&path, &fs::symlink_metadata(&path)?, service)?;
    }
    Ok(())
}

/// Makes something the service's, for nobody else to write. What a list of rights (ACL) adds goes with the group's.
fn keep(path: &Path, metadata: &fs::Metadata, service: u32) -> io::Result<()> {
    lchown(path, Some(service), Some(service))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if !metadata.is_symlink() && mode & !0o755 != 0 { set_mode(path, mode & 0o755) } else { Ok(()) }
}

/// Makes a directory one that everybody may list.
pub(in super::super) fn open_to_all(directory: &Path) -> io::Result<()> {
    set_mode(directory, 0o755)
}

/// Takes a file away from everybody else; it need not be there. A link is left alone: it leads to what is somebody's.
pub(in super::super) fn close_to_others(file: &Path) -> io::Result<()> {
    match fs::symlink_metadata(file) {
        Ok(metadata) if metadata.is_file() => set_mode(file, 0o600),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Lets everybody pass through the directories from a data directory down to a path in it; a path elsewhere is not the service's to
/// open.
pub(in super::super) fn open_way(data_dir: &Path, path: &Path) -> io::Result<()> {
    let Ok(inner) = path.strip_prefix(data_dir) else { return Ok(()) };
    let mut directory = data_dir.to_owned();
    for part in inner.parent().into_iter().flat_map(Path::components) {
        directory.push(part);
        let mode = fs::metadata(&directory)?.permissions().mode() & 0o7777;
        if mode & 0o011 != 0o011 {
            set_mode(&directory, mode | 0o011)?;
        }
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}
