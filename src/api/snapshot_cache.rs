//! What is in snapshots that were looked at before. What a snapshot holds never changes; whether it is there, and whose, is asked each
//! time before this is.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::domain::{facts::SnapshotFacts, ids::SnapshotId};

/// How much is kept: some thousand ordinary snapshots.
const MAX_BYTES: usize = 16 << 20;

/// What an entry costs beside its texts.
const OVERHEAD: usize = 64;

/// Keeps what was read of snapshots, that which was not used for longest goes first.
#[derive(Debug, Default)]
pub struct SnapshotCache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    snapshots: HashMap<SnapshotId, Snapshot>,
    bytes: usize,
    uses: u64,
}

#[derive(Debug)]
struct Snapshot {
    facts: Arc<SnapshotFacts>,
    bytes: usize,
    /// When it was last used, counted in uses.
    used: u64,
}

fn size_of(facts: &SnapshotFacts) -> usize {
    let files: usize = facts.files.keys().map(|path| path.len() + OVERHEAD).sum();
    let contents: usize =
        facts.contents.iter().map(|(path, bytes)| path.len() + bytes.len() + OVERHEAD).sum();
    files + contents
}

impl SnapshotCache {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // At worst something is kept, or not, that need not be: whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files of a snapshot and the contents of those of `wanted` that it has, perhaps of others, if all that is kept.
    pub fn get(&self, id: &SnapshotId, wanted: &BTreeSet<String>) -> Option<Arc<SnapshotFacts>> {
        let mut kept = self.kept();
        kept.uses += 1;
        let uses = kept.uses;
        let snapshot = kept.snapshots.get_mut(id)?;
        let SnapshotFacts { files, contents } = &*snapshot.facts;
        if wanted.iter().any(|path| files.contains_key(path) && !contents.contains_key(path)) {
            return None;
        }
        snapshot.used = uses;
        Some(Arc::clone(&snapshot.facts))
    }

    /// Keeps what was read, together with what was read of it before.
    pub fn put(&self, id: &SnapshotId, mut facts: SnapshotFacts) -> Arc<SnapshotFacts> {
        let mut kept = self.kept();
        kept.uses += 1;
        let used = kept.uses;
        if let Some(before) = kept.snapshots.remove(id) {
            kept.bytes -= before.bytes;
            // Others want other files of it.
            let before = before.facts.contents.iter();
            facts.contents.extend(before.map(|(path, bytes)| (path.clone(), bytes.clone())));
        }
        let bytes = size_of(&facts);
        let facts = Arc::new(facts);
        if bytes > MAX_BYTES {
            return facts;
        }
        while kept.bytes + bytes > MAX_BYTES {
            let oldest =
                kept.snapshots.iter().min_by_key(|(_, snapshot)| snapshot.used).map(|(id, _)| id.clone());
            let Some(oldest) = oldest.and_then(|id| kept.snapshots.remove(&id)) else { break };
            kept.bytes -= oldest.bytes;
        }
        kept.bytes += bytes;
        kept.snapshots.insert(id.clone(), Snapshot { facts: Arc::clone(&facts), bytes, used });
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SnapshotId {
        format!("sha256:{number:064x}").parse().unwrap()
    }

    fn facts(files: &[(&str, usize)], read: &[&str]) -> SnapshotFacts {
        let size = |path: &str| files.iter().find(|(of, _)| *of == path).unwrap().1;
        SnapshotFacts {
            files: files.iter().map(|(path, size)| ((*path).to_owned(), *size as u64)).collect(),
            contents: read.iter().map(|path| ((*path).to_owned(), vec![7; size(path)])).collect(),
        }
    }

    fn set(paths: &[&str]) -> BTreeSet<String> {
        paths.iter().map(|path| (*path).to_owned()).collect()
    }

    #[test]
    fn what_was_read_is_found_and_what_was_not_is_not() {
        let cache = SnapshotCache::default();
        let files = [("a.py", 3), ("b.txt", 4)];
        let get = |wanted: &[&str]| cache.get(&id(1), &set(wanted)).map(|facts| (*facts).clone());
        assert_eq!(get(&[]), None);
        cache.put(&id(1), facts(&files, &["a.py"]));
        assert_eq!(get(&["a.py"]), Some(facts(&files, &["a.py"])));
        assert_eq!(get(&["a.py", "missing"]), Some(facts(&files, &["a.py"])), "it has no such file");
        assert_eq!(get(&["a.py", "b.txt"]), None, "that one was not read");
        let both = cache.put(&id(1), facts(&files, &["b.txt"]));
        assert_eq!(*both, facts(&files, &["a.py", "b.txt"]));
        assert_eq!(get(&["a.py", "b.txt"]).as_ref(), Some(&*both));
        assert_eq!(cache.get(&id(2), &set(&[])), None);
    }

    #[test]
    fn it_stays_small_and_the_longest_unused_goes_first() {
        let cache = SnapshotCache::default();
        let third = [("a", MAX_BYTES / 3 - 1000)];
        for number in 1..=3 {
            cache.put(&id(number), facts(&third, &["a"]));
        }
        assert!(cache.get(&id(1), &set(&["a"])).is_some());
        cache.put(&id(4), facts(&third, &["a"]));
        assert!(cache.get(&id(2), &set(&["a"])).is_none(), "the longest unused");
        for number in [1, 3, 4] {
            assert!(cache.get(&id(number), &set(&["a"])).is_some(), "{number}");
        }
        cache.put(&id(5), facts(&[("a", MAX_BYTES)], &["a"]));
        assert!(cache.get(&id(5), &set(&[])).is_none(), "larger than all that is kept");
        assert!(cache.kept().bytes <= MAX_BYTES);
    }
}
