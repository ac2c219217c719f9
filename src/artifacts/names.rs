//! Paths inside archives: written by strangers, so nothing in them is taken on trust.

use super::error::SnapshotError;

/// The longest path and the longest part of one that common file systems can hold.
const MAX_PATH_BYTES: usize = 1024;
const MAX_PART_BYTES: usize = 255;

/// The path of an entry in its one normal spelling: parts joined by `/`, without `.` and empty parts.
/// `None` is the root itself (`./`), which only a directory entry may name.
pub(super) fn normalise(raw: &[u8], drive_letters: bool) -> Result<Option<String>, SnapshotError> {
    if raw.is_empty() {
        return Err(SnapshotError::EmptyName);
    }
    let Ok(name) = std::str::from_utf8(raw) else {
        return Err(SnapshotError::NameNotUtf8 { entry: readable(raw) });
    };
    if name.chars().any(char::is_control) {
        return Err(SnapshotError::ControlCharacter { entry: readable(raw) });
    }
    if name.starts_with('/') || (drive_letters && has_drive_letter(name)) {
        return Err(SnapshotError::AbsolutePath { entry: readable(raw) });
    }
    if name.contains('\\') {
        return Err(SnapshotError::Backslash { entry: readable(raw) });
    }
    let mut path = String::with_capacity(name.len());
    for part in name.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            return Err(SnapshotError::ParentComponent { entry: readable(raw) });
        }
        if part.len() > MAX_PART_BYTES {
            return Err(SnapshotError::PathTooLong { entry: readable(raw) });
        }
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(part);
    }
    if path.len() > MAX_PATH_BYTES {
        return Err(SnapshotError::PathTooLong { entry: readable(raw) });
    }
    Ok((!path.is_empty()).then_some(path))
}

/// `C:` and the like.
fn has_drive_letter(name: &str) -> bool {
    matches!(name.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic())
}

/// Where a link leads: `target` is read from the directory of `link` (a symbolic link) or from the root (a hard
/// link). An error when it leaves the tree; `None` is the root.
pub(super) fn resolve(link: &str, target: &[u8], from_root: bool) -> Result<Option<String>, SnapshotError> {
    let leaves = || SnapshotError::LinkLeavesTree { entry: link.to_owned(), target: readable(target) };
    let Ok(text) = std::str::from_utf8(target) else {
        return Err(SnapshotError::NameNotUtf8 { entry: readable(target) });
    };
    if text.starts_with('/') || text.contains('\\') {
        return Err(leaves());
    }
    let mut parts: Vec<&str> = match link.rsplit_once('/') {
        Some((parent, _)) if !from_root => parent.split('/').collect(),
        _ => Vec::new(),
    };
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part != ".." {
            parts.push(part);
        } else if parts.pop().is_none() {
            return Err(leaves());
        }
    }
    Ok((!parts.is_empty()).then(|| parts.join("/")))
}

/// The directories that a path lies in, innermost first.
pub(super) fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/').map(|(parent, _)| parent), |at| {
        at.rsplit_once('/').map(|(parent, _)| parent)
    })
}

/// A name for a message: escaped and shortened, so that it can be shown and logged.
pub(super) fn readable(raw: &[u8]) -> String {
    let mut text = String::new();
    for character in String::from_utf8_lossy(&raw[..raw.len().min(400)]).chars().take(120) {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    if raw.len() > text.len() && raw.len() > 120 {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_path_become_one() {
        for name in ["a/b.py", "./a/b.py", "a//b.py", "a/./b.py", "././a/b.py/"] {
            assert_eq!(normalise(name.as_bytes(), true).expect("fine"), Some("a/b.py".to_owned()), "{name}");
        }
        assert_eq!(normalise(b"./", true).expect("fine"), None);
        assert_eq!(
            normalise("größe/数据.csv".as_bytes(), true).expect("fine"),
            Some("größe/数据.csv".to_owned())
        );
    }

    #[test]
    fn hostile_names_are_told_apart() {
        use SnapshotError as E;
        assert!(matches!(normalise(b"", true), Err(E::EmptyName)));
        assert!(matches!(normalise(b"a\xff", true), Err(E::NameNotUtf8 { .. })));
        assert!(matches!(normalise(b"a\0b", true), Err(E::ControlCharacter { .. })));
        assert!(matches!(normalise(b"a\nb", true), Err(E::ControlCharacter { .. })));
        assert!(matches!(normalise(b"/etc/passwd", true), Err(E::AbsolutePath { .. })));
        assert!(matches!(normalise(b"C:/x", true), Err(E::AbsolutePath { .. })));
        assert!(matches!(normalise(b"C:/x", false), Ok(Some(_))));
        assert!(matches!(normalise(b"a\\..\\b", true), Err(E::Backslash { .. })));
        assert!(matches!(normalise(b"a/../b", true), Err(E::ParentComponent { .. })));
        assert!(matches!(normalise(b"..", true), Err(E::ParentComponent { .. })));
        assert!(matches!(normalise(&[b'x'; 256], true), Err(E::PathTooLong { .. })));
        assert!(matches!(normalise("xy/".repeat(400).as_bytes(), true), Err(E::PathTooLong { .. })));
        assert!(matches!(normalise(&[b'x'; 255], true), Ok(Some(_))));
    }

    #[test]
    fn links_are_resolved_inside_the_tree_only() {
        let resolved = |link, target: &str| resolve(link, target.as_bytes(), false);
        assert_eq!(resolved("a/l", "../b").expect("inside"), Some("b".to_owned()));
        assert_eq!(resolved("a/b/l", "../../x/y").expect("inside"), Some("x/y".to_owned()));
        assert_eq!(resolved("a/l", "..").expect("inside"), None);
        for (link, target) in
            [("l", "../x"), ("a/l", "../../x"), ("l", "/etc/passwd"), ("a/l", "x/../../../y")]
        {
            assert!(
                matches!(resolved(link, target), Err(SnapshotError::LinkLeavesTree { .. })),
                "{link} {target}"
            );
        }
        assert_eq!(resolve("a/l", b"a/b", true).expect("inside"), Some("a/b".to_owned()));
    }

    #[test]
    fn messages_stay_short_and_printable() {
        assert_eq!(readable(b"a\x1b[2Jb"), "a\\u{1b}[2Jb");
        assert!(readable(&[b'x'; 5000]).chars().count() <= 121);
    }
}
