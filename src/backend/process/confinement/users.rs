//! Which attempt has which user. Written down where it survives every process of the service: in the attempt's directory, and
//! for all services of this machine in one place.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{super::files, super::layout, sweep};
use crate::{backend::BackendError, domain::run_users::UserRange};

/// Where the services of this machine tell one another: gone with a restart, as the processes are.
const CLAIMS: &str = "/run/estimatord/users";

/// What an older version wrote in an attempt's directory.
#[derive(Debug, Deserialize)]
struct Assigned {
    user: u32,
}

/// Where it stands: a link that leads nowhere, whose text is the user. It is there with its text or not at all, whatever the machine
/// does, and is kept with the other names in the directory before anything is given to the user.
fn record(attempt: &Path) -> PathBuf {
    attempt.join("user")
}

fn write_record(attempt: &Path, user: u32) -> io::Result<()> {
    let record = record(attempt);
    match fs::remove_file(&record) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(user.to_string(), record)
}

/// The user of the attempt in this directory, if it was given one.
pub(in super::super) fn assigned(attempt: &Path) -> Result<Option<u32>, BackendError> {
    let record = record(attempt);
    let failed = |source| BackendError::Io { action: format!("read {}", record.display()), source };
    match fs::read_link(&record) {
        Ok(text) => {
            let user = text.to_str().and_then(|text| text.parse().ok());
            user.map(Some).ok_or_else(|| BackendError::Damaged {
                path: record.clone(),
                detail: format!("{} is no user", text.display()),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let older = layout::read_json::<Assigned>(&attempt.join("user.json"))?;
            Ok(older.map(|assigned| assigned.user))
        }
        Err(error) => Err(failed(error)),
    }
}

/// The user of the attempt in this directory: the one that it has, else one that no other attempt has, no process, and no attempt of
/// another service on this machine. `seed` spreads them.
pub(in super::super) async fn assign(
    data_dir: &Path,
    attempt: &Path,
    range: UserRange,
    seed: u64,
) -> Result<u32, BackendError> {
    let failed = |source| BackendError::Io {
        action: format!("find a user for the run in {}", attempt.display()),
        source,
    };
    make_claims().map_err(failed)?;
    // Held while it is looked for: one at a time, of all services.
    let lock = layout::lock(&Path::new(CLAIMS).with_extension("lock")).await.map_err(failed)?;
    let claimed = claimed().map_err(failed)?;
    let own = assigned(attempt)?;
    // After a restart of the machine another service may have claimed it.
    if let Some(user) = own
        && claimed.get(&user).is_none_or(|by| by == attempt)
    {
        claim(user, attempt).map_err(failed)?;
        return Ok(user);
    }
    let mut taken: HashSet<u32> = claimed.into_keys().collect();
    taken.extend(recorded(data_dir).map_err(failed)?);
    taken.extend(running().map_err(failed)?);
    let user = range.choose(seed, |id| taken.contains(&id)).ok_or_else(|| {
        failed(io::Error::other(format!("every user of --run-uids {range} has a run: give a larger range")))
    })?;
    write_record(attempt, user).map_err(failed)?;
    claim(user, attempt).map_err(failed)?;
    drop(lock);
    Ok(user)
}

/// Says that an attempt whose directory is gone needs its user no more.
pub(in super::super) fn give_back(user: u32, attempt: &Path) -> io::Result<()> {
    let path = Path::new(CLAIMS).join(user.to_string());
    match fs::read(&path) {
        Ok(by) if by == attempt.as_os_str().as_encoded_bytes() => fs::remove_file(&path),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Makes the place where users are claimed.
pub(super) fn make_claims() -> io::Result<()> {
    layout::create_private_dir(Path::new(CLAIMS))
}

fn claim(user: u32, attempt: &Path) -> io::Result<()> {
    layout::write_whole(&Path::new(CLAIMS).join(user.to_string()), attempt.as_os_str().as_encoded_bytes())
}

/// Who has which user, by what the services of this machine say. What an attempt that is gone had is free again.
fn claimed() -> io::Result<std::collections::HashMap<u32, PathBuf>> {
    use std::os::unix::ffi::OsStringExt as _;
    let mut claimed = std::collections::HashMap::new();
    for entry in files::entries(Path::new(CLAIMS))? {
        let Some(user) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let by = PathBuf::from(std::ffi::OsString::from_vec(fs::read(entry.path())?));
        // Written before the claim: a claim without it is of an attempt that is gone.
        if assigned(&by).is_ok_and(|assigned| assigned == Some(user)) {
            claimed.insert(user, by);
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(claimed)
}

/// The users of all attempts in a data directory.
fn recorded(data_dir: &Path) -> io::Result<Vec<u32>> {
    let mut users = Vec::new();
    for run in files::entries(&layout::runs(data_dir))? {
        if !run.file_type()?.is_dir() {
            continue;
        }
        for attempt in files::entries(&run.path())? {
            users.extend(assigned(&attempt.path()).map_err(io::Error::other)?);
        }
    }
    Ok(users)
}

/// The users of all processes.
fn running() -> io::Result<Vec<u32>> {
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let pid = entry?.file_name().to_str().and_then(|name| name.parse().ok());
        users.extend(pid.map(sweep::user_ids).unwrap_or_default());
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_an_attempt_is_read_back_also_where_an_older_version_wrote_it() {
        let attempt = tempfile::tempdir().unwrap();
        let attempt = attempt.path();
        assert_eq!(assigned(attempt).unwrap(), None);
        fs::write(attempt.join("user.json"), r#"{"user": 200001}"#).unwrap();
        assert_eq!(assigned(attempt).unwrap(), Some(200_001));
        for user in [200_002, 200_003] {
            write_record(attempt, user).unwrap();
            assert_eq!(assigned(attempt).unwrap(), Some(user));
        }
        fs::remove_file(record(attempt)).unwrap();
        symlink("nobody", record(attempt)).unwrap();
        assert!(matches!(assigned(attempt), Err(BackendError::Damaged { .. })));
    }
}
