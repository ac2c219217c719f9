//! Tars that lie, overflow or escape.

use tar::EntryType;

use super::*;
use crate::artifacts::SnapshotErrorKind as Kind;

macro_rules! refused {
    ($name:ident, $archive:expr, $error:pat, $kind:ident) => {
        #[tokio::test]
        async fn $name() {
            let archive = $archive;
            let error = Bench::new().refusal(ArchiveFormat::Tar, &archive).await;
            assert!(matches!(error, $error), "{error:?}");
            assert_eq!(error.status_hint(), Kind::$kind);
            let zipped = Bench::new().refusal(ArchiveFormat::TarGz, &gzip(&archive)).await;
            assert_eq!(std::mem::discriminant(&error), std::mem::discriminant(&zipped), "{zipped:?}");
        }
    };
}

fn tar() -> RawTar {
    RawTar::default()
}

refused!(absolute_path, tar().file("/etc/passwd", b"x").end(), SnapshotError::AbsolutePath { .. }, Refused);
refused!(
    parent_component,
    tar().file("a/../../b", b"x").end(),
    SnapshotError::ParentComponent { .. },
    Refused
);
refused!(backslash, tar().file("a\\b", b"x").end(), SnapshotError::Backslash { .. }, Refused);
refused!(empty_name, tar().file("", b"x").end(), SnapshotError::EmptyName, Refused);
refused!(
    control_character,
    tar().file("a\x1bb", b"x").end(),
    SnapshotError::ControlCharacter { .. },
    Refused
);
refused!(
    name_not_utf8,
    tar().member(EntryType::Regular, b"a\xff", b"", b"x").end(),
    SnapshotError::NameNotUtf8 { .. },
    Refused
);
refused!(
    nul_in_a_pax_path,
    tar().pax(EntryType::XHeader, &[("path", "a\0b")]).file("a", b"x").end(),
    SnapshotError::ControlCharacter { .. },
    Refused
);
refused!(
    absolute_pax_path_behind_a_harmless_name,
    tar().pax(EntryType::XHeader, &[("path", "/etc/passwd")]).file("a", b"x").end(),
    SnapshotError::AbsolutePath { .. },
    Refused
);
refused!(
    escaping_long_name,
    tar().member(EntryType::GNULongName, b"././@LongLink", b"", b"../../etc/passwd\0").file("a", b"x").end(),
    SnapshotError::ParentComponent { .. },
    Refused
);
refused!(
    name_given_twice,
    tar()
        .pax(EntryType::XHeader, &[("path", "b")])
        .member(EntryType::GNULongName, b"././@LongLink", b"", b"c\0")
        .file("a", b"x")
        .end(),
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    endless_long_name,
    tar().member(EntryType::GNULongName, b"././@LongLink", b"", &[b'x'; 70_000]).file("a", b"x").end(),
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    two_sizes,
    tar().pax(EntryType::XHeader, &[("size", "3")]).file("a", b"x").end(),
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    renaming_global_header,
    tar().pax(EntryType::XGlobalHeader, &[("path", "b")]).file("a", b"x").end(),
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    broken_pax_record,
    tar().member(EntryType::XHeader, b"pax", b"", b"99 path=b\n").file("a", b"x").end(),
    SnapshotError::Corrupt { .. },
    Malformed
);
refused!(
    long_path,
    tar().pax(EntryType::XHeader, &[("path", &"abc/".repeat(300))]).file("a", b"x").end(),
    SnapshotError::PathTooLong { .. },
    Refused
);
refused!(
    long_part,
    tar().pax(EntryType::XHeader, &[("path", &"x".repeat(256))]).file("a", b"x").end(),
    SnapshotError::PathTooLong { .. },
    Refused
);
refused!(
    symlink_to_the_root,
    tar().link("l", "/etc/passwd").end(),
    SnapshotError::LinkLeavesTree { .. },
    Refused
);
refused!(symlink_upwards, tar().link("a/l", "../../x").end(), SnapshotError::LinkLeavesTree { .. }, Refused);
refused!(
    long_link_upwards,
    tar()
        .member(EntryType::GNULongLink, b"././@LongLink", b"", b"../x\0")
        .link("l", "x")
        .file("x", b"x")
        .end(),
    SnapshotError::LinkLeavesTree { .. },
    Refused
);
refused!(symlink_to_nothing, tar().link("l", "missing").end(), SnapshotError::LinkToNoFile { .. }, Refused);
refused!(
    file_through_a_symlink,
    tar().link("d", "e").file("e/f", b"x").file("d/g", b"y").end(),
    SnapshotError::FileAndDirectory { .. },
    Refused
);
refused!(
    symlink_circle,
    tar().link("a", "b").link("b", "a").end(),
    SnapshotError::LinkToNoFile { .. },
    Refused
);
refused!(
    hardlink_outside,
    tar().member(EntryType::Link, b"h", b"../x", b"").end(),
    SnapshotError::LinkLeavesTree { .. },
    Refused
);
refused!(
    links_that_multiply_a_file,
    {
        let big = tar().file("big", &[7; 30_000]);
        (0..10).fold(big, |tar, n| tar.link(&format!("l{n}"), "big")).end()
    },
    SnapshotError::TooManyBytes { .. },
    TooLarge
);
refused!(
    device,
    tar().member(EntryType::Char, b"null", b"", b"").end(),
    SnapshotError::SpecialFile { what: "a device", .. },
    Refused
);
refused!(
    pipe,
    tar().member(EntryType::Fifo, b"p", b"", b"").end(),
    SnapshotError::SpecialFile { what: "a named pipe", .. },
    Refused
);
refused!(
    unknown_kind,
    tar().member(EntryType::new(b'M'), b"m", b"", b"x").end(),
    SnapshotError::SpecialFile { .. },
    Refused
);
refused!(
    sparse,
    tar().member(EntryType::GNUSparse, b"s", b"", b"").end(),
    SnapshotError::Sparse { .. },
    Refused
);
refused!(
    pax_sparse,
    tar().pax(EntryType::XHeader, &[("GNU.sparse.realsize", "99999999999")]).file("a", b"x").end(),
    SnapshotError::Sparse { .. },
    Refused
);
refused!(duplicate, tar().file("a", b"x").file("a", b"y").end(), SnapshotError::Duplicate { .. }, Refused);
refused!(
    duplicate_in_another_spelling,
    tar().file("d/a", b"x").file("./d//a", b"y").end(),
    SnapshotError::Duplicate { .. },
    Refused
);
refused!(
    file_then_below_it,
    tar().file("a", b"x").file("a/b/c", b"y").end(),
    SnapshotError::FileAndDirectory { .. },
    Refused
);
refused!(
    directory_then_file,
    tar().member(EntryType::Directory, b"a/", b"", b"").file("a", b"y").end(),
    SnapshotError::FileAndDirectory { .. },
    Refused
);
refused!(
    directory_below_a_file,
    tar().file("a", b"y").member(EntryType::Directory, b"a/b/", b"", b"").end(),
    SnapshotError::FileAndDirectory { .. },
    Refused
);
refused!(
    too_many_files,
    (0..21).fold(tar(), |tar, n| tar.file(&format!("f{n}"), b"")).end(),
    SnapshotError::TooManyFiles { limit: 20 },
    TooLarge
);
refused!(
    too_many_bytes,
    tar().file("a", &[1; 60_000]).file("b", &[2; 60_000]).end(),
    SnapshotError::TooManyBytes { limit: 100_000, .. },
    TooLarge
);
refused!(
    size_that_is_not_there,
    tar().member_of_size(EntryType::Regular, b"a", b"", b"x", u64::MAX / 2).end(),
    SnapshotError::Truncated { .. },
    Malformed
);
refused!(no_end_marker, tar().file("a", b"x").0, SnapshotError::Truncated { .. }, Malformed);
refused!(cut_in_a_block, tar().file("a", b"x").0[..700].to_vec(), SnapshotError::Truncated { .. }, Malformed);
refused!(
    header_for_nothing,
    tar().pax(EntryType::XHeader, &[("path", "b")]).end(),
    SnapshotError::Truncated { .. },
    Malformed
);
refused!(text, b"print('hello')\n".to_vec(), SnapshotError::NoArchive { .. }, Malformed);
refused!(long_text, b"print('hello')\n".repeat(200), SnapshotError::NoArchive { .. }, Malformed);
refused!(
    trailing_garbage,
    {
        let mut archive = tar().file("a", b"x").end();
        archive.extend(tar().file("b", b"y").end());
        archive
    },
    SnapshotError::TrailingGarbage { .. },
    Malformed
);
refused!(
    wrong_checksum,
    {
        let mut archive = tar().file("a", b"x").end();
        archive[0] = b'b';
        archive
    },
    SnapshotError::Corrupt { .. },
    Malformed
);

#[tokio::test]
async fn directories_without_end_are_stopped() {
    let directory = |tar: RawTar, n| tar.member(EntryType::Directory, format!("d{n}").as_bytes(), b"", b"");
    let archive = (0..1201).fold(tar(), directory).end();
    let error = Bench::new().refusal(ArchiveFormat::TarGz, &gzip(&archive)).await;
    assert!(matches!(error, SnapshotError::TooManyFiles { .. }), "{error:?}");
}

#[tokio::test]
async fn a_bomb_is_stopped_at_the_limit() {
    // 8 MiB of zeros in a few KiB; the header is honest, so only counting helps.
    let archive = gzip(&tar().file("zeros", &vec![0; 8 << 20]).end());
    assert!(archive.len() < 20_000);
    let error = Bench::new().refusal(ArchiveFormat::TarGz, &archive).await;
    assert!(matches!(&error, SnapshotError::TooManyBytes { entry, .. } if entry == "zeros"), "{error:?}");
    // And one whose weight lies behind the end marker.
    let mut archive = tar().file("a", b"x").end();
    archive.resize(12 << 20, 0);
    let error = Bench::new().refusal(ArchiveFormat::TarGz, &gzip(&archive)).await;
    assert!(matches!(error, SnapshotError::TooManyBytes { .. }), "{error:?}");
    assert!(!error.to_string().contains("``"), "{error}");
}

#[tokio::test]
async fn broken_gzip_is_told_from_cut_gzip() {
    let archive = gzip(&tar().file("a", &[9; 5000]).end());
    let bench = Bench::new();
    let cut = bench.refusal(ArchiveFormat::TarGz, &archive[..archive.len() - 4]).await;
    assert!(matches!(cut, SnapshotError::Truncated { .. }), "{cut:?}");
    let mut flipped = archive.clone();
    let at = archive.len() - 6;
    flipped[at] ^= 1;
    let flipped = bench.refusal(ArchiveFormat::TarGz, &flipped).await;
    assert!(matches!(flipped, SnapshotError::Corrupt { .. }), "{flipped:?}");
    let mut longer = archive.clone();
    longer.extend(b"and something else that is no gzip member");
    let longer = bench.refusal(ArchiveFormat::TarGz, &longer).await;
    assert!(matches!(longer, SnapshotError::TrailingGarbage { .. }), "{longer:?}");
    let plain = bench.refusal(ArchiveFormat::TarGz, &tar().file("a", b"x").end()).await;
    assert!(matches!(plain, SnapshotError::NoArchive { .. }), "{plain:?}");
    let text = bench.refusal(ArchiveFormat::TarGz, b"import chainer\n").await;
    assert!(text.to_string().starts_with("the body is no tar.gz archive"), "{text}");
    let first_byte = bench.refusal(ArchiveFormat::TarGz, &archive[..1]).await;
    assert!(matches!(first_byte, SnapshotError::Truncated { .. }), "{first_byte:?}");
}

#[tokio::test]
async fn an_empty_body_is_called_empty() {
    for format in [ArchiveFormat::Tar, ArchiveFormat::TarGz, ArchiveFormat::Zip] {
        let error = Bench::new().refusal(format, b"").await;
        assert!(error.to_string().starts_with("the body is empty"), "{error}");
        assert_eq!(error.status_hint(), Kind::Malformed);
    }
}

#[tokio::test]
async fn links_inside_the_tree_become_copies() {
    let archive = tar()
        .file("data/real.txt", b"content")
        .link("alias", "data/real.txt")
        .link("data/chain", "../alias")
        .member(EntryType::Link, b"hard", b"data/real.txt", b"")
        .end();
    let bench = Bench::new();
    let received = bench.receive(ArchiveFormat::Tar, &archive).await.expect("fine");
    let plain: Vec<TestFile<'_>> =
        ["alias", "data/chain", "data/real.txt", "hard"].map(|path| (path, &b"content"[..], false)).into();
    assert_eq!(received.id, bench.receive(ArchiveFormat::Tar, &tar_of(&plain)).await.expect("fine").id);
    assert_eq!(received.bytes, 28);
}

#[tokio::test]
async fn harmless_extras_are_read() {
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let archive = tar()
        .pax(EntryType::XGlobalHeader, &[("comment", "0123456789abcdef")])
        .member(EntryType::Directory, b"./", b"", b"")
        .pax(EntryType::XHeader, &[("path", &long), ("mtime", "1.5"), ("LIBARCHIVE.xattr.user.x", "a\nb")])
        .file("short", b"x")
        .end();
    let received = Bench::new().receive(ArchiveFormat::Tar, &archive).await.expect("fine");
    assert_eq!(received.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), [long]);
}
