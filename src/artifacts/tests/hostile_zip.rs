//! Zips that lie, overflow or escape. They are written by the library and then bent byte by byte.

use super::*;
use crate::artifacts::SnapshotErrorKind as Kind;

const END: usize = 22;

/// Replaces every occurrence, in the local and the central header: names of the same length.
fn bend(mut archive: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut replaced = 0;
    for at in 0..=archive.len() - from.len() {
        if archive[at..].starts_with(from) {
            archive[at..at + to.len()].copy_from_slice(to);
            replaced += 1;
        }
    }
    assert!(replaced > 0);
    archive
}

fn find(archive: &[u8], what: &[u8]) -> usize {
    archive.windows(what.len()).position(|window| window == what).expect("it is there")
}

fn named(name: &[u8]) -> Vec<u8> {
    bend(zip_of(&[("@".repeat(name.len()).as_str(), b"x", false)]), "@".repeat(name.len()).as_bytes(), name)
}

macro_rules! refused {
    ($name:ident, $archive:expr, $error:pat, $kind:ident) => {
        #[tokio::test]
        async fn $name() {
            let error = Bench::new().refusal(ArchiveFormat::Zip, &$archive).await;
            assert!(matches!(error, $error), "{error:?}");
            assert_eq!(error.status_hint(), Kind::$kind);
        }
    };
}

/// A zip with one link.
fn link(target: &str) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.add_symlink("d/l", target, zip::write::SimpleFileOptions::default()).expect("memory");
    writer.finish().expect("memory").into_inner()
}

/// Sets the upper half of an entry's external attributes, the Unix mode.
fn with_mode(mut archive: Vec<u8>, mode: u16) -> Vec<u8> {
    let at = find(&archive, b"PK\x01\x02");
    archive[at + 5] = 3;
    archive[at + 40..at + 42].copy_from_slice(&mode.to_le_bytes());
    archive
}

refused!(absolute_path, named(b"/etc/passwd"), SnapshotError::AbsolutePath { .. }, Refused);
refused!(drive_letter, named(b"C:/x"), SnapshotError::AbsolutePath { .. }, Refused);
refused!(backslash, named(b"a\\b"), SnapshotError::Backslash { .. }, Refused);
refused!(parent_component, named(b"../../x"), SnapshotError::ParentComponent { .. }, Refused);
refused!(control_character, named(b"a\0b"), SnapshotError::ControlCharacter { .. }, Refused);
refused!(name_not_utf8, named(b"a\xffb"), SnapshotError::NameNotUtf8 { .. }, Refused);
refused!(symlink_outside, link("../../etc/passwd"), SnapshotError::LinkLeavesTree { .. }, Refused);
refused!(symlink_to_nothing, link("missing"), SnapshotError::LinkToNoFile { .. }, Refused);
refused!(pipe, with_mode(named(b"p"), 0o010_644), SnapshotError::SpecialFile { .. }, Refused);
refused!(
    duplicate,
    bend(zip_of(&[("aa", b"x", false), ("bb", b"y", false)]), b"bb", b"aa"),
    SnapshotError::Duplicate { .. },
    Refused
);
refused!(
    duplicate_in_another_spelling,
    bend(zip_of(&[("d//aa", b"x", false), ("d/xaa", b"y", false)]), b"d/xaa", b"d/./a")
        .pipe(|archive| bend(archive, b"d//aa", b"d///a")),
    SnapshotError::Duplicate { .. },
    Refused
);
refused!(
    file_and_directory,
    zip_of(&[("a", b"x", false), ("a/b", b"y", false)]),
    SnapshotError::FileAndDirectory { .. },
    Refused
);
refused!(
    encrypted,
    {
        let mut archive = named(b"secret");
        let (local, central) = (find(&archive, b"PK\x03\x04"), find(&archive, b"PK\x01\x02"));
        archive[local + 6] |= 1;
        archive[central + 8] |= 1;
        archive
    },
    SnapshotError::Encrypted { .. },
    Refused
);
refused!(
    unknown_compression,
    {
        let mut archive = named(b"file");
        let (local, central) = (find(&archive, b"PK\x03\x04"), find(&archive, b"PK\x01\x02"));
        archive[local + 8] = 98;
        archive[central + 10] = 98;
        archive
    },
    SnapshotError::Compression { .. },
    Refused
);
refused!(
    another_name_in_the_local_header,
    {
        let mut archive = named(b"good");
        let at = find(&archive, b"good");
        archive[at..at + 4].copy_from_slice(b"evil");
        archive
    },
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    wrong_content,
    {
        let mut archive = zip_of(&[("a", &[5; 3000], false)]);
        let (local, central) = (find(&archive, b"PK\x03\x04"), find(&archive, b"PK\x01\x02"));
        archive[local + 14] ^= 1;
        archive[central + 16] ^= 1;
        archive
    },
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(no_zip, b"not a zip at all".repeat(20), SnapshotError::NoArchive { .. }, Malformed);
refused!(
    cut_off,
    {
        let archive = zip_of(&[("a", &[5; 3000], false)]);
        archive[..archive.len() - END - 10].to_vec()
    },
    SnapshotError::Truncated { .. },
    Malformed
);
refused!(
    trailing_garbage,
    {
        let mut archive = named(b"a");
        archive.extend(b"something");
        archive
    },
    SnapshotError::TrailingGarbage { .. },
    Malformed
);
refused!(
    something_in_front,
    {
        let mut archive = b"#!/bin/sh\n".to_vec();
        archive.extend(named(b"a"));
        archive
    },
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    hidden_entries,
    {
        let mut archive = zip_of(&[("a", b"x", false), ("b", b"y", false)]);
        let end = archive.len() - END;
        archive[end + 8] = 1;
        archive[end + 10] = 1;
        archive
    },
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    several_disks,
    {
        let mut archive = named(b"a");
        let end = archive.len() - END;
        archive[end + 8] = 9;
        archive
    },
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    zip64_directory,
    {
        let mut archive = named(b"a");
        let end = archive.len() - END;
        archive[end + 8..end + 12].fill(0xff);
        archive
    },
    SnapshotError::Zip64,
    TooLarge
);

#[tokio::test]
async fn too_many_files_and_bombs_are_stopped() {
    let names: Vec<String> = (0..21).map(|n| format!("f{n}")).collect();
    let files: Vec<TestFile<'_>> = names.iter().map(|name| (name.as_str(), &b""[..], false)).collect();
    let bench = Bench::new();
    let error = bench.refusal(ArchiveFormat::Zip, &zip_of(&files)).await;
    assert!(matches!(error, SnapshotError::TooManyFiles { limit: 20 }), "{error:?}");

    let mut archive = zip_of(&[("zeros", &vec![0; 4 << 20], false)]);
    assert!(archive.len() < 20_000);
    let error = bench.refusal(ArchiveFormat::Zip, &archive).await;
    assert!(matches!(error, SnapshotError::TooManyBytes { .. }), "{error:?}");

    // The same with headers that promise one byte.
    let (local, central) = (find(&archive, b"PK\x03\x04"), find(&archive, b"PK\x01\x02"));
    archive[local + 22..local + 26].copy_from_slice(&1_u32.to_le_bytes());
    archive[central + 24..central + 28].copy_from_slice(&1_u32.to_le_bytes());
    let error = bench.refusal(ArchiveFormat::Zip, &archive).await;
    assert!(matches!(error.status_hint(), Kind::Malformed | Kind::TooLarge), "{error:?}");
}

#[tokio::test]
async fn what_ordinary_archivers_write_is_read() {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    writer.add_directory("d", options).expect("memory");
    writer.start_file("d/größe.txt", options).expect("memory");
    writer.write_all(b"content").expect("memory");
    writer.add_symlink("l", "d/größe.txt", options).expect("memory");
    writer.set_comment("made by hand").expect("short");
    let archive = writer.finish().expect("memory").into_inner();
    let received = Bench::new().receive(ArchiveFormat::Zip, &archive).await.expect("fine");
    let paths: Vec<_> = received.files.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
    assert_eq!(paths, [("d/größe.txt", 7), ("l", 7)]);
}

/// A function at the end of a chain.
trait Pipe: Sized {
    fn pipe(self, function: impl FnOnce(Self) -> Self) -> Self {
        function(self)
    }
}

impl Pipe for Vec<u8> {}
