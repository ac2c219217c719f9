//! Files that have no name any more and take as much of the disk as before: as long as a process has them open, or in its memory.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
};

use super::{super::descendants, sweep::processes_of};

/// What the kernel puts behind the path of such a file.
const DELETED: &[u8] = b" (deleted)";
/// Before the name of one that is in memory, where no file system has it.
const IN_MEMORY: &[u8] = b"/memfd:";

/// What is known of those of a user's processes; without a user, of those that descend from this one.
pub(super) fn files(user: Option<u32>) -> io::Result<Vec<fs::Metadata>> {
    let processes = match user {
        Some(user) => processes_of(user)?,
        None => descendants::of(std::process::id().cast_signed())?,
    };
    let mut found = Vec::new();
    for process in processes {
        for kind in ["fd", "map_files"] {
            open_in(Path::new(&format!("/proc/{}/{kind}", process.pid)), &mut found)?;
        }
    }
    Ok(found)
}

fn open_in(directory: &Path, found: &mut Vec<fs::Metadata>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if is_hidden(&error) => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        // The process may end meanwhile, or close it.
        let Ok(path) = entry.map(|entry| entry.path()) else { break };
        let Ok(name) = fs::read_link(&path) else { continue };
        let name = name.as_os_str().as_bytes();
        if !name.ends_with(DELETED) || name.starts_with(IN_MEMORY) {
            continue;
        }
        match fs::metadata(&path) {
            // The name may just be called so.
            Ok(metadata) if metadata.is_file() && metadata.nlink() == 0 => found.push(metadata),
            Ok(_) => {}
            Err(error) if is_hidden(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The process has ended, or may not be looked into by us: so it is in a container that may not trace (no `SYS_PTRACE`).
fn is_hidden(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_file_without_a_name_is_found_in_the_process_that_has_it_open() {
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(&[1; 1 << 20]).unwrap();
        let inode = file.metadata().unwrap().ino();
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(file)).spawn().unwrap();
        let found = files(None).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let found: Vec<_> = found.iter().filter(|metadata| metadata.ino() == inode).collect();
        assert!(!found.is_empty() && found[0].blocks() * 512 >= 1 << 20, "{found:?}");
    }
}
