//! What goes between workers and pods: packed, unpacked, and not trusted.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};

use super::{
    pack::{Written, pack_bundle, pack_returned},
    unpack::{unpack_bundle, unpack_returned},
};

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|error| panic!("{}: {error}", path.as_ref().display()))
}

/// Packs and unpacks a bundle; answers the directories of the pod.
fn through(work: &Path, home: &[(&str, std::path::PathBuf)]) -> (tempfile::TempDir, tempfile::TempDir) {
    let (pod_work, pod_home) = (directory(), directory());
    let tar = pack_bundle(work, home, tempfile::tempfile().unwrap()).unwrap();
    unpack_bundle(tar, pod_work.path(), pod_home.path()).unwrap();
    (pod_work, pod_home)
}

#[test]
fn a_bundle_arrives_as_it_was() {
    let from = directory();
    let (work, data) = (from.path().join("work"), from.path().join("data"));
    write(&work.join("train.py"), "print(1)");
    write(&work.join("bin/tool"), "#!/bin/sh");
    fs::set_permissions(work.join("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(work.join("outputs")).unwrap();
    symlink("train.py", work.join("same.py")).unwrap();
    write(&data.join("inputs/d/x"), "data");
    // As the worker stages data that the definition wants in the working directory.
    symlink(data.join("inputs/d"), work.join("here")).unwrap();
    let (pod_work, pod_home) = through(&work, &[("data", data)]);
    assert_eq!(read(pod_work.path().join("same.py")), "print(1)");
    assert!(pod_work.path().join("outputs").is_dir());
    let mode = |name| fs::metadata(pod_work.path().join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("bin/tool"), mode("train.py")), (0o755, 0o644));
    assert_eq!(read(pod_home.path().join("data/inputs/d/x")), "data");
    assert_eq!(fs::read_link(pod_work.path().join("here")).unwrap(), Path::new("/estimatord/data/inputs/d"));
}

#[test]
fn what_links_lead_to_elsewhere_is_packed_in_their_place() {
    let from = directory();
    let (work, data, store) = (from.path().join("work"), from.path().join("data"), directory());
    fs::create_dir(&work).unwrap();
    write(&store.path().join("set/a.csv"), "a");
    fs::create_dir_all(data.join("inputs/d")).unwrap();
    symlink(store.path().join("set"), data.join("inputs/d/set")).unwrap();
    symlink(store.path().join("set/a.csv"), data.join("inputs/d/one")).unwrap();
    // A relative link that leads out means the same as an absolute one.
    symlink("../../../../../../etc/hostname", work.join("out")).unwrap();
    let (pod_work, pod_home) = through(&work, &[("data", data.clone())]);
    assert_eq!(read(pod_home.path().join("data/inputs/d/set/a.csv")), "a");
    assert_eq!(read(pod_home.path().join("data/inputs/d/one")), "a");
    assert!(!pod_work.path().join("out").is_symlink());
    // A datastore whose folder holds a link to itself has no end.
    symlink(store.path(), store.path().join("set/again")).unwrap();
    let error = pack_bundle(&work, &[("data", data)], tempfile::tempfile().unwrap()).unwrap_err();
    assert!(error.to_string().contains("circle"), "{error}");
}

#[test]
fn a_bundle_is_unpacked_over_what_a_killed_one_left() {
    let from = directory();
    let work = from.path().join("work");
    write(&work.join("a"), "whole");
    symlink("a", work.join("b")).unwrap();
    let (pod_work, pod_home) = (directory(), directory());
    write(&pod_work.path().join("a"), "ha");
    symlink("nowhere", pod_work.path().join("b")).unwrap();
    let tar = pack_bundle(&work, &[], tempfile::tempfile().unwrap()).unwrap();
    unpack_bundle(tar, pod_work.path(), pod_home.path()).unwrap();
    assert_eq!(read(pod_work.path().join("b")), "whole");
}

fn written(root: &Path, path: &str, name: &str) -> Written {
    Written { root: root.to_owned(), path: path.to_owned(), name: name.to_owned() }
}

#[test]
fn what_a_script_wrote_comes_back_without_links() {
    let pod = directory();
    let (work, secrets) = (pod.path().join("work"), pod.path().join("secrets"));
    write(&work.join("outputs/deep/model"), "model");
    write(&secrets.join("token"), "secret");
    symlink(secrets.join("token"), work.join("outputs/token")).unwrap();
    symlink(&secrets, work.join("outputs/all")).unwrap();
    symlink(&secrets, work.join("logs")).unwrap();
    nix::unistd::mkfifo(&work.join("outputs/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::create_dir_all(work.join("outputs/empty")).unwrap();
    let places = [
        written(&work, "outputs", "work/outputs"),
        written(&work, "logs", "work/logs"),
        written(&work, "never", "work/never"),
    ];
    let tar = pack_returned(&places, Vec::new()).unwrap();
    assert!(!tar.windows(6).any(|window| window == b"secret"));
    let into = directory();
    let unpacked = unpack_returned(&tar[..], into.path()).unwrap();
    assert_eq!((unpacked.files, unpacked.bytes), (1, 5));
    assert_eq!(read(into.path().join("work/outputs/deep/model")), "model");
    assert!(into.path().join("work/outputs/empty").is_dir());
    let mut names: Vec<_> = fs::read_dir(into.path().join("work/outputs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["deep", "empty"]);
    assert!(!into.path().join("work/logs").exists());
}

#[test]
fn of_two_pods_the_first_counts() {
    let into = directory();
    for text in ["first", "second"] {
        let pod = directory();
        write(&pod.path().join("outputs/same"), text);
        write(&pod.path().join("outputs").join(text), text);
        let places = [written(pod.path(), "outputs", "work/outputs")];
        unpack_returned(&pack_returned(&places, Vec::new()).unwrap()[..], into.path()).unwrap();
    }
    let outputs = into.path().join("work/outputs");
    assert_eq!((read(outputs.join("same")), read(outputs.join("second"))), ("first".into(), "second".into()));
}

/// A tar with one entry, whose name no builder would write.
fn forged(name: &str, kind: EntryType, link: Option<&str>) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(kind);
    header.set_size(if kind == EntryType::Regular { 4 } else { 0 });
    header.set_mode(0o644);
    if let Some(link) = link {
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    }
    header.set_cksum();
    let mut tar = Builder::new(Vec::new());
    tar.append(&header, if kind == EntryType::Regular { &b"evil"[..] } else { &[] }).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn what_pods_send_gets_nowhere_else() {
    let outside = directory();
    for (name, kind, link) in [
        ("../evil", EntryType::Regular, None),
        ("/etc/evil", EntryType::Regular, None),
        ("work/../../evil", EntryType::Regular, None),
        ("evil", EntryType::Regular, None),
        ("work/a", EntryType::Symlink, Some("/etc")),
        ("work/a", EntryType::Link, Some("/etc/passwd")),
        ("work/a", EntryType::Fifo, None),
        ("work/a", EntryType::Char, None),
    ] {
        let into = outside.path().join("into");
        fs::create_dir_all(&into).unwrap();
        unpack_returned(&forged(name, kind, link)[..], &into).unwrap_err();
        assert!(!outside.path().join("evil").exists(), "{name}");
        assert!(into.join("work/a").symlink_metadata().is_err(), "{name}");
    }
    // A file in the place of a directory keeps the rest from its place, and nothing else.
    let into = outside.path().join("other");
    write(&into.join("work/a"), "file");
    let unpacked = unpack_returned(&forged("work/a/b", EntryType::Regular, None)[..], &into).unwrap();
    assert_eq!(unpacked.files, 0);
    assert_eq!(read(into.join("work/a")), "file");
}

#[test]
fn a_body_that_breaks_off_is_an_error() {
    let pod = directory();
    write(&pod.path().join("outputs/a"), &"x".repeat(10_000));
    let tar = pack_returned(&[written(pod.path(), "outputs", "work/outputs")], Vec::new()).unwrap();
    let into = directory();
    unpack_returned(&tar[..5000], into.path()).unwrap_err();
}

#[test]
fn a_file_that_grows_while_it_is_packed_is_cut() {
    // It is as long as its header says, whatever is read of it.
    let pod = directory();
    let path = pod.path().join("outputs/log");
    write(&path, "begin");
    let mut grows = File::options().append(true).open(&path).unwrap();
    struct Growing<'a>(&'a mut File, Vec<u8>);
    impl std::io::Write for Growing<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write_all(b"more")?;
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let places = [written(pod.path(), "outputs", "work/outputs")];
    let packed = pack_returned(&places, Growing(&mut grows, Vec::new())).unwrap();
    let into = directory();
    unpack_returned(&packed.1[..], into.path()).unwrap();
    assert!(read(into.path().join("work/outputs/log")).starts_with("begin"));
}

proptest! {
    #[test]
    fn whatever_is_sent_nothing_panics_and_nothing_is_written_elsewhere(bytes in proptest::collection::vec(any::<u8>(), 0..2048)) {
        let outside = directory();
        let into = outside.path().join("into");
        fs::create_dir(&into).unwrap();
        let _ = unpack_returned(&bytes[..], &into);
        let mut names = Vec::new();
        for entry in fs::read_dir(outside.path()).unwrap() {
            names.push(entry.unwrap().file_name());
        }
        prop_assert_eq!(names, ["into"]);
    }

    #[test]
    fn whatever_a_script_wrote_comes_back(files in proptest::collection::btree_map("[a-z]{1,8}", proptest::collection::vec(any::<u8>(), 0..600), 0..8)) {
        let pod = directory();
        fs::create_dir(pod.path().join("outputs")).unwrap();
        for (name, bytes) in &files {
            fs::write(pod.path().join("outputs").join(name), bytes).unwrap();
        }
        let tar = pack_returned(&[written(pod.path(), "outputs", "work/outputs")], Vec::new()).unwrap();
        let into = directory();
        unpack_returned(&tar[..], into.path()).unwrap();
        for (name, bytes) in &files {
            let mut found = Vec::new();
            File::open(into.path().join("work/outputs").join(name)).unwrap().read_to_end(&mut found).unwrap();
            prop_assert_eq!(&found, bytes);
        }
    }
}
