//! What cannot work says so, and what to do.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::support::{Scratch, Who, root_or_skip};

fn assert_refused((code, said): (i32, String), words: &[&str]) {
    assert_eq!(code, 1, "{said}");
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{said}"));
    for word in words {
        assert!(error.contains(word), "{word:?} is missing in: {error}");
    }
}

fn close(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_second_service_on_the_same_data() {
    let scratch = Scratch::new(Who::Us);
    let service = scratch.serve();
    let holder = format!("(pid {})", service.pid());
    assert_refused(scratch.refused(|_| ()), &["another estimatord", &holder, "--data-dir"]);
    assert_eq!(service.stop(), Some(0));
}

#[test]
fn no_binaries() {
    let scratch = Scratch::new(Who::Us);
    let empty = scratch.root().join("empty");
    fs::create_dir(&empty).unwrap();
    let refused = scratch.refused(|command| {
        command.env("PG_BIN_DIR", &empty);
    });
    let looked = empty.display().to_string();
    assert_refused(refused, &[&looked, "apt-get install postgresql", "PG_BIN_DIR", "DATABASE_URL"]);
}

#[test]
fn binaries_that_do_not_run() {
    let scratch = Scratch::new(Who::Us);
    let bin = scratch.root().join("bin");
    fs::create_dir(&bin).unwrap();
    for name in ["postgres", "initdb"] {
        fs::write(bin.join(name), "#!/bin/sh\necho a library is missing >&2; exit 127\n").unwrap();
        close(&bin.join(name), 0o755);
    }
    let refused = scratch.refused(|command| {
        command.env("PG_BIN_DIR", &bin);
    });
    assert_refused(refused, &["does not work", "a library is missing", "DATABASE_URL"]);
}

#[test]
fn data_of_another_major_version() {
    let scratch = Scratch::new(Who::Us);
    assert_eq!(scratch.serve().stop(), Some(0));
    fs::write(scratch.cluster().join("PG_VERSION"), "9999\n").unwrap();
    assert_refused(
        scratch.refused(|_| ()),
        &["is of PostgreSQL 9999", "apt-get install postgresql-9999", "PG_BIN_DIR"],
    );
}

#[test]
fn something_else_in_the_clusters_place() {
    let scratch = Scratch::new(Who::Us);
    fs::create_dir_all(scratch.cluster()).unwrap();
    fs::write(scratch.cluster().join("holiday.jpg"), "").unwrap();
    close(&scratch.data, 0o755);
    assert_refused(scratch.refused(|_| ()), &["no PostgreSQL cluster", "--data-dir"]);
    assert!(scratch.cluster().join("holiday.jpg").exists());
}

#[test]
fn an_unwritable_directory() {
    let mut scratch = Scratch::new(Who::Ordinary);
    let closed = scratch.root().join("closed");
    fs::create_dir(&closed).unwrap();
    close(&closed, 0o555);
    scratch.data = closed.join("data");
    let named = scratch.data.display().to_string();
    assert_refused(scratch.refused(|_| ()), &[&named, "Permission denied", "--data-dir", "DATABASE_URL"]);
    close(&closed, 0o755);
}

#[test]
fn a_directory_the_account_cannot_reach() {
    if !root_or_skip() {
        return;
    }
    let mut scratch = Scratch::new(Who::Us);
    let closed = scratch.root().join("closed");
    fs::create_dir(&closed).unwrap();
    close(&closed, 0o700);
    scratch.data = closed.join("a/data");
    let remedy = format!("chmod o+x {}`", closed.display());
    assert_refused(scratch.refused(|_| ()), &["may not pass through", &remedy, "/root"]);
}

#[test]
fn a_cluster_of_somebody_else() {
    if !root_or_skip() {
        return;
    }
    let scratch = Scratch::new(Who::Ordinary);
    fs::create_dir_all(scratch.cluster()).unwrap();
    close(&scratch.data, 0o777);
    assert_refused(scratch.refused(|_| ()), &["belongs to root", "runs as nobody", "chown"]);
    fs::write(scratch.cluster().join("PG_VERSION"), "15\n").unwrap();
    assert_refused(scratch.refused_as(Who::Us, |_| ()), &["PostgreSQL refuses to run as root", "chown -R"]);
}

#[test]
fn a_user_without_an_entry() {
    if !root_or_skip() {
        return;
    }
    let scratch = Scratch::new(Who::Unknown);
    assert_refused(scratch.refused(|_| ()), &["user id 54321 has no entry", "DATABASE_URL"]);
}

#[test]
fn a_path_too_long_for_postgresql() {
    let mut scratch = Scratch::new(Who::Us);
    for _ in 0..5 {
        scratch.data = scratch.data.join("d".repeat(200));
    }
    assert_refused(scratch.refused(|_| ()), &["900 at most", "--data-dir"]);
}

#[test]
fn a_server_that_does_not_start_shows_its_last_words() {
    let scratch = Scratch::new(Who::Us);
    assert_eq!(scratch.serve().stop(), Some(0));
    let conf = scratch.cluster().join("postgresql.conf");
    let mut text = fs::read_to_string(&conf).unwrap();
    text.push_str("no_such_parameter = 1\n");
    fs::write(&conf, text).unwrap();
    let (code, said) = scratch.refused(|_| ());
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("did not start") && said.contains("no_such_parameter"), "{said}");
}
