//! Names of objects. Names that users choose become one safe part each, so that no name can reach, hide or clash
//! with another object.

use std::fmt::Write as _;

use object_store::path::Path;
use sha2::{Digest as _, Sha256};

use crate::domain::ids::{RunId, SnapshotId};

/// Longer parts are replaced by their hash: file systems end at 255 bytes, and the store adds a suffix of its own.
const MAX_PART_BYTES: usize = 200;
const HASHED: &str = "sha256-";

/// The directory of all snapshots.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// A snapshot's canonical tar.
pub(super) fn snapshot(id: &SnapshotId) -> Path {
    Path::from_iter([SNAPSHOTS.to_owned(), format!("{}.tar", id.hex())])
}

/// Everything of all snapshots.
pub(super) fn snapshots() -> Path {
    Path::from(SNAPSHOTS)
}

/// The snapshot that is stored under a key, if one is.
pub(super) fn snapshot_of(key: &Path) -> Option<SnapshotId> {
    format!("sha256:{}", key.filename()?.strip_suffix(".tar")?).parse().ok()
}

/// Everything of a run.
pub(super) fn run(run: RunId) -> Path {
    Path::from_iter(["runs".to_owned(), run.to_string()])
}

/// One segment of a log, by its start offset.
pub(super) fn log_segment(run_id: RunId, attempt: u32, name: &str, start: u64) -> Path {
    run(run_id).join(attempt.to_string()).join("logs").join(part(name)).join(format!("{start:020}"))
}

/// One output file.
pub(super) fn output(run_id: RunId, attempt: u32, name: &str) -> Path {
    run(run_id).join(attempt.to_string()).join("outputs").join(part(name))
}

/// Everything that workers and the pods of an attempt hand each other.
pub(super) fn exchange(run_id: RunId, attempt: u32) -> Path {
    run(run_id).join(attempt.to_string()).join("exchange")
}

/// What the pods of an attempt begin with.
pub(super) fn bundle(run_id: RunId, attempt: u32) -> Path {
    exchange(run_id, attempt).join("bundle.tar")
}

/// What the pods of an attempt sent.
pub(super) fn returned(run_id: RunId, attempt: u32) -> Path {
    exchange(run_id, attempt).join("returned")
}

/// What is noted of an attempt under a name.
pub(super) fn note(run_id: RunId, attempt: u32, name: &str) -> Path {
    exchange(run_id, attempt).join("notes").join(format!("{}.json", part(name)))
}

/// A name as one part of a key: letters, digits, `_`, `-` and inner dots stay; every other byte becomes `=XX`.
/// (`=` and not `%`: the store escapes `%` itself.)
fn part(name: &str) -> String {
    let mut part = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => part.push(char::from(byte)),
            b'.' if at > 0 => part.push('.'),
            // Writing to a String cannot fail.
            _ => drop(write!(part, "={byte:02X}")),
        }
    }
    if part.is_empty() || part.len() > MAX_PART_BYTES || part.starts_with(HASHED) {
        format!("{HASHED}{}", hex(&Sha256::digest(name.as_bytes())))
    } else {
        part
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_one_harmless_part() {
        assert_eq!(part("user_logs/std_log.txt"), "user_logs=2Fstd_log.txt");
        assert_eq!(part(".."), "=2E.");
        assert_eq!(part("a#1"), "a=231");
        assert_eq!(part("a=2Fb"), "a=3D2Fb");
        for long in ["数".repeat(80), "x".repeat(201), String::new(), "sha256-x".to_owned()] {
            assert!(part(&long).starts_with(HASHED) && part(&long).len() == HASHED.len() + 64);
        }
    }

    #[test]
    fn a_snapshot_is_known_by_its_key() {
        let id = SnapshotId::from_digest([7; 32]);
        assert_eq!(snapshot_of(&snapshot(&id)), Some(id));
        assert_eq!(snapshot_of(&snapshots().join("stray.tar")), None);
    }

    proptest::proptest! {
        #[test]
        fn different_names_never_share_a_key(one: String, other: String) {
            proptest::prop_assert_eq!(one == other, part(&one) == part(&other));
            proptest::prop_assert!(part(&one).len() <= MAX_PART_BYTES);
        }
    }
}
