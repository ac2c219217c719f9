//! Removing built environments that nobody uses when all together take too much.
//!
//! An attempt says in its directory which environment it uses, before it looks whether that is there, and until the directory
//! is removed. Whoever removes an environment holds its lock while it looks for such attempts and gives the environment
//! another name; a user looks for it under the same lock. So one of them sees the other, in whichever process and
//! whenever one is killed. Under the other name nobody looks for it: it may be removed file by file, by the next one too.

use std::{
    fs::{self, TryLockError},
    io,
    path::{Path, PathBuf},
};

use super::{
    super::{
        files,
        layout::{self, AttemptDir},
    },
    kept, resolution,
};
use crate::{clock::entropy, domain::built_environment::BuiltEnvironment};

/// What the names of environments end with that are to be removed.
const DOOMED: &str = "doomed";

/// Removes environments that no attempt uses, the longest unused first, until all together take no more than `limit` bytes,
/// and what interrupted builds and removals left. Answers which are kept. While another process does this, it only answers.
pub(super) fn tidy(data_dir: &Path, limit: u64) -> io::Result<Vec<BuiltEnvironment>> {
    let environments = layout::environments(data_dir);
    layout::create_private_dir(&environments)?;
    let turn = layout::open_lock_file(&environments.join("evict.lock"))?;
    if is_free(&turn)? {
        let place = Place { data_dir, environments: &environments };
        place.remove_doomed()?;
        place.remove_unfinished()?;
        place.evict(limit)?;
    }
    Ok(kept::list(&environments)?.into_iter().map(|kept| kept.built).collect())
}

/// Takes a lock, if nobody has it.
fn is_free(lock: &fs::File) -> io::Result<bool> {
    match lock.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

struct Place<'a> {
    data_dir: &'a Path,
    environments: &'a Path,
}

impl Place<'_> {
    fn remove_doomed(&self) -> io::Result<()> {
        for entry in files::entries(self.environments)? {
            if entry.path().extension().is_some_and(|ending| ending == DOOMED) {
                files::remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Builds that were interrupted, and environments of other versions, which nobody will ask for again.
    fn remove_unfinished(&self) -> io::Result<()> {
        let finished = kept::list(self.environments)?;
        for entry in files::entries(self.environments)? {
            let name = entry.file_name();
            let Some(key) = name.to_str().filter(|name| kept::is_key(name)) else { continue };
            if !finished.iter().any(|kept| kept.built.key.as_str() == key) {
                self.remove(key, |root| kept::Complete::read(root).is_none())?;
            }
        }
        Ok(())
    }

    fn evict(&self, limit: u64) -> io::Result<()> {
        let mut kept = kept::list(self.environments)?;
        kept.sort_by_key(|kept| kept.last_used);
        let mut total = kept.iter().fold(0_u64, |sum, kept| sum.saturating_add(kept.built.bytes));
        if total <= limit {
            return Ok(());
        }
        // A first look for all of them; the one that counts is taken under the lock.
        let records = self.records()?;
        for kept in kept.iter().filter(|kept| !is_named(&records, kept.built.key.as_str())) {
            if total <= limit {
                break;
            }
            if self.remove(kept.built.key.as_str(), |_| true)? {
                total = total.saturating_sub(kept.built.bytes);
            }
        }
        Ok(())
    }

    /// Removes an environment, unless somebody builds, looks for or uses it, or it is not `unwanted` any more. Answers
    /// whether it did.
    fn remove(&self, key: &str, unwanted: impl Fn(&Path) -> bool) -> io::Result<bool> {
        let Some(doomed) = self.doom(key, unwanted)? else { return Ok(false) };
        files::remove_tree(&doomed)?;
        Ok(true)
    }

    fn doom(&self, key: &str, unwanted: impl Fn(&Path) -> bool) -> io::Result<Option<PathBuf>> {
        let root = self.environments.join(key);
        let lock = layout::open_lock_file(&root.with_extension("lock"))?;
        if !is_free(&lock)? || !unwanted(&root) || is_named(&self.records()?, key) {
            return Ok(None);
        }
        kept::forget(&root)?;
        let doomed = root.with_extension(format!("{:016x}.{DOOMED}", u64::from_le_bytes(entropy())));
        fs::rename(&root, &doomed)?;
        resolution::forget(self.environments, key)?;
        match fs::remove_file(root.with_extension("log")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Some(doomed)),
        }
    }

    /// What attempts say of the environments that they use: their own record, and what was started of them.
    fn records(&self) -> io::Result<Vec<String>> {
        let mut records = Vec::new();
        for run in files::entries(&layout::runs(self.data_dir))? {
            if !run.file_type()?.is_dir() {
                continue;
            }
            for attempt in files::entries(&run.path())? {
                let directory = AttemptDir::at(attempt.path());
                for record in [directory.environment(), directory.launch()] {
                    match fs::read(&record) {
                        Ok(content) => records.push(String::from_utf8_lossy(&content).into_owned()),
                        Err(error)
                            if matches!(
                                error.kind(),
                                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                            ) => {}
                        Err(error) => return Err(error),
                    }
                }
            }
        }
        Ok(records)
    }
}

/// Keys are digests: nothing else looks like one.
fn is_named(records: &[String], key: &str) -> bool {
    records.iter().any(|record| record.contains(key))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// A data directory with environments of 100 bytes each, the first one used last an hour before the second, and so on.
    fn data_dir(digits: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let start = SystemTime::now() - Duration::from_secs(3600 * 100);
        for (digit, age) in digits.chars().zip(0..) {
            let root = layout::environments(directory.path()).join(key(digit));
            layout::create_private_dir(&root).unwrap();
            let complete = kept::Complete {
                kind: "virtual_environment".into(),
                python_version: "3.11.7".into(),
                packages: Vec::new(),
                bytes: 100,
            };
            complete.write(&root).unwrap();
            let marker = fs::File::options().append(true).open(kept::marker(&root)).unwrap();
            marker.set_modified(start + Duration::from_secs(3600 * age)).unwrap();
        }
        directory
    }

    fn key(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    /// The first digits of what is kept.
    fn tidied(data_dir: &Path, limit: u64) -> String {
        let mut kept: Vec<char> = tidy(data_dir, limit)
            .unwrap()
            .iter()
            .filter_map(|kept| kept.key.as_str().chars().next())
            .collect();
        kept.sort_unstable();
        kept.into_iter().collect()
    }

    #[test]
    fn the_longest_unused_go_first_until_the_rest_fits() {
        let directory = data_dir("dbac");
        assert_eq!(tidied(directory.path(), 400), "abcd");
        assert_eq!(tidied(directory.path(), 399), "abc");
        assert_eq!(tidied(directory.path(), 250), "ac");
        assert_eq!(tidied(directory.path(), 0), "");
        let left: Vec<_> = files::entries(&layout::environments(directory.path())).unwrap();
        assert!(left.iter().all(|entry| entry.path().extension().is_some_and(|e| e == "lock")), "{left:?}");
    }

    #[test]
    fn what_is_used_or_built_is_kept_whatever_it_takes() {
        let directory = data_dir("abcd");
        let attempt = AttemptDir::at(layout::runs(directory.path()).join("run/1"));
        layout::create_private_dir(attempt.root()).unwrap();
        fs::write(attempt.environment(), format!("{{\"key\":\"{}\"}}", key('a'))).unwrap();
        // One that was started by an older version has no record of its own.
        fs::write(attempt.launch(), format!("{{\"program\":\"/x/{}/venv/bin/python\"}}", key('c'))).unwrap();
        let locked = layout::environments(directory.path()).join(key('d')).with_extension("lock");
        let lock = layout::open_lock_file(&locked).unwrap();
        lock.try_lock_shared().unwrap();
        assert_eq!(tidied(directory.path(), 0), "acd");
        drop(lock);
        assert_eq!(tidied(directory.path(), 0), "ac");
        fs::remove_dir_all(attempt.root()).unwrap();
        assert_eq!(tidied(directory.path(), 100), "c");
    }

    #[test]
    fn only_one_at_a_time_removes() {
        let directory = data_dir("ab");
        let turn =
            layout::open_lock_file(&layout::environments(directory.path()).join("evict.lock")).unwrap();
        turn.try_lock().unwrap();
        assert_eq!(tidied(directory.path(), 0), "ab");
        drop(turn);
        assert_eq!(tidied(directory.path(), 0), "");
    }

    #[test]
    fn what_was_interrupted_is_removed_and_what_is_being_built_is_not() {
        let directory = data_dir("a");
        let environments = layout::environments(directory.path());
        let doomed = environments.join(format!("{}.00ff.doomed", key('b')));
        for root in [environments.join(key('c')), environments.join(key('d')), doomed.clone()] {
            fs::create_dir_all(root.join("venv/bin")).unwrap();
        }
        let lock = layout::open_lock_file(&environments.join(key('d')).with_extension("lock")).unwrap();
        lock.try_lock().unwrap();
        assert_eq!(tidied(directory.path(), 1000), "a");
        assert!(!doomed.exists() && !environments.join(key('c')).exists());
        assert!(environments.join(key('d')).exists());
    }

    #[test]
    fn what_led_to_an_environment_is_forgotten_with_it() {
        let directory = data_dir("ab");
        let environments = layout::environments(directory.path());
        for (request, led_to) in [("1", 'a'), ("2", 'b'), ("3", 'a')] {
            resolution::Memory::new(&environments, request.to_owned()).keep(&key(led_to)).unwrap();
        }
        assert_eq!(tidied(directory.path(), 100), "b");
        let known: Vec<bool> = ["1", "2", "3"]
            .map(|request| resolution::Memory::new(&environments, request.to_owned()).recall().is_some())
            .into();
        assert_eq!(known, [false, true, false]);
    }
}
